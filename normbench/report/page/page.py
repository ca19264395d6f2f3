"""One page with everything: verdicts, footprints, runs, pictures, failures.

The page holds all that it shows, and its policy forbids it any request: it opens from
disk, can be mailed, and is the same for the same material. What comes from files
(names, sentences, configs) is escaped by the template, or set as text by the script.
"""

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from normbench.config.schema import RunRecord
from normbench.errors import NormbenchError
from normbench.report import words
from normbench.report.figures.cubes import COLOURS, cube, legend
from normbench.report.figures.panel import MEASURED, read
from normbench.report.page.columns import DIGITS, Packed, pack, points_for
from normbench.report.page.material import Material, why
from normbench.report.page.pictures import QUALITY, Gallery, gallery
from normbench.report.published import published_line
from normbench.verdicts.registration import Claim
from normbench.verdicts.verdict import ContrastVerdict, Headline

FOLDER = Path(__file__).parent
SCRIPTS = (
    *("runs.js", "chart.js", "elements.js", "filters.js", "table.js", "curves.js"),
    *("compare.js", "explorer.js", "page.js"),
)
"""They are one module in the page; functions may call those of any script."""
MOST_BYTES = 5 * 2**20
"""Of a page. Curves have fewer points, or are left out, where it would be larger."""
MOST_FAILURES = 200
"""Kinds of failure that are listed; the explorer has every run."""
SYMBOLS: dict[Headline, str] = {
    "supported": "\N{CHECK MARK}",
    "refuted": "\N{MULTIPLICATION SIGN}",
    "equivalent": "=",
    "inconclusive": "?",
    "withdrawn": "\N{LEFTWARDS ARROW WITH HOOK}",
    "not tested": "\N{EN DASH}",
}


@dataclass(frozen=True)
class Page:
    """A page, and what of the material is not whole in it."""

    html: str
    packed: Packed
    gallery: Gallery


class Failure(NamedTuple):
    """How runs ended: their status, norm and task, and why."""

    status: str
    norm: str
    task: str
    why: str


class Bar(NamedTuple):
    """An interval on a line from -reach to reach, in per cent of its width."""

    low: float
    high: float
    effect: float
    margin_low: float
    margin_high: float


def render(
    material: Material,
    figures: Mapping[str, Mapping[str, str]],
    colours: Mapping[str, str],
) -> Page:
    """The page; `figures` are inline SVG by claim and name.

    Raises NormbenchError if it is larger than MOST_BYTES even without curves.
    """
    pictures = gallery(material)
    points = points_for(material)
    while True:
        packed = pack(material, colours, points)
        html = _html(material, figures, packed, pictures)
        if len(html.encode()) <= MOST_BYTES:
            return Page(html, packed, pictures)
        if points == 0:
            raise NormbenchError(
                f"{len(material.records)} runs make a page of more than "
                f"{MOST_BYTES // 2**20} MiB; name a folder with fewer by --results"
            )
        points = points // 2 if points >= 8 else 0


def _html(
    material: Material,
    figures: Mapping[str, Mapping[str, str]],
    packed: Packed,
    pictures: Gallery,
) -> str:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "number": number,
        "minus": lambda text: text.replace("-", "\N{MINUS SIGN}"),
        "anchor": anchor,
        "published": published_line,
    }
    environment.filters |= filters
    environment.globals |= {"bar": bar, "words": words, "registered": registered}
    script = "\n".join(_text(name) for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    panels = read(MEASURED)
    failures = failed(material.records)
    template = environment.from_string(_text("page.html"))
    return template.render(
        style=Markup(_text("page.css")),
        script=Markup(script),
        digest=digest,
        data=Markup(packed.text),
        withdrawn=words.notice(
            entry.verdict for entry in material.claims if entry.verdict
        ),
        figures={
            claim: {name: Markup(svg) for name, svg in drawn.items()}
            for claim, drawn in figures.items()
        },
        symbols=SYMBOLS,
        cubes=[cube(panel) for panel in panels],
        legend={COLOURS[kind]: text for kind, text in legend(panels).items()},
        material=material,
        packed=packed,
        gallery=pictures,
        failures=failures[:MOST_FAILURES],
        failures_left_out=len(failures[MOST_FAILURES:]),
        committed=len(material.records) - len(material.folders),
        digits=DIGITS,
        quality=QUALITY,
        version=version("normbench"),
    )


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def number(value: float) -> str:
    """Four decimals if they show something, else three significant digits."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4f}"
    return f"{value:.2e}"


def anchor(text: str) -> str:
    """A fragment for a link to the section of `text`, whatever is in it."""
    return "claim-" + "".join(c if c.isalnum() or c in "-_" else "_" for c in text)


def bar(contrast: ContrastVerdict, reach: float) -> Bar:
    """The interval that the decision rests on; it needs an effect."""

    def place(value: float) -> float:
        return round(100 * min(1.0, max(0.0, (value / reach + 1) / 2)), 2)

    assert contrast.effect is not None and contrast.interval is not None
    low, high, _ = contrast.interval
    ends = (low, high, contrast.effect, -contrast.margin, contrast.margin)
    return Bar(*map(place, ends))


def registered(claim: Claim) -> str:
    """How many theorems, mechanisms and outcomes a claim without a verdict has."""
    parts = (
        (len(claim.theorems), "theorem"),
        (len(claim.mechanisms), "mechanism"),
        (len(claim.outcomes), "outcome"),
    )
    return ", ".join(f"{n} {part}{'s' * (n > 1)}" for n, part in parts if n)


def failed(records: Iterable[RunRecord]) -> list[tuple[Failure, list[str]]]:
    """The ids of runs that are not ok, by how they ended; the most frequent first."""
    run_ids: dict[Failure, list[str]] = {}
    for record in records:
        if record.status != "ok":
            norm, task = record.config.norm.name, record.config.task.name
            key = Failure(record.status, norm, task, why(record))
            run_ids.setdefault(key, []).append(record.run_id)
    return sorted(run_ids.items(), key=lambda item: (-len(item[1]), item[1]))
