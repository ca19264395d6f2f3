"""The words and numbers of a verdict, formatted as text.

The terminal, the page, the figures, the dashboard and the documents take them from this
module, so that all of them show the same text.
"""

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import NamedTuple

from normbench.verdicts.registration import Says
from normbench.verdicts.seeds import Spending
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
EXPECTATIONS: dict[Says, str] = {
    "greater": "above 0",
    "less": "below 0",
    "equal": "0 within the margin",
    "not_greater": "not above 0 by the margin",
}
"""What the claim expects of a contrast, for a sentence."""
SHORT_EXPECTATIONS: dict[Says, str] = {
    "greater": "> 0",
    "less": "< 0",
    "equal": "= 0",
    "not_greater": "not > 0",
}
SPENDINGS: dict[Spending, str] = {
    "pocock": "Pocock",
    "obrien_fleming": "O'Brien-Fleming",
    "kim_demets": "Kim-DeMets",
}
MIN_SHARE_SEVERAL = 0.05
"""The smallest share of several crossings that the text of a crossover mentions."""


class TableRow(NamedTuple):
    """A claim as a row of a table: its sentence and the decision on each part."""

    statement: str
    theorem: str
    mechanism: str
    outcome: str


class Numbers(NamedTuple):
    """The formatted numbers of a contrast, with the interval that decided."""

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
    """Return the formatted numbers of a contrast, or None if it has no effect."""
    if contrast.effect is None or contrast.interval is None:
        return None
    interval = contrast.interval
    confidence = f"{1 - alpha if interval.wide else 1 - 2 * alpha:.0%}"
    return Numbers(
        effect=f"{contrast.effect:+.4f}",
        confidence=f"repeated {confidence}" if contrast.looks else confidence,
        low=f"{interval.low:+.4f}",
        high=f"{interval.high:+.4f}",
        n=str(contrast.n),
        p=contrast.p_shown,
    )


def axis_limit(design: DesignVerdict) -> float:
    """Return an L such that [-L, L] contains all intervals and margins of a design."""
    limits = [
        abs(value)
        for contrast in design.contrasts
        if contrast.effect is not None
        for value in (contrast.low, contrast.high, contrast.margin)
        if value is not None and isfinite(value)
    ]
    return 1.05 * max(limits, default=1.0)


def metrics(design: DesignVerdict) -> list[str]:
    """Return the metrics of the contrasts of a design, each once, in their order."""
    return list(dict.fromkeys(contrast.metric for contrast in design.contrasts))


def headline(decision: Headline) -> str:
    """Return the words for a decision."""
    return HEADLINES[decision]


def headlines(designs: Sequence[DesignVerdict]) -> dict[str, Headline]:
    """Return the decision on each design that has a primary contrast, by design name.

    Designs answer separate questions, so their decisions are not merged.
    """
    return {design.name: design.headline for design in designs if design.has_primary}


def decisions(designs: Sequence[DesignVerdict]) -> str:
    """Return the decisions on all designs with a primary contrast in one line.

    The line names the designs if there are several. It is "not tested" if no design has
    a primary contrast.
    """
    by_design = headlines(designs)
    if not by_design:
        return headline("not tested")
    if len(by_design) == 1:
        (decision,) = by_design.values()
        return headline(decision)
    return ", ".join(
        f"{name}: {headline(decision)}" for name, decision in by_design.items()
    )


def table_row(verdict: Verdict) -> TableRow:
    """Return the verdict as a row of a table."""
    findings = verdict.findings

    def cell(decision: str, finding: str | None) -> str:
        return f"{decision}; found: {finding}" if finding else decision

    return TableRow(
        with_finding(verdict.statement, findings.get("statement")),
        cell(headline(verdict.theorem), findings.get("theorem")),
        cell(decisions(verdict.mechanisms), findings.get("mechanism")),
        cell(decisions(verdict.outcomes), findings.get("outcome")),
    )


def with_finding(statement: str, finding: str | None) -> str:
    """Return the sentence of a claim, followed by the finding about it if any."""
    return f"{statement} Found: {finding}." if finding else statement


def withdrawals(verdicts: Iterable[Verdict]) -> str:
    """Return a paragraph on all withdrawn decisions and the reasons, or ""."""
    by_reason: dict[str, dict[str, list[str]]] = {}  # reason -> claim -> parts
    for verdict in verdicts:
        for design in verdict.designs:
            for reason, contrasts in design.reasons.items():
                claims = by_reason.setdefault(reason, {})
                parts = claims.setdefault(verdict.claim, [])
                parts.append(_withdrawn_part(design, contrasts))
    sentences = []
    for reason, claims in by_reason.items():
        names = [f"{claim} ({', '.join(parts)})" for claim, parts in claims.items()]
        sentences += [f"Withdrawn: {', '.join(names)}.", reason]
    return " ".join(sentences)


def _withdrawn_part(design: DesignVerdict, contrasts: Sequence[str]) -> str:
    """Name the withdrawn `contrasts`, or the whole design if `contrasts` is empty."""
    if contrasts:
        return f"of {design.name} {' and '.join(contrasts)}"
    return f"{design.name} with its crossover" if design.crossovers else design.name


def theorem_numbers(theorem: TheoremVerdict) -> tuple[str, str, str]:
    """Return deviation, tolerance and control; "" if the theorem has no control."""
    deviation, control = theorem.deviation, theorem.control
    return (
        "not finite" if deviation is None else f"{deviation:.2g}",
        f"{theorem.tolerance:.2g}",
        "" if control is None else f"{control:.2g}",
    )


def cell_problems(cell: CellSummary) -> str:
    """Return how many runs of a cell diverged or failed, or why it was skipped."""
    if cell.skipped:
        return f"skipped, {cell.skipped}"
    counts = (("diverged", cell.diverged), ("failed", cell.failed))
    return ", ".join(f"{count} {status}" for status, count in counts if count)


def good_rates(cell: CellSummary) -> str:
    """Return the learning rates whose validation is within one margin of the best."""
    return " ".join(f"{lr:g}" for lr in cell.rate.good) or "none"


def crossover(crossing: CrossoverVerdict) -> str:
    """Return the level at which two curves cross, with its interval."""
    # A text instead of a number is "before" or "after".
    level, low, high = (
        f"{value} the levels" if isinstance(value, str) else f"{value:.3g}"
        for value in (crossing.at, crossing.low, crossing.high)
    )
    text = f"at {level} [{low}, {high}], n {crossing.n}"
    if crossing.share_several >= MIN_SHARE_SEVERAL:
        text += f"; {crossing.share_several:.0%} of resamples cross more than once"
    if crossing.withdrawn:
        text += "; withdrawn"
    return text


def explanation(contrast: ContrastVerdict) -> str:
    """Return the reason for a decision.

    The text of an inconclusive contrast also says how many seeds would settle it,
    unless the decision is withdrawn. The text of a contrast with looks says at which
    look it was settled.
    """
    if sentence := looks_taken(contrast):
        return f"{contrast.because}; {sentence}"
    needed = contrast.seeds_needed
    if needed is None or contrast.withdrawn:
        return contrast.because
    return f"{contrast.because}; about {needed} seeds would settle it"


def registered_looks(looks: Sequence[int], spending: Spending) -> str:
    """Return the looks of a design in words, for its registration."""
    *earlier, last = looks
    name = SPENDINGS[spending]
    return f"looks at {', '.join(map(str, earlier))} and {last} seeds ({name} spending)"


def looks_taken(contrast: ContrastVerdict) -> str:
    """Return at which look a contrast was settled, or "" if it was judged only once."""
    if not contrast.looks or contrast.effect is None:
        return ""
    seeds = f"at {contrast.looks[-1]} of at most {contrast.planned} seeds"
    if not contrast.settled:
        return f"not settled {seeds}"
    if not contrast.stopped_early or contrast.interval is None:
        return f"settled {seeds}"
    away = "0" if contrast.interval.wide else "the margin"
    return f"settled {seeds}; an effect that stops early is biased away from {away}"


def census_coverage(verdict: Verdict, library: str) -> str:
    """Return how many models of a library could not be built, which ones, and why."""
    counts = verdict.census[library]
    missing, total = counts.get("not built", 0), sum(counts.values())
    if not missing:
        return f"all {total} models were built"
    by_reason: dict[str, list[str]] = {}
    for name, reason in verdict.census_failures.get(library, {}).items():
        by_reason.setdefault(reason, []).append(name)
    reasons = [f"{', '.join(names)} ({reason})" for reason, names in by_reason.items()]
    reasons = reasons or ["the reasons were not recorded"]
    return f"{missing} of {total} models could not be built: {'; '.join(reasons)}"


def estimate(value: float, low: float, high: float, *, sign: str = "") -> str:
    """Return a number with its interval; with the `sign` "+", all have a sign."""
    return f"{value:{sign}.4f} [{low:{sign}.4f}, {high:{sign}.4f}]"
