"""The HTML page of a report: verdicts, footprints, runs, pictures, failures.

The page is one self-contained file; its Content-Security-Policy forbids all requests.
Equal material gives an equal page. The template escapes all text from files (names,
sentences, configs), and the scripts insert it as text, never as markup.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from normbench.config.schema import RunRecord
from normbench.errors import NormbenchError
from normbench.report import words
from normbench.report.figures.cubes import COLOURS, cube, legend
from normbench.report.figures.panel import MEASURED, read
from normbench.report.page.columns import DIGITS, Packed, max_points, pack
from normbench.report.page.material import ClaimEntry, Material, reason
from normbench.report.page.pictures import QUALITY, Gallery, gallery
from normbench.report.published import published_line
from normbench.report.text.comparison import shown, verdict_answers
from normbench.verdicts.registration import Claim
from normbench.verdicts.verdict import (
    ContrastVerdict,
    Decision,
    DesignVerdict,
    Headline,
)
from normbench.verdicts.wording import census_text, margin_text, rule_text

FOLDER = Path(__file__).parent
SCRIPTS = (
    *("runs.js", "chart.js", "elements.js", "filters.js", "table.js", "curves.js"),
    *("compare.js", "explorer.js", "page.js"),
)
"""The page joins the scripts into one module, so that they share all functions."""
MAX_BYTES = 5 * 2**20
"""A page that would be larger gets curves with fewer points, or none."""
MAX_FAILURES = 200
"""Rows in the table of failures; the explorer has every run."""
SYMBOLS: dict[Headline | Decision, str] = {
    "holds": "\N{CHECK MARK}",
    "confirmed": "\N{CHECK MARK}",
    "holds in part": "\N{PLUS-MINUS SIGN}",
    "does not hold": "\N{MULTIPLICATION SIGN}",
    "contradicted": "\N{MULTIPLICATION SIGN}",
    "no relevant difference": "=",
    "not decided": "?",
    "withdrawn": "\N{LEFTWARDS ARROW WITH HOOK}",
    "not tested": "\N{EN DASH}",
}


@dataclass(frozen=True)
class Page:
    """A page; `packed` and `gallery` also say what is thinned or left out."""

    html: str
    packed: Packed
    gallery: Gallery


class Failure(NamedTuple):
    """A row of the table of failures: runs that ended in the same way."""

    status: str
    norm: str
    task: str
    reason: str


class Bar(NamedTuple):
    """The interval, effect and margins of a contrast, in per cent of an axis."""

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
    """Render the page.

    `figures` are inline SVG by claim and name; `colours` maps norms to hex colours.
    Raises NormbenchError if the page is larger than MAX_BYTES even without curves.
    """
    pictures = gallery(material)
    points = max_points(material)
    while True:
        packed = pack(material, colours, points)
        html = _html(material, figures, colours, packed, pictures)
        if len(html.encode()) <= MAX_BYTES:
            return Page(html, packed, pictures)
        if points == 0:
            raise NormbenchError(
                f"{len(material.records)} runs make a page of more than "
                f"{MAX_BYTES // 2**20} MiB; choose a --results folder with fewer runs"
            )
        points = points // 2 if points >= 8 else 0


def _html(
    material: Material,
    figures: Mapping[str, Mapping[str, str]],
    colours: Mapping[str, str],
    packed: Packed,
    pictures: Gallery,
) -> str:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str | list[str]]] = {
        "number": number,
        "minus": with_minus_signs,
        "anchor": anchor,
        "published": published_line,
        "other_estimates": words.other_estimates,
    }
    environment.filters |= filters
    environment.globals |= {
        "bar": bar,
        "words": words,
        "part_counts": part_counts,
        "first_figure": first_figure,
        "shown": shown,
        "verdict_answers": verdict_answers,
        "margin_text": margin_text,
        "rule_text": rule_text,
        "census_text": census_text,
    }
    script = "\n".join(_text(name) for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    panels = read(MEASURED)
    failures = failures_of(material.records)
    return environment.get_template("page.html").render(
        style=Markup(_text("page.css")),
        script=Markup(script),
        digest=digest,
        data=Markup(packed.text),
        withdrawals=words.withdrawals(
            entry.verdict for entry in material.claims if entry.verdict
        ),
        figures={
            claim: {name: Markup(svg) for name, svg in by_name.items()}
            for claim, by_name in figures.items()
        },
        symbols=SYMBOLS,
        colours=colours,
        cubes=[cube(panel) for panel in panels],
        legend={COLOURS[kind]: text for kind, text in legend(panels).items()},
        material=material,
        judged=[entry for entry in material.claims if entry.verdict],
        not_judged=[entry for entry in material.claims if not entry.verdict],
        packed=packed,
        gallery=pictures,
        failures=failures[:MAX_FAILURES],
        failures_left_out=len(failures[MAX_FAILURES:]),
        # Records without a folder come from the committed records of claims.
        committed=len(material.records) - len(material.folders),
        digits=DIGITS,
        quality=QUALITY,
        version=version("normbench"),
    )


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def number(value: float) -> str:
    """Format with four decimals; very small and very large numbers as exponentials."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4f}"
    return f"{value:.2e}"


def with_minus_signs(text: str) -> str:
    """Return `text` with a minus sign in each negative number; hyphens stay."""
    return re.sub(r"(?<![\w)])-(?=[\d.])", "\N{MINUS SIGN}", text)


def anchor(text: str) -> str:
    """Return the id of the section of a claim, for links; it is valid for any name."""
    return "claim-" + "".join(c if c.isalnum() or c in "-_" else "_" for c in text)


def first_figure(
    entry: ClaimEntry, figures: Mapping[str, Mapping[str, str]]
) -> DesignVerdict | None:
    """Return the design whose figure stands beside the sentence of a claim.

    It is the first leading outcome (`words.leading_outcomes`), or else outcome, or else
    mechanism, that has a figure in `figures`, by claim and name; None without a figure.
    """
    drawn = figures.get(entry.name, {})
    verdict = entry.verdict
    if verdict is None:
        return None
    leading = words.leading_outcomes(verdict)
    designs = [*leading, *verdict.outcomes, *verdict.mechanisms]
    return next((design for design in designs if design.name in drawn), None)


def bar(contrast: ContrastVerdict, limit: float) -> Bar:
    """Return the place of a contrast on an axis from -`limit` to `limit`, in margins.

    What is beyond the axis is at its end. The contrast must have an effect.
    """

    def per_cent(value: float) -> float:
        share = (value / (limit * contrast.margin) + 1) / 2
        return round(100 * min(1.0, max(0.0, share)), 2)

    assert contrast.effect is not None and contrast.interval is not None
    return Bar(
        low=per_cent(contrast.interval.low),
        high=per_cent(contrast.interval.high),
        effect=per_cent(contrast.effect),
        margin_low=per_cent(-contrast.margin),
        margin_high=per_cent(contrast.margin),
    )


def part_counts(claim: Claim) -> str:
    """Return the numbers of parts of a claim, such as "1 theorem, 2 outcomes"."""
    parts = (
        (len(claim.theorems), "theorem", "theorems"),
        (len(claim.census), "census", "censuses"),
        (len(claim.mechanisms), "mechanism", "mechanisms"),
        (len(claim.outcomes), "outcome", "outcomes"),
    )
    return ", ".join(
        f"{count} {singular if count == 1 else plural}"
        for count, singular, plural in parts
        if count
    )


def failures_of(records: Iterable[RunRecord]) -> list[tuple[Failure, list[str]]]:
    """Group the runs that are not ok by the way in which they failed.

    Returns each failure with the ids of its runs, the most frequent failure first.
    """
    run_ids: dict[Failure, list[str]] = {}
    for record in records:
        if record.status != "ok":
            norm, task = record.config.norm.name, record.config.task.name
            failure = Failure(record.status, norm, task, reason(record))
            run_ids.setdefault(failure, []).append(record.run_id)
    return sorted(run_ids.items(), key=lambda item: (-len(item[1]), item[1]))
