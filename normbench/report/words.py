"""What is shown of a verdict: its words and its numbers, as text.

The terminal, the page, the figures, the dashboard and the documents only lay them out.
"""

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import NamedTuple

from normbench.verdicts.registration import Says
from normbench.verdicts.verdict import (
    CellSummary,
    ContrastVerdict,
    CrossoverVerdict,
    DesignVerdict,
    Headline,
    TheoremVerdict,
    Verdict,
)

HEADLINES: dict[Headline, str] = {
    "supported": "supported",
    "refuted": "refuted",
    "equivalent": "no relevant difference",
    "inconclusive": "inconclusive",
    "withdrawn": "withdrawn",
    "not tested": "not tested",
}
EXPECTED: dict[Says, str] = {
    "greater": "above 0",
    "less": "below 0",
    "equal": "0 within the margin",
    "not_greater": "not above 0 by the margin",
}
"""What the claim expects of a contrast."""
EXPECTED_SHORT: dict[Says, str] = {
    "greater": "> 0",
    "less": "< 0",
    "equal": "= 0",
    "not_greater": "not > 0",
}


class Row(NamedTuple):
    """A claim as a row of a table: its sentence, and the decision on each part."""

    statement: str
    theorem: str
    mechanism: str
    outcome: str


class Numbers(NamedTuple):
    """The numbers of a contrast, and the ends of the interval that decided."""

    effect: str
    confidence: str
    low: str
    high: str
    n: str
    p: str

    def __str__(self) -> str:
        return (
            f"{self.effect}, {self.confidence} [{self.low}, {self.high}], "
            f"n {self.n}, p {self.p}"
        )


def numbers(contrast: ContrastVerdict, alpha: float) -> Numbers | None:
    """The numbers of a contrast; None if it has no effect."""
    if contrast.effect is None or contrast.interval is None:
        return None
    low, high, wide = contrast.interval
    return Numbers(
        effect=f"{contrast.effect:+.4f}",
        confidence=f"{1 - alpha if wide else 1 - 2 * alpha:.0%}",
        low=f"{low:+.4f}",
        high=f"{high:+.4f}",
        n=str(contrast.n),
        p=contrast.p_shown,
    )


def reach(design: DesignVerdict) -> float:
    """Where an axis around 0 ends that has all intervals and margins of a design."""
    ends = [
        abs(end)
        for contrast in design.contrasts
        if contrast.effect is not None
        for end in (contrast.low, contrast.high, contrast.margin)
        if end is not None and isfinite(end)
    ]
    return 1.05 * max(ends, default=1.0)


def metrics(design: DesignVerdict) -> list[str]:
    """The metrics of the contrasts of a design, in their order."""
    return list(dict.fromkeys(contrast.metric for contrast in design.contrasts))


def headline(shown: Headline) -> str:
    """A decision as a reader sees it."""
    return HEADLINES[shown]


def headlines(designs: Sequence[DesignVerdict]) -> dict[str, Headline]:
    """The decision on each design with a primary contrast, by name.

    Designs are separate questions: their decisions are not merged.
    """
    return {each.name: each.headline for each in designs if each.has_primary}


def decisions(designs: Sequence[DesignVerdict]) -> str:
    """The decision on each design with a primary contrast, without the name of a single
    one; "not tested" if there is none."""
    shown = headlines(designs)
    if len(shown) < 2:
        return headline(next(iter(shown.values()), "not tested"))
    return ", ".join(f"{name}: {headline(each)}" for name, each in shown.items())


def row(verdict: Verdict) -> Row:
    """The verdict as a row of a table."""
    findings = verdict.findings

    def part(text: str, finding: str | None) -> str:
        return f"{text}; found: {finding}" if finding else text

    return Row(
        with_finding(verdict.statement, findings.get("statement")),
        part(headline(verdict.theorem), findings.get("theorem")),
        part(decisions(verdict.mechanisms), findings.get("mechanism")),
        part(decisions(verdict.outcomes), findings.get("outcome")),
    )


def with_finding(statement: str, finding: str | None) -> str:
    """The sentence of a claim, and what was found about it."""
    return f"{statement} Found: {finding}." if finding else statement


def notice(verdicts: Iterable[Verdict]) -> str:
    """Which decisions are withdrawn, and why, in a paragraph; "" if none are."""
    by_reason: dict[str, dict[str, list[str]]] = {}
    for verdict in verdicts:
        for design in verdict.designs:
            for reason, contrasts in design.reasons.items():
                claims = by_reason.setdefault(reason, {})
                claims.setdefault(verdict.claim, []).append(_named(design, contrasts))
    sentences = []
    for reason, claims in by_reason.items():
        named = [f"{claim} ({', '.join(parts)})" for claim, parts in claims.items()]
        sentences += [f"Withdrawn: {', '.join(named)}.", reason]
    return " ".join(sentences)


def _named(design: DesignVerdict, contrasts: Sequence[str]) -> str:
    if contrasts:
        return f"of {design.name} {' and '.join(contrasts)}"
    return f"{design.name}{' with its crossover' * bool(design.crossovers)}"


def theorem_numbers(theorem: TheoremVerdict) -> tuple[str, str, str]:
    """Deviation, tolerance and control; "" if the theorem has no control."""
    deviation, control = theorem.deviation, theorem.control
    return (
        "not finite" if deviation is None else f"{deviation:.2g}",
        f"{theorem.tolerance:.2g}",
        "" if control is None else f"{control:.2g}",
    )


def cell_end(cell: CellSummary) -> str:
    """How many runs of a cell diverged or failed, or why it was skipped."""
    if cell.skipped:
        return f"skipped, {cell.skipped}"
    counts = (("diverged", cell.diverged), ("failed", cell.failed))
    return ", ".join(f"{count} {status}" for status, count in counts if count)


def good_rates(cell: CellSummary) -> str:
    """The learning rates within one margin of the best."""
    return " ".join(f"{lr:g}" for lr in cell.rate.good) or "none"


def crossover(crossing: CrossoverVerdict) -> str:
    """Where two curves cross, its interval, and how often they cross again."""
    at, low, high = (
        f"{x} the levels" if isinstance(x, str) else f"{x:.3g}"
        for x in (crossing.at, crossing.low, crossing.high)
    )
    several = ""
    if crossing.share_several >= 0.05:
        several = f"; {crossing.share_several:.0%} of resamples cross more than once"
    withdrawn = "; withdrawn" * bool(crossing.withdrawn)
    return f"at {at} [{low}, {high}], n {crossing.n}{several}{withdrawn}"


def because(contrast: ContrastVerdict) -> str:
    """The reason of a decision, and how many seeds would settle an open contrast.

    Names no number of seeds if the decision is withdrawn.
    """
    needed = contrast.seeds_needed
    if needed is None or contrast.withdrawn:
        return contrast.because
    return f"{contrast.because}; about {needed} seeds would settle it"


def census_built(verdict: Verdict, zoo: str) -> str:
    """How many models of a zoo were built, and which could not be, and why."""
    counts = verdict.census[zoo]
    missing, total = counts.get("not built", 0), sum(counts.values())
    if not missing:
        return f"all {total} models were built"
    by_reason: dict[str, list[str]] = {}
    for name, reason in verdict.census_failures.get(zoo, {}).items():
        by_reason.setdefault(reason, []).append(name)
    reasons = [f"{', '.join(names)} ({why})" for why, names in by_reason.items()]
    reasons = reasons or ["the reasons were not recorded"]
    return f"{missing} of {total} models could not be built: {'; '.join(reasons)}"
