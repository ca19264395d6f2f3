"""What a check of a claim came to: the types of a verdict, and its file.

Knows no torch and no hydra: verdicts are read on a laptop.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from normbench import reading
from normbench.errors import RequestError, Unreadable
from normbench.registration import Says

Decision = Literal["supported", "refuted", "equivalent", "inconclusive", "not tested"]
"""equivalent: a difference was claimed, and one beyond the margin is excluded."""

Level = float | Literal["before", "after"]
"""Where a crossover is: at a level, or before the first or after the last of them."""


class _Reported(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TheoremVerdict(_Reported):
    """`deviation` must be at most `tolerance`, and `control`, where there is one, more:
    it is where the theorem says that there is a difference. Either is null where it is
    not finite, and then the theorem is not supported."""

    check: str
    statement: str
    tolerance: float
    deviation: float | None
    control: float | None
    detail: str
    decision: Decision


class Rate(_Reported):
    """The learning rate of a cell, and how it was chosen.

    `validation` is the mean validation metric over the tuning seeds of each rate that
    was tried, null where a run has none; `good` are the rates within one margin of the
    best, the margin of a contrast of the same metric. `at_edge`: the best is at an end
    of what was tried. `frozen`: it was chosen by an earlier, fuller check.
    """

    lr: float
    validation: dict[str, float | None]
    good: list[float]
    at_edge: bool
    frozen: bool


class CellSummary(_Reported):
    """One cell's `n` runs: the mean of each metric, as contrasts count it.

    A classifier that `diverged` has an error of 1; a metric that any run lacks has no
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


class ContrastVerdict(_Reported):
    """One contrast: its effect over paired seeds and what follows from it.

    (`low`, `high`) is the interval of confidence 1 - alpha, (`low_margin`,
    `high_margin`) that of 1 - 2 alpha, which is held against the margin. `p` is that of
    the test that would support what is said, `p_against` that of the one that would
    refute it or find no difference worth the name; the adjusted ones are after Holm
    over the claim's primary contrasts. `p_sign_flip` is that of no difference, without
    a normal model. `above` is the share of seeds on which the contrast is above 0, ties
    half, with its exact interval: of two arms and an error, the probability that the
    one subtracted improves on the other. `at_one_rate` has, by learning rate, the same
    contrast on the validation part with every cell at that rate, the mean of the tuning
    seeds; it has no part in the decision. `seeds_needed` would settle an
    inconclusive contrast with power .8.
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


class CrossoverVerdict(_Reported):
    """The level at which two curves of means meet, with a bootstrap interval.

    `share_before` of the resamples had the curves in the other order from the first
    level on, `share_after` had no crossing up to the last, `share_several` more than
    one, of which the first counts.
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
    """A mechanism or an outcome: its cells, gate and contrasts."""

    name: str
    question: str
    gate: dict[str, bool]
    cells: list[CellSummary]
    contrasts: list[ContrastVerdict]
    crossovers: list[CrossoverVerdict] = []
    decision: Decision


class Verdict(_Reported):
    """What a check of a claim came to: theorem, mechanism and outcome apart.

    `mechanism` and `outcome` are those of all their designs with a primary contrast
    together; where such designs are separate questions, each has its own decision.
    `caveats` are what limits the whole: mixed code or devices, failed runs, rates that
    were not tuned here.
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
    published: list[str] = []
    confounds: list[str] = []
    run_ids: list[str] = []
    command: str
    started: str
    environment: dict[str, list[str]]


def read_verdict(path: Path) -> Verdict | None:
    """The verdict in a file; None where there is none.

    Raises RequestError where it is damaged or of another version.
    """
    try:
        data = reading.content(path, reading.VERDICT, follow=True)
        return reading.parsed(Verdict, data, path)
    except FileNotFoundError:
        return None
    except (Unreadable, NotADirectoryError) as error:
        why = error.why if isinstance(error, Unreadable) else error.strerror
        raise RequestError(f"{path} is not a verdict ({why}); remove it") from None
