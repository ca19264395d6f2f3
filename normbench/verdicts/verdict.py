"""The types of a verdict: the result of checking a claim."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, overload

from pydantic import BaseModel, ConfigDict

from normbench.verdicts.registration import Says

Decision = Literal["supported", "refuted", "equivalent", "inconclusive", "not tested"]
"""equivalent: the claim predicts a difference; the runs exclude a relevant one."""

Headline = Decision | Literal["withdrawn"]
"""The decision that is shown; "withdrawn" if a remark withdrew it after the check."""

Part = Literal["statement", "theorem", "mechanism", "outcome"]
"""The subject of a finding: the sentence of a claim, or one of its three parts."""

Level = float | Literal["before", "after"]
"""Position of a crossover: a level, before the first level, or after the last."""


class _Reported(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TheoremVerdict(_Reported):
    """The result of a theorem's check.

    The theorem is supported if `deviation` is at most `tolerance` and the control, if
    there is one, is larger than `tolerance`. The control is measured in a case that the
    theorem excludes; `control` is null if there is no such case. A number that is not
    finite is null too. If `deviation` is null, the theorem is not supported.
    """

    check: str
    statement: str
    tolerance: float
    deviation: float | None
    control: float | None
    detail: str
    decision: Decision


class Rate(_Reported):
    """The learning rate of a cell, and how it was chosen.

    `validation` has the mean validation metric over the tuning seeds for each rate that
    was tried. The mean is null if a run lacks the metric. `good` are the rates whose
    mean is within one margin of the best mean. This margin is the smallest margin of
    the contrasts of that metric. `at_edge` is true if the rate is the lowest or the
    highest that was tried. `frozen` is true if an earlier full check chose the rate.
    """

    lr: float
    validation: dict[str, float | None]
    good: list[float]
    at_edge: bool
    frozen: bool


class CellSummary(_Reported):
    """The `n` runs of a cell, with the mean and sd of each metric.

    A diverged classifier counts with an error of 1. A metric that a run lacks has no
    mean. `diverged` and `failed` are numbers of runs.
    """

    cell: str
    rate: Rate
    n: int
    mean: dict[str, float]
    sd: dict[str, float | None]
    diverged: int
    failed: int
    skipped: str | None


class Interval(NamedTuple):
    """An interval of confidence 1 - alpha if `wide`, otherwise of 1 - 2 alpha.

    Over all looks at a contrast, if there are several.
    """

    low: float
    high: float
    wide: bool


class ContrastVerdict(_Reported):
    """One contrast: its effect over paired seeds, its tests and its decision.

    (`low`, `high`) is the interval of confidence 1 - alpha. (`low_margin`,
    `high_margin`) is the interval of confidence 1 - 2 alpha, which is compared with the
    margin. `p` is the p value of the test that would support the claim. `p_against` is
    the p value of the test that would refute the claim or exclude a relevant
    difference. Holm's method adjusts `p_adjusted` and `p_against_adjusted` over the
    primary contrasts of the claim. `p_sign_flip` is the p value of a test of no
    difference that does not assume a normal distribution.

    `above` is the share of seeds with a contrast above 0 (ties count half).
    (`above_low`, `above_high`) is its exact interval. `at_one_rate` has, for
    each learning rate, the same contrast with every cell at that rate. This contrast is
    the mean over the tuning seeds on validation samples. It has no influence on the
    decision. `seeds_needed` is the number of seeds that would decide an inconclusive
    contrast of a fixed design with power .8. `withdrawn` is the reason of a remark that
    withdraws the decision.

    `looks` are the numbers of seeds at which the contrast was judged. The last is that
    of all numbers here: a settled contrast is not judged again. `planned` is the
    largest number of seeds that was registered. With looks, both intervals are repeated
    confidence intervals, and `p` and `p_against` are adjusted for the looks: together,
    all looks have the probability of an error of one fixed test. `p_sign_flip` and the
    interval of `above` are those of a test that looks once.
    """

    name: str
    metric: str
    says: Says
    margin: float
    reason: str
    primary: bool
    exploratory: bool = False
    decision: Decision
    because: str
    effect: float | None = None
    sd: float | None = None
    n: int = 0
    low: float | None = None
    high: float | None = None
    low_margin: float | None = None
    high_margin: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    p_against: float | None = None
    p_against_adjusted: float | None = None
    p_sign_flip: float | None = None
    above: float | None = None
    above_low: float | None = None
    above_high: float | None = None
    at_one_rate: dict[str, float] = {}
    seeds_needed: int | None = None
    values: dict[str, float] = {}
    looks: list[int] = []
    planned: int | None = None
    withdrawn: str | None = None

    @property
    def headline(self) -> Headline:
        """The decision that is shown."""
        return "withdrawn" if self.withdrawn else self.decision

    @property
    def settled(self) -> bool:
        """Whether further seeds cannot change the decision.

        That is so if there is a decision, or if a run that the contrast needs has no
        finite metric.
        """
        return self.decision != "inconclusive" or self.effect is None

    @property
    def stopped_early(self) -> bool:
        """Whether a look before the last one that was planned gave the decision."""
        early = self.planned is not None and self.looks[-1] < self.planned
        return early and self.settled and self.effect is not None

    @property
    def interval(self) -> Interval | None:
        """The interval that gave the decision; None without an effect."""
        wide = self.says in {"greater", "less"} and self.decision != "equivalent"
        low, high = (
            (self.low, self.high) if wide else (self.low_margin, self.high_margin)
        )
        return None if low is None or high is None else Interval(low, high, wide)

    @property
    def p_shown(self) -> str:
        """The p of the test that decided, "" if there is none.

        "against" marks the p of the test against the claim, and "(Holm)" marks an
        adjusted p. If neither test decided, the smaller p is shown: its test was the
        closest to a decision.
        """
        holm = self.p_adjusted is not None
        p = self.p_adjusted if holm else self.p
        p_against = self.p_against_adjusted if holm else self.p_against
        against = self.decision in {"refuted", "equivalent"}
        if self.decision == "inconclusive" and p is not None and p_against is not None:
            against = p_against < p
        shown = p_against if against else p
        if shown is None:
            return ""
        against_mark = " against" if against else ""
        holm_mark = " (Holm)" if holm else ""
        return f"{shown:.2g}{against_mark}{holm_mark}"


class CrossoverVerdict(_Reported):
    """The level at which two curves of means meet, with a bootstrap interval.

    `share_before` is the share of the bootstrap samples whose curves have crossed
    before the first level. In `share_after` of the samples, the curves have not crossed
    up to the last level. In `share_several` of the samples, the curves cross more than
    once (the first crossing counts). `withdrawn` is the reason of a remark that
    withdraws the crossover.
    """

    name: str
    metric: str
    at: Level
    low: Level
    high: Level
    share_before: float
    share_after: float
    share_several: float
    n: int
    withdrawn: str | None = None


class DesignVerdict(_Reported):
    """A mechanism or an outcome: its cells, gate and contrasts.

    `withdrawn` is the reason of a remark that withdraws the whole design.
    """

    name: str
    question: str
    gate: dict[str, bool]
    cells: list[CellSummary]
    contrasts: list[ContrastVerdict]
    crossovers: list[CrossoverVerdict] = []
    decision: Decision
    withdrawn: str | None = None

    @property
    def has_primary(self) -> bool:
        """Whether the design counts towards its part of the claim."""
        return any(contrast.primary for contrast in self.contrasts)

    @property
    def headline(self) -> Headline:
        """The decision that is shown."""
        if self.withdrawn:
            return "withdrawn"
        return _headline(self.decision, [c for c in self.contrasts if c.primary])

    @property
    def reasons(self) -> dict[str, list[str]]:
        """Reason of a withdrawal -> its contrasts; empty if the design is withdrawn."""
        if self.withdrawn:
            return {self.withdrawn: []}
        reasons: dict[str, list[str]] = {}
        for contrast in self.contrasts:
            if contrast.withdrawn:
                reasons.setdefault(contrast.withdrawn, []).append(contrast.name)
        return reasons


class Verdict(_Reported):
    """The result of checking a claim: a decision on each of its three parts.

    `mechanism` combines the decisions of the mechanisms that have a primary contrast.
    `outcome` combines the decisions of the outcomes that have a primary contrast.
    `caveats` limit all decisions: mixed code or devices, failed runs, rates that this
    check did not tune. `census_failures` has the models of each zoo that could not be
    built, with the error. `findings` come from the remarks.
    """

    format: Literal[1] = 1
    claim: str
    statement: str
    source: str
    registration: str
    budget: str
    alpha: float
    caveats: list[str]
    theorem: Decision
    mechanism: Decision
    outcome: Decision
    theorems: list[TheoremVerdict]
    mechanisms: list[DesignVerdict]
    outcomes: list[DesignVerdict]
    census: dict[str, dict[str, int]] = {}
    census_failures: dict[str, dict[str, str]] = {}
    published: list[str] = []
    confounds: list[str] = []
    run_ids: list[str] = []
    command: str
    started: str
    environment: dict[str, list[str]]
    findings: dict[Part, str] = {}

    @property
    def designs(self) -> list[DesignVerdict]:
        """Mechanisms, then outcomes."""
        return [*self.mechanisms, *self.outcomes]

    @property
    def shown_mechanism(self) -> Headline:
        """The decision that is shown for all mechanisms together."""
        return _headline(self.mechanism, [d for d in self.mechanisms if d.has_primary])

    @property
    def shown_outcome(self) -> Headline:
        """The decision that is shown for all outcomes together."""
        return _headline(self.outcome, [d for d in self.outcomes if d.has_primary])


def _headline(
    decision: Decision, parts: Sequence[ContrastVerdict | DesignVerdict]
) -> Headline:
    """Return `decision`, or a new decision over `parts` if a part is withdrawn."""
    headlines = [part.headline for part in parts]
    return together(headlines) if "withdrawn" in headlines else decision


@overload
def together(parts: Iterable[Decision]) -> Decision: ...
@overload
def together(parts: Iterable[Headline]) -> Headline: ...
def together(parts: Iterable[Headline]) -> Headline:
    """Return the decision over several parts.

    The whole is refuted if one part is refuted, and supported only if all parts are
    supported. If no part is refuted, a withdrawn part withdraws the whole, because that
    part may turn out to be refuted.
    """
    decisions = set(parts)
    order: tuple[Headline, ...]
    order = ("refuted", "withdrawn", "equivalent", "inconclusive", "not tested")
    # The first decision in `order` that some part has is the decision of the whole.
    whole: Headline = "supported" if decisions else "not tested"
    return next((decisive for decisive in order if decisive in decisions), whole)
