"""The layout of all figures: a title, a subtitle, the panels, a legend, and notes.

All texts are broken into lines by their measured width, so none leaves the figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path

from normbench.report.figures.drawing import NOTE_SIZE, PAGE_WIDTH, STYLE, figure

MARGIN = 0.08
"""Space at the left and the right of a figure, in inches."""
TITLE_SIZE, LEAD_SIZE, SUBTITLE_SIZE = 9.0, 8.0, 7.2
"""Font sizes in points."""
TOP, BETWEEN = 0.06, 0.05
"""Space above the title, and below each text of the head, in inches."""
LINE_HEIGHT = 1.3
"""Distance between two lines of text, in font sizes."""
LINE_SPACING = (LINE_HEIGHT - 0.236) / 0.76
"""LINE_HEIGHT as matplotlib's `linespacing`, by the height of DejaVu Sans."""
FADED = 0.8
"""Opacity of a subtitle and of notes."""
_LEGEND_LINE = 0.16
_LEGEND_HANDLE = 0.5
"""Height of a line of a legend, and width of a handle with its gaps, in inches."""
_WIDER = 1.04
"""Room for a reader's font that is wider than DejaVu Sans."""


@dataclass(frozen=True)
class Texts:
    """The texts of a figure.

    `name` says what is drawn, in a few words, for a screen reader. `title` has the
    finding, and `lead` its numbers. `subtitle` has the design, the number of seeds and
    the interval. `notes` come below the panels. `description` has the numbers in words,
    for a screen reader. A line of a text is a paragraph.
    """

    name: str
    title: str
    lead: str = ""
    subtitle: str = ""
    notes: str = ""
    description: str = ""


def framed(
    texts: Texts,
    body: float,
    legend: Sequence[Line2D] = (),
    width: float = PAGE_WIDTH,
) -> Figure:
    """Return a figure with its texts and an empty area of `body` inches for panels.

    `legend` are handles with labels; the legend is below the panels. `width` is in
    inches. The panels belong to a constrained layout in the empty area.
    """
    inner = width - 2 * MARGIN
    head = [
        (texts.title, TITLE_SIZE, True),
        (texts.lead, LEAD_SIZE, False),
        (texts.subtitle, SUBTITLE_SIZE, False),
    ]
    blocks = [
        (wrapped(text, inner, size, bold=bold), size, bold)
        for text, size, bold in head
        if text
    ]
    notes = wrapped(texts.notes, inner, NOTE_SIZE) if texts.notes else []
    columns = _columns(legend, inner)
    legend_height = _LEGEND_LINE * ceil(len(legend) / columns) + 0.04 * bool(legend)
    top = TOP + sum(text_height(lines, size) + BETWEEN for lines, size, _ in blocks)
    foot = legend_height + text_height(notes, NOTE_SIZE) + (0.1 if notes else 0.04)
    height = top + body + foot
    description = "\n".join(
        part
        for part in (texts.title, texts.lead, texts.subtitle, texts.description)
        if part
    )
    drawn = figure(width, height, texts.name, description)
    engine = drawn.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(rect=(0, foot / height, 1, body / height))
    place = TOP
    for lines, size, bold in blocks:
        _write(drawn, lines, place / height, size, bold=bold)
        place += text_height(lines, size) + BETWEEN
    if notes:
        below = top + body + legend_height + 0.04
        _write(drawn, notes, below / height, NOTE_SIZE, bold=False)
    if legend:
        made = drawn.legend(
            handles=list(legend),
            loc="upper left",
            bbox_to_anchor=(MARGIN / width, 1 - (top + body) / height),
            ncols=columns,
            borderpad=0.2,
            labelspacing=0.3,
        )
        made.set_in_layout(False)
    return drawn


def body_top(drawn: Figure) -> float:
    """Return the upper edge of the area for panels, as a share of the height."""
    engine = drawn.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    _, bottom, _, height = engine.get()["rect"]
    return float(bottom + height)


def _write(
    drawn: Figure, lines: Sequence[str], top: float, size: float, *, bold: bool
) -> None:
    """Write lines at the left of a figure, `top` of its height from the top."""
    drawn.text(
        MARGIN / float(drawn.get_size_inches()[0]),
        1 - top,
        "\n".join(lines),
        fontsize=size,
        fontweight="bold" if bold else "normal",
        alpha=FADED if size < LEAD_SIZE else 1.0,
        va="top",
        linespacing=LINE_SPACING,
    )


def text_height(lines: Sequence[str], size: float) -> float:
    """Return the height of lines of text in inches; `size` is in points."""
    return len(lines) * LINE_HEIGHT * size / 72


def wrapped(text: str, width: float, size: float, *, bold: bool = False) -> list[str]:
    """Break each paragraph of `text` into lines of at most `width` inches.

    `size` is the font size in points. A word that is wider than a line is broken. No
    line breaks at a no-break space.
    """
    room = 72 * width / _WIDER
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in _short_words(paragraph.split(" "), room, size, bold):
            longer = f"{line} {word}".lstrip()
            if line and _points(longer, size, bold) > room:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    return lines


def balanced(text: str, width: float, size: float, *, bold: bool = False) -> list[str]:
    """Break a text as `wrapped` does, into lines of similar lengths."""
    lines = wrapped(text, width, size, bold=bold)
    for share in (0.9, 0.8, 0.7, 0.6):
        narrower = wrapped(text, share * width, size, bold=bold)
        if len(narrower) > len(lines):
            break
        lines = narrower
    return lines


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Return the width of a line of text in inches, with room for other fonts."""
    return _WIDER * _points(text, size, bold) / 72


def _short_words(
    words: Sequence[str], room: float, size: float, bold: bool
) -> list[str]:
    short = []
    for word in words:
        while len(word) > 1 and _points(word, size, bold) > room:
            count = max(1, int(len(word) * room / _points(word, size, bold)))
            short.append(word[:count])
            word = word[count:]
        short.append(word)
    return short


@lru_cache(maxsize=8192)
def _points(text: str, size: float, bold: bool) -> float:
    """Return the width of a line of text in points."""
    font = FontProperties(
        family=STYLE["font.family"], size=size, weight="bold" if bold else "normal"
    )
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, False)
    return float(width)


def _columns(legend: Sequence[Line2D], width: float) -> int:
    """Return how many entries of a legend fit into a line of `width` inches."""
    if not legend:
        return 1
    widest = max(
        text_width(str(handle.get_label()), STYLE["legend.fontsize"])
        for handle in legend
    )
    return max(1, min(len(legend), int(width / (widest + _LEGEND_HANDLE))))
