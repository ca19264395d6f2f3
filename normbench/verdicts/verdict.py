"""The types of a verdict: the result of checking a claim.

A claim is a sentence with parts. Theorems, censuses and contrasts bear on the parts;
together they give each part a headline.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from normbench.verdicts.counting import CensusVerdict
from normbench.verdicts.design import Bears, Says, Scale

Decision = Literal[
    "confirmed", "contradicted", "no relevant difference", "not decided", "not tested"
]
"""What the runs, the counted models, or the check of a theorem say of a statement.

no relevant difference: the statement is a difference, and the interval of the effect
includes 0 and lies within the margins.
"""

Size = Literal["clear", "small", "open"]
"""The size of a difference whose direction is known: beyond the margin, within the
margins, or neither."""

Headline = Literal[
    "holds",
    "holds in part",
    "does not hold",
    "not decided",
    "not tested",
    "withdrawn",
]
"""What is said of a part of a claim; "withdrawn" if a remark withdrew it."""

Result = Literal["for", "small", "against", "open", "not tested"]
"""What a theorem, a census or a contrast says of its part; small: a difference within
the margins."""

Kind = Literal["theorem", "mechanism", "outcome", "census"]

Level = float | Literal["before", "after"]
"""Position of a crossover: a level, before the first level, or after the last."""


class _Reported(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TheoremVerdict(_Reported):
    """The result of a theorem's check.

    The theorem is confirmed if `deviation` is at most `tolerance` and the control, if
    there is one, is larger than `tolerance`. The control is measured in a case that the
    theorem excludes; `control` is null if there is no such case. A number that is not
    finite is null too. If `deviation` is null, the theorem is contradicted.
    """

    check: str
    statement: str
    part: str | None
    bears: Bears
    tolerance: float
    deviation: float | None
    control: float | None
    detail: str
    decision: Decision


class RateSummary(_Reported):
    """The runs of a cell at one learning rate.

    `validation` is the mean of the validation metric over `n` seeds, and `mean` has the
    means of the metrics of the contrasts; null, or missing, if a run lacks the metric.
    After the first look, a rate that is `dropped` has no further runs. `seeds` is the
    number of seeds for which this rate was chosen.
    """

    lr: float
    n: int
    validation: float | None
    mean: dict[str, float]
    dropped: bool
    seeds: int


class CellSummary(_Reported):
    """The runs of a cell: over rates, and at the chosen rates with `n` seeds.

    `mean` and `sd` are those of each metric at the chosen rates. A diverged classifier
    counts with an error of 1. A metric that a run lacks has no mean. `diverged` and
    `failed` are numbers of runs at the chosen rates. `untrained` is the number of these
    runs that diverged or did not pass the gate; (`untrained_low`, `untrained_high`) is
    the exact interval of their share, of confidence 1 - alpha. `good` are the rates
    whose mean validation metric is within ten per cent of the best mean. `at_edge` is
    true if the best of several rates is the lowest or the highest that was tried.
    `frozen` is true if an earlier full check chose the only rate.
    """

    cell: str
    rates: list[RateSummary]
    good: list[float]
    at_edge: bool
    frozen: bool
    n: int
    mean: dict[str, float]
    sd: dict[str, float | None]
    diverged: int
    failed: int
    untrained: int
    untrained_low: float
    untrained_high: float
    skipped: str | None

    @property
    def usual_rate(self) -> float | None:
        """The rate that was chosen for most seeds; None if there are no runs."""
        chosen = [rate for rate in self.rates if rate.seeds]
        return max(chosen, key=lambda rate: rate.seeds).lr if chosen else None


class Interval(NamedTuple):
    """An interval of confidence 1 - alpha if `wide`, otherwise of 1 - 2 alpha.

    Over all looks at a contrast, if there are several.
    """

    low: float
    high: float
    wide: bool


class Estimate(_Reported):
    """The mean of a contrast over `n` seeds, and its interval of confidence 1 - alpha.

    The interval is Student's t of a single look, on the scale of the contrast.
    """

    effect: float
    low: float
    high: float
    n: int


class ContrastVerdict(_Reported):
    """One contrast: its effect over paired seeds, its tests and its decision.

    If `scale` is "ratio", then `effect`, the intervals, `values` and `margin` are
    natural logarithms of ratios. (`low`, `high`) is the interval of confidence
    1 - alpha. (`low_margin`, `high_margin`) is the interval of confidence 1 - 2 alpha,
    which is compared with the margin. `p` is the p value of the test that would confirm
    the statement. `p_against` is the p value of the test that would contradict the
    statement. `p_within` is that of the test that would exclude a relevant difference,
    if the statement is a difference. `size` is that of a difference whose
    direction is known. `above` is the share of seeds with a contrast above 0 (ties
    count half). (`above_low`, `above_high`) is its exact interval.

    Beside the effect at the chosen rates, there are three further estimates, which have
    no influence on the decision. `nested`: each seed has the rate that is best on its
    own validation samples, as for a user with one seed. `at_common_rate`: all cells
    have the same rate; `best_common_rate` is the best one on validation samples.
    `without_failures`: without the seeds on which a run diverged or did not pass the
    gate; null if there are none.

    `looks` are the numbers of seeds at which the contrast was judged. The last is that
    of all numbers here: a settled contrast is not judged again. `planned` is the
    largest number of seeds that was registered. With looks, both intervals are repeated
    confidence intervals, and `p` and `p_against` are adjusted for the looks: together,
    all looks have the probability of an error of one fixed test. `p_sign_flip` and the
    interval of `above` are those of a test that looks once. `seeds_needed` is the
    number of seeds that would decide an undecided contrast of a fixed design with power
    .8.
    """

    name: str
    metric: str
    scale: Scale
    says: Says
    margin: float
    reason: str
    part: str | None
    bears: Bears
    exploratory: bool = False
    decision: Decision
    size: Size | None = None
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
    p_within: float | None = None
    p_within_adjusted: float | None = None
    p_sign_flip: float | None = None
    above: float | None = None
    above_low: float | None = None
    above_high: float | None = None
    nested: Estimate | None = None
    at_common_rate: dict[str, Estimate] = {}
    best_common_rate: str | None = None
    without_failures: Estimate | None = None
    seeds_needed: int | None = None
    values: dict[str, float] = {}
    looks: list[int] = []
    planned: int | None = None

    @property
    def primary(self) -> bool:
        """Whether the contrast bears on a part of the claim."""
        return self.bears != "context"

    @property
    def settled(self) -> bool:
        """Whether further seeds cannot change the decision.

        That is so if there is a decision, or if a run that the contrast needs has no
        finite metric.
        """
        return self.decision != "not decided" or self.effect is None

    @property
    def stopped_early(self) -> bool:
        """Whether a look before the last one that was planned gave the decision."""
        early = self.planned is not None and self.looks[-1] < self.planned
        return early and self.settled and self.effect is not None

    @property
    def interval(self) -> Interval | None:
        """The interval that gave the decision; None without an effect."""
        wide = (
            self.says in {"greater", "less"}
            and self.decision != "no relevant difference"
        )
        low, high = (
            (self.low, self.high) if wide else (self.low_margin, self.high_margin)
        )
        return None if low is None or high is None else Interval(low, high, wide)

    @property
    def p_shown(self) -> str:
        """The p of the test that decided, "" if there is none.

        "against" marks the p of a test against the statement, and "(Holm)" marks an
        adjusted p. If no test decided, the smallest p is shown: its test was the
        closest to a decision.
        """
        holm = self.p_adjusted is not None
        p = self.p_adjusted if holm else self.p
        p_against = self.p_against_adjusted if holm else self.p_against
        p_within = self.p_within_adjusted if holm else self.p_within
        if self.decision == "confirmed":
            candidates = [(p, "")]
        elif self.decision == "contradicted":
            candidates = [(p_against, " against")]
        elif self.decision == "no relevant difference":
            candidates = [(p_within, " against")]
        else:
            candidates = [(p, ""), (p_against, " against"), (p_within, " against")]
        known = [(value, mark) for value, mark in candidates if value is not None]
        if not known:
            return ""
        value, mark = min(known, key=lambda candidate: candidate[0])
        return f"{value:.2g}{mark}{' (Holm)' if holm else ''}"

    @property
    def best_common(self) -> Estimate | None:
        """The estimate at the best common rate; None if there is no common rate."""
        if self.best_common_rate is None:
            return None
        return self.at_common_rate.get(self.best_common_rate)


class CrossoverVerdict(_Reported):
    """The level at which two curves of means meet, with a bootstrap interval.

    `share_before` is the share of the bootstrap samples whose curves have crossed
    before the first level. In `share_after` of the samples, the curves have not crossed
    up to the last level. In `share_several` of the samples, the curves cross more than
    once (the first crossing counts).
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


class DesignVerdict(_Reported):
    """A mechanism or an outcome on one data set: its cells, gate and contrasts.

    `data` is the name of the data set in the registration, "" if the design names none.
    """

    name: str
    data: str
    question: str
    gate: dict[str, bool]
    cells: list[CellSummary]
    contrasts: list[ContrastVerdict]
    crossovers: list[CrossoverVerdict] = []


class Bearing(_Reported):
    """What one theorem, contrast or census says of a part: `result`.

    `design` is "" for a theorem and for a census.
    """

    kind: Kind
    design: str
    name: str
    bears: Bears
    result: Result


class PartVerdict(_Reported):
    """A part of the sentence: its headline, by rule from what bears on it.

    `caveats` limit the headline and are printed with it. `finding` is a sentence with
    numbers, "" if nobody has written one. `withdrawn` is the reason of a remark that
    withdraws the headline.
    """

    name: str
    sentence: str
    scope: str
    headline: Headline
    bearings: list[Bearing]
    caveats: list[str] = []
    finding: str = ""
    withdrawn: str | None = None

    @property
    def shown(self) -> Headline:
        """The headline, or "withdrawn"."""
        return "withdrawn" if self.withdrawn else self.headline


class Registered(_Reported):
    """The commit that last changed the yaml of a claim, and its time (ISO 8601)."""

    commit: str
    time: str


class Verdict(_Reported):
    """The result of checking a claim: a headline for each part of its sentence.

    `caveats` limit all headlines: mixed code or devices, failed runs, rates that this
    check did not choose. `registered` is null if git does not know the yaml, and
    `first_run` is the time at which the first run of the verdict began. `census` has
    the rules on models, which only a full check judges.
    """

    format: Literal[2] = 2
    claim: str
    statement: str
    source: str
    registration: str
    registered: Registered | None
    first_run: str | None
    budget: str
    alpha: float
    caveats: list[str]
    parts: list[PartVerdict]
    theorems: list[TheoremVerdict]
    mechanisms: list[DesignVerdict]
    outcomes: list[DesignVerdict]
    census: list[CensusVerdict] = []
    published: list[str] = []
    confounds: list[str] = []
    seen: list[str] = []
    run_ids: list[str] = []
    command: str
    started: str
    environment: dict[str, list[str]]

    @property
    def designs(self) -> Sequence[DesignVerdict]:
        """Mechanisms, then outcomes."""
        return [*self.mechanisms, *self.outcomes]
