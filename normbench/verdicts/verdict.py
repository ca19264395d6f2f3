"""The types of a verdict: the result of checking a claim."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, overload

from pydantic import BaseModel, ConfigDict

from normbench.verdicts.registration import Says

Decision = Literal["supported", "refuted", "equivalent", "inconclusive", "not tested"]
"""equivalent: a difference was claimed, and one above the margin is excluded."""

Headline = Decision | Literal["withdrawn"]
"""What is shown: the decision, or that it was withdrawn after the check."""

Part = Literal["statement", "theorem", "mechanism", "outcome"]
"""What a finding is about: the sentence of a claim, or one of its three parts."""

Level = float | Literal["before", "after"]
"""Where a crossover is: at a level, before the first one, or after the last one."""


class _Reported(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TheoremVerdict(_Reported):
    """`deviation` must be at most `tolerance`, and `control`, if there is one, more.

    The control is measured where the theorem says that there is a difference. Either
    number is null if it is not finite, and then the theorem is not supported.
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

    `validation` is the mean validation metric over the tuning seeds, of each rate that
    was tried; null if a run has none. `good` are the rates within one margin of the
    best one, the margin of a contrast of the same metric. `at_edge`: the best is the
    lowest or the highest rate tried. `frozen`: an earlier full check chose it.
    """

    lr: float
    validation: dict[str, float | None]
    good: list[float]
    at_edge: bool
    frozen: bool


class CellSummary(_Reported):
    """The `n` runs of a cell: the mean of each metric, as contrasts count it.

    A classifier that `diverged` has an error of 1. A metric that a run lacks has no
    mean.
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
    """`wide`: the interval of confidence 1 - alpha, otherwise that of 1 - 2 alpha."""

    low: float
    high: float
    wide: bool


class ContrastVerdict(_Reported):
    """One contrast: its effect over paired seeds and what follows from it.

    (`low`, `high`) is the interval of confidence 1 - alpha, (`low_margin`,
    `high_margin`) the interval of confidence 1 - 2 alpha, which is compared with the
    margin. `p` belongs to the test that would support the claim, `p_against` to the
    test that would refute it or exclude a relevant difference; adjusted p values are
    after Holm over the claim's primary contrasts. `p_sign_flip` tests that there is no
    difference, without a normal model. `above` is the share of seeds with a contrast
    above 0, ties half, with its exact interval. `at_one_rate` has, by learning rate,
    the same contrast on the validation part with every cell at that rate, the mean of
    the tuning seeds; it does not decide anything. `seeds_needed` would settle an
    inconclusive contrast with power .8. `withdrawn` is the reason why the decision no
    longer stands; it comes from the remarks beside the verdict.
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
    withdrawn: str | None = None

    @property
    def headline(self) -> Headline:
        """The decision as it is shown."""
        return "withdrawn" if self.withdrawn else self.decision

    @property
    def interval(self) -> Interval | None:
        """The interval that the decision rests on; None if there is no effect."""
        wide = self.says in {"greater", "less"} and self.decision != "equivalent"
        low, high = (
            (self.low, self.high) if wide else (self.low_margin, self.high_margin)
        )
        return None if low is None or high is None else Interval(low, high, wide)

    @property
    def p_shown(self) -> str:
        """The p of the test that decided, "" if there is none.

        "against" marks the test against the claim, "(Holm)" an adjusted p. If neither
        test decided, the smaller p is shown: that test came closest.
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
        return f"{shown:.2g}{' against' * against}{' (Holm)' * holm}"


class CrossoverVerdict(_Reported):
    """The level at which two curves of means meet, with a bootstrap interval.

    `share_before` of the resamples had the curves in the other order from the first
    level on, `share_after` had no crossing up to the last, `share_several` more than
    one, of which the first counts. `withdrawn` is as in a contrast.
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

    `withdrawn` is why the whole design no longer stands.
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
        """The decision as it is shown."""
        if self.withdrawn:
            return "withdrawn"
        return _headline(self.decision, [c for c in self.contrasts if c.primary])

    @property
    def reasons(self) -> dict[str, list[str]]:
        """Reason of a withdrawal -> its contrasts, none if the whole is withdrawn."""
        if self.withdrawn:
            return {self.withdrawn: []}
        reasons: dict[str, list[str]] = {}
        for contrast in self.contrasts:
            if contrast.withdrawn:
                reasons.setdefault(contrast.withdrawn, []).append(contrast.name)
        return reasons


class Verdict(_Reported):
    """The result of checking a claim: theorem, mechanism and outcome apart.

    `mechanism` and `outcome` combine all their designs that have a primary contrast;
    each design has its own decision too. `caveats` limit the whole: mixed code or
    devices, failed runs, rates that were not tuned here. `census_failures` are the
    models of each zoo that could not be built, and why. `findings` come from the
    remarks beside the verdict.
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
        """The decision of all mechanisms together, as it is shown."""
        return _headline(self.mechanism, [d for d in self.mechanisms if d.has_primary])

    @property
    def shown_outcome(self) -> Headline:
        """The decision of all outcomes together, as it is shown."""
        return _headline(self.outcome, [d for d in self.outcomes if d.has_primary])


def _headline(
    decision: Decision, parts: Sequence[ContrastVerdict | DesignVerdict]
) -> Headline:
    """The decision over `parts`, or what remains of it after their withdrawals."""
    headlines = [part.headline for part in parts]
    return together(headlines) if "withdrawn" in headlines else decision


@overload
def together(parts: Iterable[Decision]) -> Decision: ...
@overload
def together(parts: Iterable[Headline]) -> Headline: ...
def together(parts: Iterable[Headline]) -> Headline:
    """The decision over several parts: one refuted part refutes, only all support.

    If no part is refuted, a withdrawn part withdraws the whole: it may turn out to be
    refuted.
    """
    decisions = set(parts)
    order: tuple[Headline, ...]
    order = ("refuted", "withdrawn", "equivalent", "inconclusive", "not tested")
    whole: Headline = "supported" if decisions else "not tested"
    return next((decisive for decisive in order if decisive in decisions), whole)
