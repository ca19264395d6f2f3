"""The types of the result of a race: its arms in order, and what it cost."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from normbench.config.schema import Budget
from normbench.verdicts.seeds import Spending

Place = Literal["best", "equal", "open", "worse"]
"""equal: a difference from the best as large as the margin is excluded; open: nothing
is shown yet."""
End = Literal["settled", "last look", "time"]
"""Why a race ended."""


class _Reported(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FromBest(_Reported):
    """The metric of an arm minus that of the best arm, on `n` seeds of both.

    (`low`, `high`) is the repeated interval of confidence 1 - alpha: its coverage holds
    over all looks, for this pair alone. `p` is adjusted for the looks and for all pairs
    of arms. `seeds_needed` is the number of seeds that would decide an open pair with
    power .8, None if it is above 200 or if the pair is decided.
    """

    difference: float
    low: float
    high: float
    n: int
    p: float
    seeds_needed: int | None


class _AtRate(_Reported):
    """An arm at its learning rate.

    `peak_lr` is the peak learning rate at `lr`, which a rule may scale with the batch
    size; None if an older version has ranked.
    """

    arm: str
    lr: float
    peak_lr: float | None = None

    @property
    def scaled(self) -> bool:
        """Whether the peak learning rate is not `lr`."""
        return self.peak_lr is not None and self.peak_lr != self.lr


class RankedArm(_AtRate):
    """An arm with its mean metric over `n` test seeds and the t interval of the mean.

    If the arm is `distinguishable` from the best, it is worse than `worse_than`, which
    was the best arm, or another better arm, at that look. `from_best` is None for the
    best arm. `gate_mean` is the mean of the metric of the gate, which shows how well
    the arm fits its training data; None if an older version has ranked.
    """

    place: Place
    distinguishable: bool
    worse_than: str | None
    n: int
    mean: float
    low: float
    high: float
    from_best: FromBest | None
    gate_mean: float | None = None


class ProvisionalArm(_AtRate):
    """An arm before the first look, with its mean metric over its first `n` test seeds.

    All provisional arms of a ranking have the same `n`, which is too small for a test.
    `mean` is None if a run has no finite metric.
    """

    n: int
    mean: float | None


class LeftOut(_Reported):
    """An arm without a place, and the reason."""

    arm: str
    reason: str


class TunedArm(_Reported):
    """The rate of an arm, and what the tuning seeds show on validation samples.

    `validation` maps each rate to the mean metric, None if a run lacks it. `seeds` maps
    each rate to the number of its tuning seeds.
    """

    arm: str
    lr: float
    at_edge: bool
    validation: dict[str, float | None]
    seeds: dict[str, int]


class Spent(_Reported):
    """What a phase has cost: the runs of this command, and those found finished."""

    phase: Literal["tuning", "test"]
    runs: int
    found: int
    core_seconds: float
    minutes: float


class Further(_Reported):
    """What would settle the rest, or lead to the first look.

    `seeds` is the number of further test seeds of each of `arms`, None if more than 200
    seeds would be needed. `minutes` is their time at the measured cost, if known.
    """

    arms: list[str]
    seeds: int | None
    minutes: float | None


class Ranking(_Reported):
    """The result of a race.

    `arms` are in order, the best first; the list is empty if the time was too short for
    the first look. Then `provisional` has the arms, if they have test seeds. `looks`
    are the planned looks, `seen` those that happened. `metric` is better if it is
    lower, unless `maximized`. `gate` is the training metric that shows whether an arm
    trained, and `budget` the length of a training; both are empty if an older version
    has ranked.
    """

    format: Literal[1] = 1
    metric: str
    maximized: bool
    margin: float
    alpha: float
    spending: Spending
    looks: list[int]
    seen: list[int]
    ended: End
    arms: list[RankedArm]
    provisional: list[ProvisionalArm] = []
    left_out: list[LeftOut]
    tuning: list[TunedArm]
    validation: str
    spent: list[Spent]
    further: Further | None
    caveats: list[str]
    run_ids: list[str]
    command: str
    started: str
    environment: dict[str, list[str]]
    gate: str = ""
    budget: Budget | None = None

    @property
    def not_distinguishable(self) -> list[str]:
        """The best arm, and the arms that cannot be told from it."""
        return [arm.arm for arm in self.arms if not arm.distinguishable]
