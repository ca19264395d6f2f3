"""The types of a verdict: the result of checking a claim.

A claim is a sentence with parts. Theorems, censuses and contrasts bear on the parts;
together they give each part a headline.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from normbench.verdicts.counting import CensusVerdict
from normbench.verdicts.design import Bears, Says, Scale
from normbench.verdicts.summaries import (
    CellSummary,
    CrossoverVerdict,
    Estimate,
    Interval,
)

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

Answer = Literal["yes", "partly", "no", "not known"]
"""Whether a sentence is right, by rule from the headlines of its parts."""

Result = Literal["for", "small", "against", "open", "not tested"]
"""What a theorem, a census or a contrast says of its part; small: a difference within
the margins."""

Kind = Literal["theorem", "mechanism", "outcome", "census"]


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
    check did not choose. The seeds of the runs begin at `first_seed`, 0 unless the
    check was repeated with other seeds. `registered` is null if git does not know the
    yaml, and `first_run` is the time at which the first run of the verdict began.
    `census` has the rules on models, which only a full check judges. `summary` is the
    finding of the whole sentence, "" if nobody has written one.
    """

    format: Literal[2] = 2
    claim: str
    statement: str
    source: str
    registration: str
    registered: Registered | None
    first_run: str | None
    budget: str
    first_seed: int = 0
    alpha: float
    caveats: list[str]
    parts: list[PartVerdict]
    summary: str = ""
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
    def answer(self) -> Answer:
        """Whether the sentence is right, by rule from the headlines.

        "yes": every part holds. "no": no part holds, not even in part, and one is known
        not to hold. "not known": nothing is decided. "partly": everything else.
        """
        shown = {part.shown for part in self.parts}
        if shown == {"holds"}:
            return "yes"
        if shown & {"holds", "holds in part"}:
            return "partly"
        return "no" if "does not hold" in shown else "not known"

    @property
    def designs(self) -> Sequence[DesignVerdict]:
        """Mechanisms, then outcomes."""
        return [*self.mechanisms, *self.outcomes]
