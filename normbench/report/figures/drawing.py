"""Sets the matplotlib style of all figures; writes figures as files or inside pages.

Figures are made without pyplot, so they leave no global state. The first line of a
figure's label is the title of the figure. The other lines describe the content of the
figure in words. The SVG has the title and the description, for screen readers.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.figure import Figure as Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from normbench.errors import RequestError
from normbench.system.atomic import write_atomically

Format = Literal["svg", "png"]

COLUMN_WIDTH, PAGE_WIDTH = 3.5, 7.16
"""Widths in inches: one column, or both, of a page with two columns."""
NOTE_SIZE = 6.5
"""Font size in points of notes in a figure."""
TEXT_COLOUR, BACKGROUND = "#24292e", "#ffffff"
DOTS_PER_INCH = 200
"""Twice the pixels that a figure has in a page, for slides; the SVG is for print."""
STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": TEXT_COLOUR,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": TEXT_COLOUR,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": TEXT_COLOUR,
    "axes.titlelocation": "left",
    "axes.titlesize": 8,
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "grid.alpha": 0.16,
    "grid.color": TEXT_COLOUR,
    "grid.linewidth": 0.5,
    "legend.borderaxespad": 0.0,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "legend.labelcolor": TEXT_COLOUR,
    "lines.linewidth": 1.3,
    "lines.markeredgewidth": 1.1,
    "lines.markersize": 4.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "normbench",
    "text.color": TEXT_COLOUR,
    "text.parse_math": False,  # names may contain dollar signs
    "xtick.color": TEXT_COLOUR,
    "xtick.labelsize": 7.5,
    "xtick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.color": TEXT_COLOUR,
    "ytick.labelsize": 7.5,
    "ytick.major.size": 2.5,
    "ytick.major.width": 0.6,
}
_NO_METADATA: dict[str, None] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_FONT = "font-family: 'DejaVu Sans'"
"""Verdana replaces DejaVu Sans if it is missing: their letters have equal widths."""
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_REFERENCE = re.compile(r"(?<=url\(#)[^)]+(?=\))")
"""The id in a reference such as `url(#id)`."""


@contextmanager
def style() -> Iterator[None]:
    """Set the style while figures are made and written.

    Silences the warning about characters that the font lacks. Such a character is a box
    in a PNG and plain text in an SVG.
    """
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from")
        yield


def figure(width: float, height: float, title: str, description: str = "") -> Figure:
    """Return an empty figure of `width` x `height` inches with constrained layout."""
    layout = ConstrainedLayoutEngine(w_pad=0.08)
    empty = Figure((width, height), dpi=DOTS_PER_INCH, layout=layout)
    empty.set_label(f"{title}\n{description}")
    return empty


def title_of(figure: Figure) -> tuple[str, str]:
    """Return the title of a figure and the description of its content."""
    title, _, description = str(figure.get_label()).partition("\n")
    return title, description


def svg(figure: Figure) -> str:
    """Return a figure as an <svg> element for a page.

    The background is transparent, text and axes have the colour `currentColor`, and
    hollow markers are filled with `--paper`, the background of the page. Text stays
    text; <title> and <desc> describe the content. The ids of different figures differ.
    Equal figures give equal text.
    """
    return _inline(_rendered(figure, "svg", "none"), *title_of(figure))


def save(
    figure: Figure, stem: Path, formats: Sequence[Format] = ("svg", "png")
) -> list[Path]:
    """Write `stem`.svg and `stem`.png, on white; each file is written atomically.

    Creates the folder. Raises RequestError if it is not writable.
    """
    rendered = {kind: _rendered(figure, kind, BACKGROUND) for kind in formats}
    files = []
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        for kind, data in rendered.items():
            files.append(stem.with_name(f"{stem.name}.{kind}"))
            write_atomically(files[-1], data)
    except OSError as error:
        raise RequestError(
            f"{stem.parent} cannot be written: {error.strerror}; "
            "choose a writable folder"
        ) from None
    return files


def _rendered(figure: Figure, kind: Format, background: str) -> bytes:
    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"Software": None} if kind == "png" else _NO_METADATA
    with style():
        if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
            for _ in range(2):  # the second layout fits the ticks of the first
                figure.draw_without_rendering()
            figure.set_layout_engine("none")  # keeps this layout in later renderings
        figure.savefig(
            buffer,
            format=kind,
            dpi=DOTS_PER_INCH,
            facecolor=background,
            metadata=metadata,
        )
    if kind == "png":
        return buffer.getvalue()
    text = _NOT_XML.sub("", buffer.getvalue().decode())
    return text.replace(_FONT, f"{_FONT}, Verdana, sans-serif").encode()


def _inline(document: bytes, title: str, description: str) -> str:
    """Turn an SVG document into an element for a page; set ids, colours and texts."""
    digest = sha256(document + title.encode("utf-8", "replace")).hexdigest()
    prefix = f"f{digest[:8]}-"
    root = ElementTree.fromstring(document)
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                value = prefix + value
            elif key == f"{{{_XLINK}}}href" and value.startswith("#"):
                value = f"#{prefix}{value[1:]}"
            else:
                value = _REFERENCE.sub(lambda match: prefix + match[0], value)
                value = value.replace(TEXT_COLOUR, "currentColor")
                value = value.replace(BACKGROUND, "var(--paper, Canvas)")
            element.set(key, value)
    for metadata in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(metadata)
    for parent in root.findall(f"{{{_SVG}}}defs"):
        for rule in parent.findall(f"{{{_SVG}}}style"):
            parent.remove(rule)  # a style would apply to the whole page
    root.attrib |= {"stroke-linejoin": "round", "stroke-linecap": "butt"}
    root.set("overflow", "visible")  # letters of another font may be wider
    root.set("role", "img")
    texts = {"title": title} | ({"desc": description} if description else {})
    for index, (tag, text) in enumerate(texts.items()):
        element = ElementTree.Element(f"{{{_SVG}}}{tag}", {"id": prefix + tag})
        element.text = _NOT_XML.sub("", text)
        root.insert(index, element)
    root.set("aria-labelledby", " ".join(prefix + tag for tag in texts))
    # Without these names, `tostring` would write <ns0:svg> instead of <svg>.
    for name, namespace in (("", _SVG), ("xlink", _XLINK)):
        ElementTree.register_namespace(name, namespace)
    return ElementTree.tostring(root, encoding="unicode")
