"""Decide a sentence about norms in use from a count of models.

A claim registers a `CensusRule` in its yaml. `judge_census` applies the rule to a
`ModelCensus`, which has every model of the libraries. A census is no sample, so its
shares have no confidence interval. What it does not know is how the models that could
not be counted would count: a decision must hold for every possible answer.
"""

from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, Field, PositiveInt, model_validator

from normbench.errors import RequestError, did_you_mean
from normbench.verdicts.design import STRICT, Bears, check_bears
from normbench.verdicts.tallies import NONE, Tally, tally_models, tally_modules

CensusName = Literal["default_norms", "layer_norm_axes"]
"""- "default_norms" counts the norm layers of each model by their family.
- "layer_norm_axes" counts its layer norms by the axes of their statistics.
"""
Library = Literal["torchvision", "timm"]
Task = Literal["classification", "segmentation", "detection", "video"]
"""The tasks by which torchvision sorts its models; timm does not sort its models."""
Unit = Literal["model", "module"]
"""What a rule counts: each model, or each module of the package that defines models.

A library has a model for each size of an architecture. They are in one module.
"""

Family = Literal[
    "batch", "layer", "group", "instance", "rms", "evonorm", "filter_response"
]
Reading = Literal[
    "C,H,W", "C at each position", "token", "head", "vector", "not called"
]
"""The axes of the statistics of a layer norm, by the shape of its input:

- "C,H,W": all axes of the sample, such as (C, H, W).
- "C at each position": the channels of (C, H, W), (H, W, C) or (T, H, W, C).
- "token": the embedding of (L, C), or of L tokens in each of several windows.
- "head": the part of a token's embedding that one head of an attention uses.
- "vector": the sample is one vector, as after pooling, where all readings agree.
- "not called": the model does not use the layer in evaluation mode.
"""
TIED = "tied"
"""Key for the number of models, or modules, that are tied between categories."""
LAYER_CATEGORIES: dict[CensusName, tuple[str, ...]] = {
    "default_norms": get_args(Family),
    "layer_norm_axes": get_args(Reading),
}
MAX_REASON = 500
"""Maximum number of characters of the reason why a model could not be counted."""

CensusDecision = Literal["confirmed", "contradicted", "not decided"]


class _Checked(BaseModel):
    model_config = STRICT


class CensusRule(_Checked):
    """A prediction for the models of a library, or of one `task` of torchvision.

    A model counts once, in the category that most of its layers belong to. With
    `among`, only the layers of these categories count, and a model with no such layer
    is left out; "none" in `among` stands for the models that have none of the layers
    that the census counts. Without `among`, all categories and all models count. If the
    `unit` is a module, each module counts once, in the category of most of its models.

    The rule says of the category `of` that it is the most frequent category, with more
    units than any other, or that its share of the units is greater or less `than` a
    number. `reason` says why this decides the sentence. `bears` tells what the rule, if
    it is true, says of the `part` of the claim.
    """

    name: str
    census: CensusName
    library: Library
    task: Task | None = None
    unit: Unit
    of: str
    among: Annotated[list[str], Field(min_length=2)] | None = None
    says: Literal["most_frequent", "greater", "less"]
    than: Annotated[float, Field(gt=0, lt=1)] | None = None
    reason: str
    part: str | None = None
    bears: Bears = "context"

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        known = (*LAYER_CATEGORIES[self.census], NONE)
        for category in (self.of, *(self.among or ())):
            if category not in known:
                known_names = did_you_mean(category, known)
                raise ValueError(
                    f"{category!r} is no category of {self.census}; {known_names}"
                )
        if self.among is not None:
            if self.of not in self.among:
                raise ValueError(f"among lacks {self.of!r}, the category of `of`")
            if len(set(self.among)) < len(self.among):
                raise ValueError("among names a category twice; name it once")
        if self.task is not None and self.library != "torchvision":
            raise ValueError(
                f"{self.library} does not sort its models by task; leave out task"
            )
        if (self.than is None) != (self.says == "most_frequent"):
            raise ValueError(
                "`greater` and `less` need `than`, a share between 0 and 1, and "
                "`most_frequent` has none"
            )
        check_bears(self.part, self.bears)
        return self


Name = Annotated[str, Field(min_length=1, max_length=200)]
Reason = Annotated[str, Field(max_length=MAX_REASON)]


class Counted(_Checked):
    """One census of one zoo.

    `models`: model -> category -> number of its layers, which is empty for a model
    without such layers. `failures`: model -> why the model could not be counted.
    `modules`: model -> the module of the package that defines it, of all models.
    """

    models: dict[Name, dict[Name, PositiveInt]]
    failures: dict[Name, Reason] = {}
    modules: dict[Name, Name]

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        twice = self.models.keys() & self.failures.keys()
        if twice:
            raise ValueError(f"{min(twice)!r} is both counted and not counted")
        wrong = self.modules.keys() ^ (self.models.keys() | self.failures.keys())
        if wrong:
            raise ValueError(f"modules and models do not both have {min(wrong)!r}")
        return self

    def tally(self, unit: Unit, among: Iterable[str] | None = None) -> Tally:
        """Return the numbers of models, or of modules, of each category."""
        if unit == "module":
            return tally_modules(self.models, self.failures, self.modules, among)
        return tally_models(self.models.values(), among, len(self.failures))


class ModelCensus(_Checked):
    """The models of all installed zoos, counted by one census or by several.

    `versions`: package -> its version, None if it is not installed. `counts`: census ->
    zoo -> its models. A zoo is called as its library, or as library and task:
    "timm", "torchvision detection".
    """

    format: Literal[2] = 2
    versions: dict[Name, Name | None]
    counts: dict[CensusName, dict[Name, Counted]]

    @model_validator(mode="after")
    def _check_categories(self) -> Self:
        for census, zoos in self.counts.items():
            for zoo, counted in zoos.items():
                for model, layers in counted.models.items():
                    unknown = layers.keys() - set(LAYER_CATEGORIES[census])
                    if unknown:
                        raise ValueError(
                            f"{zoo}, {model}: {min(unknown)!r} is no category of "
                            f"{census}"
                        )
        return self

    def selected(self, rule: CensusRule) -> Counted:
        """Return the models that `rule` is about, of all its zoos together.

        If the library is not installed, there are none. Raises RequestError if the
        models were not counted by the census of the rule.
        """
        if rule.census not in self.counts:
            raise RequestError(
                f"the models were not counted by the census {rule.census}, which "
                f"{rule.name!r} needs; --budget full counts them"
            )
        models: dict[str, dict[str, int]] = {}
        failures: dict[str, str] = {}
        modules: dict[str, str] = {}
        for zoo, counted in self.counts[rule.census].items():
            library, _, task = zoo.partition(" ")
            if library == rule.library and rule.task in (None, task):
                # torchvision has no two models of one name.
                models |= counted.models
                failures |= counted.failures
                modules |= counted.modules
        return Counted(models=models, failures=failures, modules=modules)


class CensusVerdict(CensusRule):
    """A `CensusRule` and its result; "units" are models or modules.

    `count` of `total` units are of the category, which is `share` (None without any).
    `counts` has the number of units of every category, largest first, and of those that
    are tied between several. `failures` are the models that could not be counted, with
    the reason; `total` does not include them. `lowest_share` and `highest_share` are
    the shares if these, and the tied ones, all belonged to another category, or to this
    one. `version` is that of the library, None if it is not installed.
    """

    version: str | None
    decision: CensusDecision
    count: int
    total: int
    share: float | None
    lowest_share: float
    highest_share: float
    counts: dict[str, int]
    failures: dict[str, str]


def judge_census(rule: CensusRule, census: ModelCensus) -> CensusVerdict:
    """Return the decision of `rule` and the numbers behind it.

    The decision is "confirmed" if the prediction is true however the tied models and
    those that could not be counted would count, "contradicted" if it is false in every
    case, and otherwise "not decided". Models that are tied between other categories
    than that of the rule can leave a false `most_frequent` not decided. If the library
    has no such model or is not installed, the decision is "not decided". Raises
    RequestError if `census` lacks the census of the rule.
    """
    counted = census.selected(rule)
    tally = counted.tally(rule.unit, rule.among)
    most = tally.total + tally.not_counted
    lowest = Fraction(tally.certain[rule.of], most) if most else Fraction(0)
    highest = (
        Fraction(tally.possible[rule.of] + tally.not_counted, most)
        if most
        else Fraction(1)
    )
    if rule.than is None:
        decision = _most_frequent(rule.of, tally)
    else:
        # The decimal number of the yaml, so that 9 of 10 models are not below 0.9.
        limit = Fraction(str(rule.than))
        decision = _compared(lowest, highest, limit, greater=rule.says == "greater")
    counts = tally.certain + Counter({TIED: tally.tied})  # without zeros
    return CensusVerdict(
        **rule.model_dump(),
        version=census.versions.get(rule.library),
        decision=decision,
        count=tally.certain[rule.of],
        total=tally.total,
        share=tally.certain[rule.of] / tally.total if tally.total else None,
        lowest_share=float(lowest),
        highest_share=float(highest),
        counts=dict(counts.most_common()),
        failures=counted.failures,
    )


def _compared(
    lowest: Fraction, highest: Fraction, limit: Fraction, *, greater: bool
) -> CensusDecision:
    if greater:
        confirmed, contradicted = lowest > limit, highest <= limit
    else:
        confirmed, contradicted = highest < limit, lowest >= limit
    return _decision(confirmed, contradicted)


def _most_frequent(of: str, tally: Tally) -> CensusDecision:
    others = tally.possible.keys() - {of}
    rival_least = max((tally.certain[c] for c in others), default=0)
    rival_most = max((tally.possible[c] for c in others), default=0)
    return _decision(
        confirmed=tally.certain[of] > rival_most + tally.not_counted,
        contradicted=tally.total > 0
        and tally.possible[of] + tally.not_counted <= rival_least,
    )


def _decision(confirmed: bool, contradicted: bool) -> CensusDecision:
    if confirmed:
        return "confirmed"
    return "contradicted" if contradicted else "not decided"
