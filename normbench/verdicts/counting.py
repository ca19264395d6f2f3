"""Decide a sentence about norms in use from a count of models.

A claim registers a `CensusRule` in its yaml. `judge_census` applies the rule to a
`ModelCensus`, which has every model of the libraries. A census is no sample, so its
shares have no confidence interval. What it does not know is how the models that could
not be counted would count: a decision must hold for every possible answer.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Annotated, Literal, NamedTuple, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from normbench.errors import RequestError, did_you_mean

CensusName = Literal["default_norms", "layer_norm_axes"]
"""- "default_norms" counts the norm layers of each model by their family.
- "layer_norm_axes" counts its layer norms by the axes of their statistics.
"""
Library = Literal["torchvision", "timm"]
Task = Literal["classification", "segmentation", "detection", "video"]
"""The tasks by which torchvision sorts its models; timm does not sort its models."""

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
NONE = "none"
"""The category of a model that has no such layer."""
TIED = "tied"
"""Key for the number of models with equally many layers of several categories."""
LAYER_CATEGORIES: dict[CensusName, tuple[str, ...]] = {
    "default_norms": get_args(Family),
    "layer_norm_axes": get_args(Reading),
}
MAX_REASON = 500
"""Maximum number of characters of the reason why a model could not be counted."""

CensusDecision = Literal["confirmed", "contradicted", "not decided"]


class _Checked(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False
    )


class CensusRule(_Checked):
    """A prediction for the models of a library, or of one `task` of torchvision.

    A model counts once, in the category that most of its layers belong to. With
    `among`, only the layers of these categories count, and a model with no such layer
    is left out; "none" in `among` stands for the models that have none of the layers
    that the census counts. Without `among`, all categories and all models count.

    The rule says of the category `of` that it is the most frequent category, with more
    models than any other, or that its share of the models is greater or less than
    `share`. `reason` says why this share decides the sentence.
    """

    name: str
    census: CensusName
    library: Library
    task: Task | None = None
    of: str
    among: Annotated[list[str], Field(min_length=2)] | None = None
    says: Literal["most_frequent", "greater", "less"]
    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    reason: str

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
        if (self.share is None) != (self.says == "most_frequent"):
            raise ValueError(
                "`greater` and `less` need a share between 0 and 1, and "
                "`most_frequent` has none"
            )
        return self


Name = Annotated[str, Field(min_length=1, max_length=200)]
Reason = Annotated[str, Field(max_length=MAX_REASON)]


class Counted(_Checked):
    """One census of one zoo.

    `models`: model -> category -> number of its layers, which is empty for a model
    without such layers. `failures`: model -> why the model could not be counted.
    """

    models: dict[Name, dict[Name, PositiveInt]]
    failures: dict[Name, Reason] = {}

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        twice = self.models.keys() & self.failures.keys()
        if twice:
            raise ValueError(f"{min(twice)!r} is both counted and not counted")
        return self


class ModelCensus(_Checked):
    """The models of all installed zoos, counted by one census or by several.

    `versions`: package -> its version, None if it is not installed. `counts`: census ->
    zoo -> its models. A zoo is called as its library, or as library and task:
    "timm", "torchvision detection".
    """

    format: Literal[1] = 1
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
        for zoo, counted in self.counts[rule.census].items():
            library, _, task = zoo.partition(" ")
            if library == rule.library and rule.task in (None, task):
                # torchvision has no two models of one name.
                models |= counted.models
                failures |= counted.failures
        return Counted(models=models, failures=failures)


class CensusVerdict(_Checked):
    """The result of a `CensusRule`.

    `count` of `total` models are of the category, which is `share` (None without any
    model). `counts` has the number of models of every category, largest first, and of
    the models that are tied between several. `failures` are the models that could not
    be counted, with the reason; `total` does not include them. `lowest_share` and
    `highest_share` are the shares if these models, and the tied ones, all belonged to
    another category, or to this one. `version` is that of the library, None if it is
    not installed.
    """

    rule: CensusRule
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
    tally = tally_models(counted.models.values(), rule.among)
    not_counted = len(counted.failures)
    most = tally.total + not_counted
    lowest = Fraction(tally.certain[rule.of], most) if most else Fraction(0)
    highest = (
        Fraction(tally.possible[rule.of] + not_counted, most) if most else Fraction(1)
    )
    if rule.share is None:
        decision = _most_frequent(rule.of, tally, not_counted)
    else:
        # The decimal number of the yaml, so that 9 of 10 models are not below 0.9.
        share = Fraction(str(rule.share))
        decision = _compared(lowest, highest, share, greater=rule.says == "greater")
    counts = tally.certain + Counter({TIED: tally.tied})  # without zeros
    return CensusVerdict(
        rule=rule,
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


class Tally(NamedTuple):
    """Numbers of models of each category.

    `certain` counts a model if most of its layers are of this category, and `possible`
    also if no other category has more layers. `tied` models are in `possible` only.
    """

    certain: Counter[str]
    possible: Counter[str]
    tied: int

    @property
    def total(self) -> int:
        """The number of models, tied ones included."""
        return self.certain.total() + self.tied


def tally_models(
    models: Iterable[Mapping[str, int]], among: Iterable[str] | None = None
) -> Tally:
    """Count each model, which is given as category -> number of layers, once.

    A model without layers has the category "none". With `among`, other categories are
    left out, and so are models that have no layer of these.
    """
    certain: Counter[str] = Counter()
    possible: Counter[str] = Counter()
    tied = 0
    kept = None if among is None else set(among)
    for layers in models:
        numbers = {
            category: number
            for category, number in (layers or {NONE: 1}).items()
            if kept is None or category in kept
        }
        leaders = [c for c, n in numbers.items() if n == max(numbers.values())]
        possible.update(leaders)
        if len(leaders) == 1:
            certain.update(leaders)
        elif leaders:
            tied += 1
    return Tally(certain, possible, tied)


def _compared(
    lowest: Fraction, highest: Fraction, share: Fraction, *, greater: bool
) -> CensusDecision:
    if greater:
        confirmed, contradicted = lowest > share, highest <= share
    else:
        confirmed, contradicted = highest < share, lowest >= share
    return _decision(confirmed, contradicted)


def _most_frequent(of: str, tally: Tally, not_counted: int) -> CensusDecision:
    others = tally.possible.keys() - {of}
    rival_most = max((tally.possible[c] for c in others), default=0) + not_counted
    rival_least = max((tally.certain[c] for c in others), default=0)
    return _decision(
        confirmed=tally.certain[of] > rival_most,
        contradicted=tally.total > 0
        and tally.possible[of] + not_counted <= rival_least,
    )


def _decision(confirmed: bool, contradicted: bool) -> CensusDecision:
    if confirmed:
        return "confirmed"
    return "contradicted" if contradicted else "not decided"
