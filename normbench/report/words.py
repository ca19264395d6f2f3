"""The words and numbers of a verdict, formatted as text.

The terminal, the page, the figures, the dashboard and the documents take them from this
module, so that all of them show the same text.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from normbench.verdicts.counting import CensusVerdict
from normbench.verdicts.design import Says
from normbench.verdicts.seeds import Spending
from normbench.verdicts.summaries import CellSummary, CrossoverVerdict, Estimate
from normbench.verdicts.verdict import (
    ContrastVerdict,
    DesignVerdict,
    PartVerdict,
    TheoremVerdict,
    Verdict,
)
from normbench.verdicts.wording import (
    answer,
    category_text,
    census_text,
    estimate_text,
    rule_text,
    unit,
    value_text,
)

EXPECTATIONS: dict[Says, str] = {
    "greater": "above 0",
    "less": "below 0",
    "equal": "0 within the margin",
    "not_greater": "not above 0 by the margin",
}
"""What the claim expects of a contrast, for a sentence."""
SHORT_EXPECTATIONS: dict[Says, str] = {
    "greater": "above 0",
    "less": "below 0",
    "equal": "within the margin",
    "not_greater": "below the margin",
}
SPENDINGS: dict[Spending, str] = {
    "pocock": "Pocock",
    "obrien_fleming": "O'Brien-Fleming",
    "kim_demets": "Kim-DeMets",
}
MAX_MARGINS = 10.0
"""Limit of the axis of contrasts, in margins."""
MIN_SHARE_SEVERAL = 0.05
"""The smallest share of several crossings that the text of a crossover mentions."""


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
    interval, scale, metric = contrast.interval, contrast.scale, contrast.metric
    confidence = f"{1 - alpha if interval.wide else 1 - 2 * alpha:.0%}"
    return Numbers(
        effect=estimate_text(contrast, interval=False),
        confidence=f"repeated {confidence}" if contrast.looks else confidence,
        low=value_text(interval.low, scale, metric),
        high=value_text(interval.high, scale, metric),
        n=str(contrast.n),
        p=contrast.p_shown,
    )


def axis_limit(design: DesignVerdict) -> float:
    """Return an L such that the axis [-L, L], in margins, contains all intervals.

    Each contrast of a design has its own margin as the unit, because contrasts of
    several scales and metrics have no other common unit. L is at most MAX_MARGINS.
    """
    limits = [
        abs(value) / contrast.margin
        for contrast in design.contrasts
        if contrast.interval is not None
        for value in contrast.interval[:2]
    ]
    return min(MAX_MARGINS, 1.05 * max([1.0, *limits]))


def metrics(design: DesignVerdict) -> list[str]:
    """Return the metrics of the contrasts of a design, each once, in their order."""
    return list(dict.fromkeys(contrast.metric for contrast in design.contrasts))


def metric_words(metric: str) -> str:
    """Return a metric in words, such as "test error" for test/error."""
    return metric.replace("/", " ").replace("_", " ")


def headline(part: PartVerdict, *, capitals: bool = False) -> str:
    """Return the headline of a part, perhaps in capitals, with what limits it."""
    shown = part.shown.upper() if capitals else part.shown
    limits = [part.withdrawn] if part.withdrawn else part.caveats
    return f"{shown} ({'; '.join(limits)})" if limits else shown


def findings(part: PartVerdict, verdict: Verdict) -> list[str]:
    """Return the finding of a part: a written text, or else a line for each statement.

    A statement that was not tested has no line.
    """
    if part.finding:
        return [part.finding]
    theorems = [theorem for theorem in verdict.theorems if theorem.part == part.name]
    rules = [rule for rule in verdict.census if rule.part == part.name]
    contrasts = {(d.name, c.name): c for d in verdict.designs for c in d.contrasts}
    return [
        *(f"theorem, {theorem.decision}: {theorem.statement}" for theorem in theorems),
        *(f"census, {rule.decision}: {census_line(rule)}" for rule in rules),
        *(
            f"{bearing.design}, {bearing.name}: {_finding(contrast)}"
            for bearing in part.bearings
            if (contrast := contrasts.get((bearing.design, bearing.name)))
            and contrast.decision != "not tested"
        ),
    ]


def _finding(contrast: ContrastVerdict) -> str:
    if contrast.size:
        return answer(contrast)
    return f"{contrast.decision}, {answer(contrast) or contrast.because}"


def short_answer(verdict: Verdict) -> str:
    """Return whether the sentence is right, and what was found, if that is written."""
    answer = f"{verdict.answer.capitalize()}."
    return f"{answer} {verdict.summary}" if verdict.summary else answer


def headlines(verdict: Verdict) -> str:
    """Return the headlines of all parts in one line; several have names."""
    if len(verdict.parts) == 1:
        return headline(verdict.parts[0])
    return ", ".join(f"{part.name}: {headline(part)}" for part in verdict.parts)


def leading_outcomes(verdict: Verdict) -> list[DesignVerdict]:
    """Return the outcomes whose figures stand for the whole verdict.

    They are those with contrasts on the first part that an outcome bears on. The one
    with the largest effect, in margins, comes first.
    """
    for part in verdict.parts:
        effects = {each.name: _effect(each, part) for each in verdict.outcomes}
        leading = [each for each in verdict.outcomes if effects[each.name]]
        if leading:
            return sorted(leading, key=lambda each: effects[each.name], reverse=True)
    return []


def _effect(design: DesignVerdict, part: PartVerdict) -> float:
    """Return the largest effect of a design that bears on `part`, in margins, or 0."""
    contrasts = (each for each in design.contrasts if each.part == part.name)
    return max((abs(c.effect) / c.margin for c in contrasts if c.effect), default=0.0)


def registration(verdict: Verdict) -> str:
    """Return when the claim was registered, and when its first run began."""
    known = verdict.registered
    commit = (
        "no commit known" if known is None else f"{known.commit[:10]}, {known.time}"
    )
    first = verdict.first_run or "none"
    return f"{verdict.registration} ({commit}); first run {first}"


def decision(contrast: ContrastVerdict) -> str:
    """Return the decision on a contrast and the size of a known difference."""
    return (
        f"{contrast.decision}, {contrast.size}" if contrast.size else contrast.decision
    )


def withdrawals(verdicts: Iterable[Verdict]) -> str:
    """Return a paragraph on all withdrawn headlines and the reasons, or ""."""
    return " ".join(
        f"Withdrawn: {verdict.claim}, {part.name}: {part.withdrawn}"
        for verdict in verdicts
        for part in verdict.parts
        if part.withdrawn
    )


def other_estimates(contrast: ContrastVerdict) -> list[str]:
    """Return the estimates of a contrast that do not decide, a line each."""

    def text(estimate: Estimate) -> str:
        ends = (estimate.effect, estimate.low, estimate.high)
        effect, low, high = (
            value_text(value, contrast.scale, contrast.metric) for value in ends
        )
        which = unit(contrast.scale, contrast.metric)
        return f"{effect}{f' {which}' if which else ''} [{low}, {high}]"

    lines = []
    if contrast.nested:
        lines.append(f"tuned by one seed: {text(contrast.nested)}")
    if contrast.at_common_rate:
        best = " (best)"
        rates = ", ".join(
            f"{lr}{best if lr == contrast.best_common_rate else ''}: {text(estimate)}"
            for lr, estimate in contrast.at_common_rate.items()
        )
        lines.append(f"every cell at one lr {rates}")
    if contrast.without_failures:
        estimate = contrast.without_failures
        lines.append(
            f"without runs that failed to train: {text(estimate)}, n {estimate.n}"
        )
    return lines


def theorem_numbers(theorem: TheoremVerdict) -> tuple[str, str, str]:
    """Return deviation, tolerance and control; "" if the theorem has no control."""
    deviation, control = theorem.deviation, theorem.control
    return (
        "not finite" if deviation is None else f"{deviation:.2g}",
        f"{theorem.tolerance:.2g}",
        "" if control is None else f"{control:.2g}",
    )


def cell_problems(cell: CellSummary) -> str:
    """Return how many runs of a cell failed to train, or why it was skipped."""
    if cell.skipped:
        return f"skipped, {cell.skipped}"
    counts = (("diverged", cell.diverged), ("failed", cell.failed))
    parts = [f"{count} {status}" for status, count in counts if count]
    if cell.untrained:
        interval = f"[{cell.untrained_low:.0%}, {cell.untrained_high:.0%}]"
        parts.append(f"{cell.untrained} of {cell.n} did not train {interval}")
    return ", ".join(parts)


def rates(cell: CellSummary) -> str:
    """Return the learning rates of a cell: chosen ones, good ones, and the curve."""
    chosen = [rate for rate in cell.rates if rate.seeds]
    if len(cell.rates) == 1:
        origin = " (chosen by a full check)" if cell.frozen else ""
        return f"lr {cell.rates[0].lr:g}{origin}"
    text = "lr " + " ".join(
        f"{rate.lr:g}" if len(chosen) == 1 else f"{rate.lr:g} (on {rate.seeds} seeds)"
        for rate in chosen
    )
    good = " ".join(f"{lr:g}" for lr in cell.good) or "none"
    edge = ", at the edge" if cell.at_edge else ""
    curve = ", ".join(
        f"{rate.lr:g}: {'-' if rate.validation is None else f'{rate.validation:.4f}'}"
        for rate in cell.rates
    )
    return f"{text}, good {good}{edge}; validation by lr {curve}"


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
    return text


def explanation(contrast: ContrastVerdict) -> str:
    """Return the reason for a decision.

    The text of an undecided contrast also says how many seeds would settle it. The text
    of a contrast with looks says at which look it was settled.
    """
    if sentence := looks_taken(contrast):
        return f"{contrast.because}; {sentence}"
    needed = contrast.seeds_needed
    if needed is None:
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


def census_line(rule: CensusVerdict) -> str:
    """Return what a rule says of the models, and the numbers."""
    return f"{rule_text(rule)}: {census_text(rule)}"


def census_counts(rule: CensusVerdict) -> str:
    """Return the numbers of all categories of a census, and what was not counted."""
    counts = ", ".join(f"{category_text(c)} {n}" for c, n in rule.counts.items())
    counts = counts or "no model counted"
    if not rule.failures:
        return f"{counts}; no model is missing"
    by_reason: dict[str, list[str]] = {}
    for name, reason in rule.failures.items():
        by_reason.setdefault(reason, []).append(name)
    reasons = [f"{', '.join(names)} ({reason})" for reason, names in by_reason.items()]
    missing = len(rule.failures)
    models = "1 model" if missing == 1 else f"{missing} models"
    return f"{counts}; {models} could not be counted: {'; '.join(reasons)}"


def estimate(value: float, low: float, high: float, *, sign: str = "") -> str:
    """Return a number with its interval; with the `sign` "+", all have a sign."""
    return f"{value:{sign}.4f} [{low:{sign}.4f}, {high:{sign}.4f}]"
