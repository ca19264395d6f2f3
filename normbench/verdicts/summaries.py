"""The types of a verdict that summarise runs, and decide nothing."""

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

Level = float | Literal["before", "after"]
"""Position of a crossover: a level, before the first level, or after the last."""


class _Reported(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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
