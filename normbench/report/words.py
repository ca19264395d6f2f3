"""What is shown of a verdict, in words: the same wherever one is shown.

The terminal, the report, the figures, the dashboard and the documents only lay it out.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from normbench.verdicts.registration import Says
from normbench.verdicts.verdict import (
    ContrastVerdict,
    CrossoverVerdict,
    DesignVerdict,
    Headline,
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


class Row(NamedTuple):
    """A claim in a table: its sentence and its parts, each with what was found."""

    statement: str
    theorem: str
    mechanism: str
    outcome: str


def headline(shown: Headline) -> str:
    """A decision as a reader sees it."""
    return HEADLINES[shown]


def expected(contrast: ContrastVerdict) -> str:
    """What the claim expects of a contrast."""
    return f"expected: {EXPECTED[contrast.says]}"


def headlines(designs: Sequence[DesignVerdict]) -> dict[str, Headline]:
    """The decision of each design with a primary contrast, by name.

    Designs are separate questions: they are not merged.
    """
    return {each.name: each.headline for each in designs if each.has_primary}


def decisions(designs: Sequence[DesignVerdict]) -> str:
    """The decision of each design with a primary contrast; that alone where it is one.

    "not tested" where there is none.
    """
    shown = headlines(designs)
    if len(shown) < 2:
        return headline(next(iter(shown.values()), "not tested"))
    return ", ".join(f"{name}: {headline(each)}" for name, each in shown.items())


def row(verdict: Verdict) -> Row:
    """The verdict as a row of a table."""
    found = verdict.findings

    def part(text: str, finding: str | None) -> str:
        return f"{text}; found: {finding}" if finding else text

    return Row(
        with_finding(verdict.statement, found.get("statement")),
        part(headline(verdict.theorem), found.get("theorem")),
        part(decisions(verdict.mechanisms), found.get("mechanism")),
        part(decisions(verdict.outcomes), found.get("outcome")),
    )


def with_finding(statement: str, finding: str | None) -> str:
    """The sentence of a claim, and what was found about it."""
    return f"{statement} Found: {finding}." if finding else statement


def notice(verdicts: Iterable[Verdict]) -> str:
    """Which decisions are withdrawn, and why, in a paragraph; "" where none are."""
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


def crossover(crossing: CrossoverVerdict) -> str:
    """Where two curves cross, its interval, and how sure it is that they do."""
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
    """Why a contrast is decided so, and how many seeds would decide it.

    No number of seeds is promised of a decision that is withdrawn.
    """
    needed = contrast.seeds_needed
    if needed is None or contrast.withdrawn:
        return contrast.because
    return f"{contrast.because}; about {needed} seeds would settle it"


def census_built(verdict: Verdict, zoo: str) -> str:
    """How many models of a zoo were counted, and which could not be built, and why."""
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
