"""One page with everything: verdicts, footprints, runs, pictures, failures.

The page holds all that it shows, and its policy forbids it any request: it opens from
disk, can be mailed, and is the same for the same material. What comes from files
(names, sentences, configs) is escaped by the template, or set as text by the script.
"""

import base64
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from normbench.config.schema import RunRecord
from normbench.errors import NormbenchError
from normbench.report import words
from normbench.report.figures import footprints
from normbench.report.page.columns import DIGITS, Packed, pack, points_for
from normbench.report.page.material import Material, why
from normbench.report.page.pictures import QUALITY, Gallery, gallery
from normbench.report.published import published_line
from normbench.verdicts.registration import Claim
from normbench.verdicts.verdict import (
    CellSummary,
    ContrastVerdict,
    DesignVerdict,
    Headline,
)

FOLDER = Path(__file__).parent
SCRIPTS = ("runs.js", "chart.js", "explorer.js", "page.js")
"""One module in the page: each uses those before it."""
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


@dataclass(frozen=True)
class Failure:
    """Runs that ended alike: their status, norm, task, and why."""

    status: str
    norm: str
    task: str
    why: str
    run_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Bar:
    """An interval on a line from -scale to scale, in per cent of its width."""

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

    Raises NormbenchError where even without curves it is larger than MOST_BYTES.
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
        "signed": signed,
        "percent": lambda share: f"{share:.0%}",
        "anchor": anchor,
        "published": published_line,
    }
    environment.filters |= filters
    environment.globals |= {
        "bar": bar,
        "scale": scale,
        "words": words,
        "cell_metrics": cell_metrics,
        "ends": ends,
        "registered": registered,
    }
    script = "\n".join(_text(name) for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    cubes = footprints.cubes()
    failures = failed(material.records)
    template = environment.from_string(_text("page.html"))
    return template.render(
        style=Markup(_text("page.css")),
        script=Markup(script),
        digest=digest,
        data=Markup(packed.text),
        told=material.told,
        withdrawn=words.notice(one.verdict for one in material.told if one.verdict),
        figures={
            claim: {name: Markup(svg) for name, svg in drawn.items()}
            for claim, drawn in figures.items()
        },
        symbols=SYMBOLS,
        cubes=cubes,
        legend=footprints.legend(cubes),
        material=material,
        packed=packed,
        gallery=pictures,
        failures=failures[:MOST_FAILURES],
        kinds_left_out=len(failures) - len(failures[:MOST_FAILURES]),
        committed=len(material.records) - len(material.folders),
        digits=DIGITS,
        quality=QUALITY,
        version=version("normbench"),
    )


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def number(value: float | None) -> str:
    """Four decimals where that shows something, else three significant digits."""
    if value is None:
        return "not finite"
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4f}"
    return f"{value:.2e}"


def signed(value: float) -> str:
    """A difference, with a minus that is as wide as the plus."""
    return f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def anchor(text: str) -> str:
    """A fragment for a link to the section of `text`, whatever is in it."""
    return "claim-" + "".join(c if c.isalnum() or c in "-_" else "_" for c in text)


def scale(design: DesignVerdict) -> float:
    """How far the intervals and margins of a design reach from 0."""
    ends = [
        abs(end)
        for each in design.contrasts
        if each.effect is not None
        for end in (each.low, each.high, each.margin)
        if end is not None and math.isfinite(end)
    ]
    return 1.05 * max(ends, default=1.0)


def bar(contrast: ContrastVerdict, reach: float) -> Bar:
    """The interval that the decision rests on; it needs an effect."""

    def place(value: float) -> float:
        return round(100 * min(1.0, max(0.0, (value / reach + 1) / 2)), 2)

    assert contrast.effect is not None and contrast.interval is not None
    low, high, _ = contrast.interval
    return Bar(
        low=place(low),
        high=place(high),
        effect=place(contrast.effect),
        margin_low=place(-contrast.margin),
        margin_high=place(contrast.margin),
    )


def cell_metrics(design: DesignVerdict) -> list[str]:
    """The metrics that the contrasts of a design are of."""
    return list(dict.fromkeys(each.metric for each in design.contrasts))


def ends(cell: CellSummary) -> str:
    """What became of runs of a cell that did not end well."""
    if cell.skipped:
        return f"skipped: {cell.skipped}"
    counts = (("diverged", cell.diverged), ("failed", cell.failed))
    return ", ".join(f"{count} {end}" for end, count in counts if count)


def registered(claim: Claim) -> str:
    """What a claim without a verdict waits for."""
    parts = (
        (len(claim.theorems), "theorem"),
        (len(claim.mechanisms), "mechanism"),
        (len(claim.outcomes), "outcome"),
    )
    return ", ".join(
        f"{count} {what}{'s' * (count > 1)}" for count, what in parts if count
    )


def failed(records: Iterable[RunRecord]) -> list[Failure]:
    """The runs that are not ok, those that ended alike together, many first."""
    found: dict[tuple[str, ...], Failure] = {}
    for each in records:
        if each.status != "ok":
            norm, task = each.config.norm.name, each.config.task.name
            key = (each.status, norm, task, why(each))
            found.setdefault(key, Failure(*key)).run_ids.append(each.run_id)
    return sorted(found.values(), key=lambda one: (-len(one.run_ids), one.run_ids))
