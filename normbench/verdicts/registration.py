"""The schema of a claim's yaml, which is registered before the runs.

A claim is one sentence that people repeat. It has three parts with separate decisions:
theorems (true by algebra, checked on tensors), mechanisms (measured quantities) and
outcomes (accuracy or loss after training). Mechanisms and outcomes are tested by
contrasts. A contrast is a weighted sum of one metric over cells. It has one value per
seed. The claim predicts that the contrast is greater than 0, less than 0, about 0, or
not much greater than 0.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from normbench.config.choices import choices
from normbench.config.evaluation import AtEnd
from normbench.errors import RequestError, Unreadable, did_you_mean
from normbench.registry import explain
from normbench.system.untrusted import yaml_value
from normbench.verdicts.seeds import LookSeeds, Seeds, Spending, check_looks

BudgetName = Literal["smoke", "quick", "full"]
BUDGETS: tuple[BudgetName, ...] = get_args(BudgetName)
Says = Literal["greater", "less", "equal", "not_greater"]
"""Prediction for a contrast: > 0, < 0, within +-margin, or below the margin."""

SPLITS: tuple[str, ...] = ("test", *get_args(AtEnd))
"""Prefixes of a metric before its "/". The name of a probe is a prefix too."""


class _Registered(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False
    )


class Theorem(_Registered):
    """The name of a check in `normbench.claims.theorems`, and its tolerance."""

    check: str
    tolerance: Annotated[float, Field(ge=0)]


class Contrast(_Registered):
    """A weighted sum of one metric over cells for each seed, and its prediction.

    A contrast has either `weights` (cell -> weight) or `slope`, the name of an arm. A
    contrast with `slope` is the least-squares slope of the metric of the arm on log2 of
    the numeric levels. If `log2` is true, the contrast uses log2 of the metric.
    `expected` is the number that a mechanism predicts. It is subtracted from the sum or
    the slope.
    """

    name: str
    metric: str
    weights: Annotated[dict[str, float], Field(min_length=1)] | None = None
    slope: str | None = None
    log2: bool = False
    expected: float = 0.0
    says: Says
    margin: PositiveFloat
    reason: str
    primary: bool = False
    exploratory: bool = False

    @model_validator(mode="after")
    def _check_one_kind(self) -> Self:
        if (self.weights is None) == (self.slope is None):
            raise ValueError("a contrast has either weights or a slope")
        if self.weights is not None and not all(self.weights.values()):
            raise ValueError("a weight is 0; leave the cell out")
        return self


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


class Design(_Registered):
    """A grid of arms x levels to train, and contrasts of its cells ("arm@level").

    `common`, `arms` and `levels` are overrides. `cells` are the cells of the grid that
    are trained (default: all). `rates` are the learning rates (`lr`) that are tried for
    each cell on `tuning_seeds` seeds. If the lowest of several rates is the best, half
    of that rate is tried too. If the highest of several rates is the best, twice that
    rate is tried too. This repeats at most `extend` times.

    Every cell has `seeds` test seeds, or at most as many as the last of `looks`: each
    contrast is judged at every look, a number of test seeds, until it is settled.
    `spending` divides alpha among the looks.
    """

    question: str
    common: str
    arms: Annotated[dict[str, str], Field(min_length=1)]
    levels: Annotated[dict[str, str], Field(min_length=1)] = {"-": ""}
    cells: list[str] | None = None
    rates: Annotated[list[PositiveFloat], Field(min_length=1)]
    validation: str
    """The metric of the validation split on which rates are chosen."""
    tuning_seeds: PositiveInt = 2
    extend: NonNegativeInt = 2
    seeds: Seeds = 8
    looks: LookSeeds | None = None
    spending: Spending = "pocock"
    seconds: PositiveFloat
    """Measured seconds of one run on one core, for the planned cost of a check."""
    gate: Gate
    contrasts: Annotated[list[Contrast], Field(min_length=1)]
    crossovers: list[Crossing] = []
    probes: list[str] = []
    """Names of the probes that measure the network at the end of each run, except the
    runs that choose the learning rate."""

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
        metrics = [self.validation, self.gate.metric]
        metrics += [contrast.metric for contrast in self.contrasts]
        metrics += [crossing.metric for crossing in self.crossovers]
        for metric in metrics:
            split, _, quantity = metric.partition("/")
            if not quantity or split not in (*SPLITS, *self.probes):
                known = did_you_mean(split, (*SPLITS, *self.probes))
                raise ValueError(
                    f"{metric!r} is not SPLIT/METRIC or PROBE/QUANTITY; {known}"
                )
        for name, count in Counter(c.name for c in self.contrasts).items():
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


class SmallerBudget(_Registered):
    """The cells of a design that the smaller budgets run, with their contrasts.

    `overrides` come after the overrides of every cell and replace the values of equal
    keys.
    """

    cells: list[str] | None = None
    overrides: str = ""


class Claim(_Registered):
    """One sentence, its source, and the tests that decide it."""

    name: str
    statement: str
    source: str
    published: list[str] = []
    """What other papers found about the statement; printed beside the verdict."""
    confounds: Annotated[list[str], Field(min_length=1)]
    theorems: list[Theorem] = []
    mechanisms: dict[str, Design] = {}
    census: bool = False
    """Whether a check counts the norms of the models of torchvision and timm."""
    outcomes: dict[str, Design] = {}
    quick: dict[str, SmallerBudget] = {}
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        shared = self.mechanisms.keys() & self.outcomes.keys()
        if shared:
            raise ValueError(f"{', '.join(shared)} names a mechanism and an outcome")
        for name, smaller in self.quick.items():
            if name not in self.designs():
                known = did_you_mean(name, self.designs())
                raise ValueError(f"quick: there is no {name!r}; {known}")
            trained = self.designs()[name].all_cells()
            for cell in smaller.cells or []:
                if cell not in trained:
                    known = did_you_mean(cell, trained)
                    raise ValueError(f"quick.{name}: {cell} is not trained; {known}")
        return self

    def designs(self) -> dict[str, Design]:
        """Return mechanisms and outcomes by name."""
        return {**self.mechanisms, **self.outcomes}


def arm_of(cell: str) -> str:
    """Return the arm of "arm@level"."""
    return cell.partition("@")[0]


def level_of(cell: str) -> str:
    """Return the level of "arm@level"."""
    return cell.partition("@")[2]


def read_claim(name: str, config_dir: Path | None = None) -> Claim:
    """Return the claim `name`, from the package or from `config_dir`.

    Raises RequestError with the wrong key and its value.
    """
    known = choices("claim", config_dir)
    if name not in known:
        raise RequestError(f"claim {name!r} is unknown; {did_you_mean(name, known)}")
    try:
        claim = Claim(**yaml_value(known[name]))
    except (OSError, Unreadable, TypeError) as error:
        why = error.why if isinstance(error, Unreadable) else str(error)
        raise RequestError(f"{known[name]} cannot be read: {why}") from None
    except ValidationError as error:
        raise RequestError(f"{known[name]}:\n{explain(error)}") from None
    if claim.name != name:
        raise RequestError(f"{known[name]} is called {claim.name!r}; name it {name!r}")
    return claim


def registration_hash(claim: Claim) -> str:
    """Return a hash of the claim, 16 hex digits; any change of a value changes it.

    The hash leaves out every value that equals its default. So the hash of an older
    claim does not change if the schema gets a new key later.
    """
    plain = claim.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
