"""The schema of a design: the cells that are trained, and the contrasts of cells.

A contrast is a weighted sum of one metric over cells. It has one value per seed. The
claim says that the contrast is greater than 0, less than 0, about 0, or not much
greater than 0.
"""

from collections import Counter
from math import log1p
from typing import Annotated, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    model_validator,
)

from normbench.config.evaluation import AtEnd
from normbench.errors import did_you_mean
from normbench.verdicts.seeds import LookSeeds, Seeds, Spending, check_looks

Says = Literal["greater", "less", "equal", "not_greater"]
"""Prediction for a contrast: > 0, < 0, within +-margin, or below the margin."""

Bears = Literal["for", "against", "context"]
"""What it says of a part of the claim if a statement is true; context: nothing."""

Scale = Literal["difference", "ratio", "log2"]
"""Scale on which a contrast adds up metrics.

difference: the metrics themselves. ratio: natural logarithms of means over seeds, so
that a difference of two cells is the logarithm of a ratio of means. log2: log2 of the
metric of each run.
"""

SPLITS: tuple[str, ...] = ("test", *get_args(AtEnd))
"""Prefixes of a metric before its "/". The name of a probe is a prefix too."""


STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
"""The config of every model that reads a part of a claim's yaml."""


class _Registered(BaseModel):
    model_config = STRICT


class Contrast(_Registered):
    """A weighted sum of one metric over cells for each seed, and a statement about it.

    A contrast has either `weights` (cell -> weight) or `slope`, the name of an arm. A
    contrast with `slope` is the least-squares slope of the metric of the arm on log2 of
    the numeric levels. `expected` is the number that a mechanism predicts. It is
    subtracted from the sum or the slope. On the scale "ratio", `margin` is a share,
    such as 0.1 for ten per cent. `also` has further metrics; the contrast is repeated
    for each.

    `bears` tells what the statement, if it is true, says of the `part` of the claim. A
    contrast that bears for or against a part is primary.
    """

    name: str
    metric: str
    also: list[str] = []
    weights: Annotated[dict[str, float], Field(min_length=1)] | None = None
    slope: str | None = None
    scale: Scale = "difference"
    expected: float = 0.0
    says: Says
    margin: PositiveFloat
    reason: str
    part: str | None = None
    bears: Bears = "context"
    exploratory: bool = False

    @model_validator(mode="after")
    def _check_one_kind(self) -> Self:
        if (self.weights is None) == (self.slope is None):
            raise ValueError("a contrast has either weights or a slope")
        if self.weights is not None and not all(self.weights.values()):
            raise ValueError("a weight is 0; leave the cell out")
        check_bears(self.part, self.bears)
        return self

    @property
    def primary(self) -> bool:
        """Whether the contrast bears on a part of the claim."""
        return self.bears != "context"

    @property
    def limit(self) -> float:
        """The margin on the scale of the effect: log(1 + margin) for a ratio."""
        return log1p(self.margin) if self.scale == "ratio" else self.margin

    def by_metric(self) -> "list[Contrast]":
        """Return this contrast, and one for each metric of `also`."""
        return [
            self.model_copy(update={"also": []}),
            *(
                self.model_copy(
                    update={
                        "also": [],
                        "metric": metric,
                        "name": f"{self.name} ({metric.partition('/')[2]})",
                    }
                )
                for metric in self.also
            ),
        ]


def check_bears(part: str | None, bears: Bears) -> None:
    """Raise ValueError unless both are given, or neither of them."""
    if (part is None) != (bears == "context"):
        raise ValueError(
            "what bears for or against a part names the part; what is context has no "
            "part"
        )


class Crossing(_Registered):
    """The numeric level at which two arms have the same metric: reported, not judged.

    `above` is the arm that should be higher at the smallest level. `below` is the other
    arm, or one cell that is compared with `above` at every level.
    """

    name: str
    metric: str
    above: str
    below: str


class Gate(_Registered):
    """The criterion for whether an arm trained: mean of `metric` is below `below`.

    The mean is over seeds. If the task maximizes the metric, the mean must be above the
    number `below` instead. An arm passes if it trained at one level or more, because
    the design may test whether the arm fails at the other levels.
    """

    metric: str
    below: float


class DataSet(_Registered):
    """One of the data sets on which a design is repeated.

    `overrides` come after those of `common`. `seconds`, `below` and `rates` replace
    those of the design and of its gate.
    """

    overrides: str
    seconds: PositiveFloat | None = None
    below: float | None = None
    rates: Annotated[list[PositiveFloat], Field(min_length=1)] | None = None


class Design(_Registered):
    """A grid of arms x levels to train, and contrasts of its cells ("arm@level").

    `common`, `arms` and `levels` are overrides. `cells` are the cells of the grid that
    are trained (default: all). `data` are data sets by name: the design is repeated on
    each of them.

    Every seed of a cell is trained at every learning rate (`lr`) of `rates`. If the
    lowest of several rates has the best mean of `validation` at the first look, half of
    that rate is tried too. If the highest of several rates is the best, twice that rate
    is tried too. This repeats at most `extend` times. `validation` chooses the rate of
    each cell (`normbench.verdicts.grid`).

    Every cell has `seeds` seeds, or at most as many as the last of `looks`: each
    contrast is judged at every look, a number of seeds, until it is settled. `spending`
    divides alpha among the looks.
    """

    question: str
    common: str
    data: dict[str, DataSet] = {}
    arms: Annotated[dict[str, str], Field(min_length=1)]
    levels: Annotated[dict[str, str], Field(min_length=1)] = {"-": ""}
    cells: list[str] | None = None
    rates: Annotated[list[PositiveFloat], Field(min_length=1)]
    validation: str
    """The metric of the validation split by which rates are chosen."""
    extend: NonNegativeInt = 2
    seeds: Seeds = 8
    looks: LookSeeds | None = None
    spending: Spending = "pocock"
    seconds: PositiveFloat
    """Measured seconds of one whole run on one core, for the planned cost of a check.

    They include set-up, evaluation and probes."""
    gate: Gate
    contrasts: Annotated[list[Contrast], Field(min_length=1)]
    crossovers: list[Crossing] = []
    probes: list[str] = []
    """Names of the probes that measure the network at the end of each run."""

    @model_validator(mode="after")
    def _check_looks(self) -> Self:
        check_looks(
            self.looks, self.spending, seeds_given="seeds" in self.model_fields_set
        )
        return self

    @model_validator(mode="after")
    def _check_cells(self) -> Self:
        for name in (*self.arms, *self.levels):
            if "@" in name:
                raise ValueError(f"{name!r} has an @, which separates arm and level")
        for cell in self.all_cells():
            self.check_cell(cell)
        for contrast in self.contrasts:
            for cell in contrast.weights or {}:
                self._check_trained(cell, contrast.name)
            if contrast.slope is not None:
                if contrast.slope not in self.arms:
                    known = did_you_mean(contrast.slope, self.arms)
                    raise ValueError(f"slope: no arm {contrast.slope!r}; {known}")
                self._check_numeric(contrast.slope, contrast.name)
        for crossing in self.crossovers:
            for arm in (crossing.above, crossing.below):
                if "@" in arm:
                    self._check_trained(arm, crossing.name)
                elif arm not in self.arms:
                    known = did_you_mean(arm, self.arms)
                    raise ValueError(f"{crossing.name!r}: no arm {arm!r}; {known}")
            if "@" in crossing.above:
                raise ValueError(f"above: {crossing.above!r} is a cell, not an arm")
            self._check_numeric(crossing.above, crossing.name)
        return self

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        split = self.validation.partition("/")[0]
        if split not in SPLITS or not split.startswith("val"):
            raise ValueError(
                f"validation: {self.validation!r} is not of the validation split, "
                "such as val/error"
            )
        for metric in self.metrics():
            split, _, quantity = metric.partition("/")
            if not quantity or split not in (*SPLITS, *self.probes):
                known = did_you_mean(split, (*SPLITS, *self.probes))
                raise ValueError(
                    f"{metric!r} is not SPLIT/METRIC or PROBE/QUANTITY; {known}"
                )
        for name, count in Counter(c.name for c in self.by_metric()).items():
            if count > 1:
                raise ValueError(f"{count} contrasts are called {name!r}")
        return self

    def _check_trained(self, cell: str, what: str) -> None:
        self.check_cell(cell)
        if cell not in self.all_cells():
            raise ValueError(f"{cell} of {what!r} is not trained; add it to cells")

    def _check_numeric(self, arm: str, what: str) -> None:
        levels = [level_of(c) for c in self.all_cells() if arm_of(c) == arm]
        if len(levels) < 2:
            raise ValueError(f"{what!r} needs two levels of {arm} or more")
        for level in levels:
            try:
                positive = float(level) > 0
            except ValueError:
                positive = False
            if not positive:
                raise ValueError(f"{what!r}: level {level!r} is not a number above 0")

    def check_cell(self, cell: str) -> None:
        """Raise ValueError unless `cell` is "arm@level" of this design."""
        arm, level = arm_of(cell), level_of(cell)
        if arm not in self.arms:
            raise ValueError(f"{cell}: no such arm; {did_you_mean(arm, self.arms)}")
        if level not in self.levels:
            known = did_you_mean(level, self.levels)
            raise ValueError(f"{cell}: no such level; {known}")

    def by_metric(self) -> list[Contrast]:
        """Return the contrasts, one for each metric."""
        return [one for contrast in self.contrasts for one in contrast.by_metric()]

    def metrics(self) -> list[str]:
        """Return the metrics that the design needs, each once."""
        metrics = [self.validation, self.gate.metric]
        metrics += [contrast.metric for contrast in self.by_metric()]
        metrics += [crossing.metric for crossing in self.crossovers]
        return list(dict.fromkeys(metrics))

    def on(self, name: str) -> "Design":
        """Return the design on one of its data sets."""
        data = self.data[name]
        gate = self.gate
        if data.below is not None:
            gate = gate.model_copy(update={"below": data.below})
        return self.model_copy(
            update={
                "common": f"{self.common} {data.overrides}".strip(),
                "data": {name: data},
                "rates": data.rates or self.rates,
                "seconds": data.seconds or self.seconds,
                "gate": gate,
            }
        )

    def planned_looks(self) -> list[int]:
        """Return the numbers of test seeds at which contrasts are judged."""
        return self.looks or [self.seeds]

    def all_cells(self) -> list[str]:
        """Return the cells that are trained."""
        if self.cells is not None:
            return self.cells
        return [f"{arm}@{level}" for arm in self.arms for level in self.levels]

    def overrides(self, cell: str) -> str:
        """Return all overrides of a cell, without its rate and seed."""
        return " ".join(
            [self.common, self.arms[arm_of(cell)], self.levels[level_of(cell)]]
        )


def arm_of(cell: str) -> str:
    """Return the arm of "arm@level"."""
    return cell.partition("@")[0]


def level_of(cell: str) -> str:
    """Return the level of "arm@level"."""
    return cell.partition("@")[2]
