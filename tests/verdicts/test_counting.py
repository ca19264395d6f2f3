"""A rule decides from counted models only what every uncounted model leaves true."""

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from normbench.errors import RequestError
from normbench.verdicts.counting import (
    LAYER_CATEGORIES,
    TIED,
    CensusRule,
    Counted,
    ModelCensus,
    judge_census,
)

BASE: dict[str, Any] = {
    "name": "BatchNorm is the default",
    "census": "default_norms",
    "library": "torchvision",
    "of": "batch",
    "says": "greater",
    "share": 0.5,
    "reason": "a default is what most models have",
}
MODELS = {"resnet": {"batch": 9}, "vit": {"layer": 4}, "vgg": {}}
IMAGES = "torchvision classification"


def a_rule(**changes: Any) -> CensusRule:
    return CensusRule(**BASE | changes)


def a_census(
    models: dict[str, dict[str, int]], failures: tuple[str, ...] = (), zoo: str = IMAGES
) -> ModelCensus:
    counted = Counted(models=models, failures=dict.fromkeys(failures, "no kernel"))
    versions = {"torchvision": "0.29.1", "timm": None}
    return ModelCensus(versions=versions, counts={"default_norms": {zoo: counted}})


def test_a_share_is_that_of_all_models_or_of_those_with_a_layer_among_the_given() -> (
    None
):
    models = {**MODELS, "nets": {"batch": 1, "layer": 2}}
    verdict = judge_census(a_rule(), a_census(models))
    assert (verdict.count, verdict.total, verdict.share) == (1, 4, 0.25)
    assert verdict.counts == {"layer": 2, "batch": 1, "none": 1}
    assert verdict.decision == "contradicted" and verdict.version == "0.29.1"
    # Without its layer norms, "nets" counts for "batch"; "vgg" and "vit" are left out.
    among = a_rule(among=["batch", "group"])
    verdict = judge_census(among, a_census(models))
    assert (verdict.count, verdict.total) == (2, 2)
    assert verdict.decision == "confirmed"
    with_none = judge_census(a_rule(among=["batch", "none"]), a_census(models))
    assert (with_none.count, with_none.total) == (2, 3)


def test_models_that_were_not_counted_leave_a_rule_undecided() -> None:
    models = {"a": {"batch": 1}, "b": {"batch": 1}, "c": {"layer": 1}}
    assert judge_census(a_rule(), a_census(models)).decision == "confirmed"
    verdict = judge_census(a_rule(), a_census(models, ("d",)))
    assert verdict.decision == "not decided"  # 2 of 4 are no majority
    assert verdict.failures == {"d": "no kernel"}
    assert verdict.share == 2 / 3
    assert (verdict.lowest_share, verdict.highest_share) == (0.5, 0.75)
    frequent = a_rule(says="most_frequent", share=None)
    assert judge_census(frequent, a_census(models)).decision == "confirmed"
    assert judge_census(frequent, a_census(models, ("d",))).decision == "not decided"
    rare = a_rule(of="layer", says="less", share=0.3)
    assert judge_census(rare, a_census(models, ("d",))).decision == "not decided"


def test_a_share_is_compared_with_the_decimal_number_of_the_yaml() -> None:
    # In binary, 0.57 * 100 is 56.99999999999999.
    models = {f"m{i}": {"batch": 1} if i < 57 else {"layer": 1} for i in range(100)}
    for says in ("greater", "less"):
        verdict = judge_census(a_rule(says=says, share=0.57), a_census(models))
        assert verdict.decision == "contradicted"


def test_a_tied_model_counts_in_the_total_and_in_no_category() -> None:
    tied = {"a": {"batch": 2, "layer": 2}, "b": {"batch": 1}}
    verdict = judge_census(a_rule(), a_census(tied))
    assert verdict.counts == {"batch": 1, TIED: 1} and verdict.total == 2
    assert verdict.decision == "not decided"
    assert (verdict.lowest_share, verdict.highest_share) == (0.5, 1.0)


def test_a_rule_without_models_is_not_decided() -> None:
    verdict = judge_census(a_rule(library="timm"), a_census(MODELS))
    assert verdict.decision == "not decided" and verdict.version is None
    assert verdict.share is None and verdict.total == 0
    frequent = a_rule(library="timm", says="most_frequent", share=None)
    assert judge_census(frequent, a_census(MODELS)).decision == "not decided"


def test_a_task_selects_one_zoo_and_a_library_all_of_its_zoos() -> None:
    counted = {
        "torchvision classification": Counted(models={"a": {"batch": 1}}),
        "torchvision detection": Counted(models={"b": {"batch": 1}, "c": {"layer": 1}}),
        "timm": Counted(models={"a": {"layer": 1}}),
    }
    census = ModelCensus(
        versions={"torchvision": "1", "timm": "2"}, counts={"default_norms": counted}
    )
    totals = [
        judge_census(a_rule(**keys), census).total
        for keys in (
            {},
            {"task": "classification"},
            {"task": "detection"},
            {"library": "timm"},
        )
    ]
    assert totals == [3, 1, 2, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"of": "BatchNorm"}, "'BatchNorm' is no category of default_norms; .*'batch'"),
        ({"census": "layer_norm_axes"}, "'batch' is no category of layer_norm_axes"),
        ({"among": ["batch", "layr"]}, "'layr' is no category .*'layer'"),
        ({"among": ["layer", "none"]}, "among lacks 'batch'"),
        ({"among": ["batch", "none", "none"]}, "names a category twice"),
        ({"among": ["batch"]}, "at least 2 items"),
        ({"library": "timm", "task": "video"}, "leave out task"),
        ({"says": "most_frequent"}, "`most_frequent` has none"),
        ({"share": None}, "need a share between 0 and 1"),
        ({"share": 1.0}, "less than 1"),
        ({"says": "majority"}, "'most_frequent', 'greater' or 'less'"),
        ({"extra": 1}, "Extra inputs are not permitted"),
    ],
)
def test_a_wrong_rule_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        a_rule(**changes)


def test_a_census_that_lacks_what_a_rule_needs_is_refused() -> None:
    rule = a_rule(census="layer_norm_axes", of="token")
    with pytest.raises(RequestError, match="not counted by the census layer_norm_axes"):
        judge_census(rule, a_census(MODELS))
    with pytest.raises(ValidationError, match=r"vit: 'token' is no category"):
        a_census({"vit": {"token": 2}})
    with pytest.raises(ValidationError, match="'vit' is both counted and not counted"):
        a_census(MODELS, ("vit",))


FAMILIES = ["batch", "layer", "group"]
KEPT = [*FAMILIES[:2], "none"]
layers = st.dictionaries(st.sampled_from(FAMILIES), st.integers(1, 3), max_size=3)
rules = st.builds(
    a_rule,
    of=st.sampled_from(["batch", "none"]),
    among=st.sampled_from([None, KEPT]),
    says=st.sampled_from(["greater", "less"]),
    share=st.sampled_from([0.1, 1 / 3, 0.5, 0.75]),
) | st.builds(
    a_rule,
    of=st.sampled_from(["batch", "none"]),
    among=st.sampled_from([None, KEPT]),
    says=st.just("most_frequent"),
    share=st.none(),
)


def leaders(model: dict[str, int], among: list[str] | None) -> list[str | None]:
    """Return the possible categories of a model; None if it is left out."""
    numbers = {c: n for c, n in (model or {"none": 1}).items() if c in (among or {c})}
    return [c for c, n in numbers.items() if n == max(numbers.values())] or [None]


def truths(
    rule: CensusRule, models: list[dict[str, int]], not_counted: int
) -> Iterator[bool]:
    """Yield whether the prediction is true, for every possible category of a model."""
    anything = [*rule.among, None] if rule.among else [*FAMILIES, "none"]
    choices = [leaders(model, rule.among) for model in models]
    for categories in product(*choices, *[anything] * not_counted):
        counts = Counter(c for c in categories if c is not None)
        if not counts:
            continue  # without models the prediction has no meaning
        if rule.share is None:
            others = [n for c, n in counts.items() if c != rule.of]
            yield counts[rule.of] > max(others, default=0)
        else:
            share = Fraction(counts[rule.of], counts.total())
            limit = Fraction(str(rule.share))
            yield share > limit if rule.says == "greater" else share < limit


@given(rules, st.lists(layers, max_size=4), st.integers(0, 2))
def test_a_decision_holds_however_the_other_models_would_count(
    rule: CensusRule, models: list[dict[str, int]], not_counted: int
) -> None:
    names = [f"m{i}" for i in range(len(models))]
    failures = tuple(f"f{i}" for i in range(not_counted))
    census = a_census(dict(zip(names, models, strict=True)), failures)
    verdict = judge_census(rule, census)
    possible = set(truths(rule, models, not_counted))
    if verdict.decision == "confirmed":
        assert possible == {True}
    elif verdict.decision == "contradicted":
        assert possible == {False}
    elif TIED not in verdict.counts:  # the rule is exact without tied models
        assert possible in ({True, False}, set())
    assert sum(verdict.counts.values()) == verdict.total
    if verdict.share is not None:
        assert verdict.lowest_share <= verdict.share <= verdict.highest_share


@given(rules, st.lists(layers, max_size=6), st.randoms())
def test_the_order_of_models_and_layers_does_not_matter(
    rule: CensusRule, models: list[dict[str, int]], random: Any
) -> None:
    names = [f"m{i}" for i in range(len(models))]
    shuffled = [dict(random.sample(list(m.items()), len(m))) for m in models]
    pairs = list(zip(names, shuffled, strict=True))
    random.shuffle(pairs)
    first = judge_census(rule, a_census(dict(zip(names, models, strict=True))))
    second = judge_census(rule, a_census(dict(pairs)))
    # Categories with equally many models may change places in `counts`.
    assert first == second and first.decision == second.decision


def test_no_category_is_also_the_key_of_another_number() -> None:
    for categories in LAYER_CATEGORIES.values():
        assert not {TIED, "none"} & set(categories)
