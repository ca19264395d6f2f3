"""A rule decides from counted models only what every uncounted model leaves true."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
from census_made import MODELS, a_census, a_counted, a_rule
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
    frequent = a_rule(says="most_frequent", than=None)
    assert judge_census(frequent, a_census(models)).decision == "confirmed"
    assert judge_census(frequent, a_census(models, ("d",))).decision == "not decided"
    rare = a_rule(of="layer", says="less", than=0.3)
    assert judge_census(rare, a_census(models, ("d",))).decision == "not decided"


def test_a_share_is_compared_with_the_decimal_number_of_the_yaml() -> None:
    # In binary, 0.57 * 100 is 56.99999999999999.
    models = {f"m{i}": {"batch": 1} if i < 57 else {"layer": 1} for i in range(100)}
    for says in ("greater", "less"):
        verdict = judge_census(a_rule(says=says, than=0.57), a_census(models))
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
    frequent = a_rule(library="timm", says="most_frequent", than=None)
    assert judge_census(frequent, a_census(MODELS)).decision == "not decided"


def test_a_task_selects_one_zoo_and_a_library_all_of_its_zoos() -> None:
    counted = {
        "torchvision classification": a_counted({"a": {"batch": 1}}),
        "torchvision detection": a_counted({"b": {"batch": 1}, "c": {"layer": 1}}),
        "timm": a_counted({"a": {"layer": 1}}),
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
        ({"than": None}, "need `than`, a share between 0 and 1"),
        ({"than": 1.0}, "less than 1"),
        ({"says": "majority"}, "'most_frequent', 'greater' or 'less'"),
        ({"extra": 1}, "Extra inputs are not permitted"),
        ({"unit": "architecture"}, "'model' or 'module'"),
        ({"part": "default"}, "context has no part"),
        ({"bears": "for"}, "names the part"),
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


def test_a_rule_says_its_unit_and_has_no_default_for_it() -> None:
    plain = a_rule().model_dump(exclude={"unit"})
    with pytest.raises(ValidationError, match="unit"):
        CensusRule(**plain)


def test_a_module_counts_once_in_the_category_of_most_of_its_models() -> None:
    batch, layer = {"batch": 1}, {"layer": 1}
    models = {
        **{f"vit{i}": layer for i in range(5)},
        "resnet1": batch,
        "resnet2": batch,
        "resnet3": {"batch": 1, "layer": 1},
        "vgg": {},
        "mixed1": batch,
        "mixed2": layer,
    }
    modules = {name: name.rstrip("0123456789") for name in models}
    census = a_census(models, modules=modules)
    assert judge_census(a_rule(), census).counts == {
        "layer": 6, "batch": 3, "none": 1, TIED: 1,
    }  # fmt: skip
    verdict = judge_census(a_rule(unit="module", than=0.2), census)
    assert verdict.counts == {"layer": 1, "batch": 1, "none": 1, TIED: 1}
    assert (verdict.count, verdict.total, verdict.share) == (1, 4, 0.25)
    assert (verdict.lowest_share, verdict.highest_share) == (0.25, 0.5)
    assert verdict.decision == "confirmed"
    # The module of "vgg" has no such layer and is left out.
    among = a_rule(unit="module", among=["batch", "layer"])
    assert judge_census(among, census).total == 3


def test_models_that_were_not_counted_can_change_their_module_only() -> None:
    models = {"a1": {"batch": 1}, "a2": {"batch": 1}, "b1": {"batch": 1}}
    modules = {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "b2": "b", "c": "c"}
    rule = a_rule(unit="module", than=0.9)
    one = judge_census(rule, a_census(models, ("a3",), modules))
    assert (one.count, one.total, one.decision) == (2, 2, "confirmed")
    two = judge_census(rule, a_census(models, ("a3", "b2"), modules))
    assert (two.count, two.total) == (1, 1)  # b may be another one
    assert (two.lowest_share, two.highest_share) == (0.5, 1.0)
    three = judge_census(rule, a_census(models, ("a3", "c"), modules))
    assert (three.total, three.lowest_share) == (2, 2 / 3)


def test_every_model_has_a_module() -> None:
    with pytest.raises(ValidationError, match="do not both have 'a'"):
        Counted(models={"a": {}}, modules={})
    with pytest.raises(ValidationError, match="do not both have 'b'"):
        Counted(models={"a": {}}, modules={"a": "x", "b": "x"})


FAMILIES = ["batch", "layer", "group"]
KEPT = [*FAMILIES[:2], "none"]
layers = st.dictionaries(st.sampled_from(FAMILIES), st.integers(1, 3), max_size=3)
common = {
    "unit": st.sampled_from(["model", "module"]),
    "of": st.sampled_from(["batch", "none"]),
    "among": st.sampled_from([None, KEPT]),
}
rules = st.builds(
    a_rule,
    **common,
    says=st.sampled_from(["greater", "less"]),
    than=st.sampled_from([0.1, 1 / 3, 0.5, 0.75]),
) | st.builds(a_rule, **common, says=st.just("most_frequent"), than=st.none())
modules_of = st.lists(st.sampled_from("xyz"), min_size=6, max_size=6)


def leaders(model: dict[str, int], among: list[str] | None) -> list[str | None]:
    """Return the possible categories of a model; None if it is left out."""
    numbers = {c: n for c, n in (model or {"none": 1}).items() if c in (among or {c})}
    return [c for c, n in numbers.items() if n == max(numbers.values())] or [None]


def by_module(
    categories: Sequence[str | None], modules: Sequence[str]
) -> Iterator[list[str | None]]:
    """Yield the possible categories of all modules, for categories of the models."""
    counts: dict[str, Counter[str]] = {}
    for category, module in zip(categories, modules, strict=True):
        if category is not None:
            counts.setdefault(module, Counter())[category] += 1
    for combination in product(*(leaders(dict(c), None) for c in counts.values())):
        yield list(combination)


def truths(
    rule: CensusRule,
    models: Sequence[dict[str, int]],
    not_counted: int,
    modules: Sequence[str],
) -> Iterator[bool]:
    """Yield whether the prediction is true, for every possible category of a model."""
    anything = [*rule.among, None] if rule.among else [*FAMILIES, "none"]
    choices = [leaders(model, rule.among) for model in models]
    for by_model in product(*choices, *[anything] * not_counted):
        units: Iterable[Sequence[str | None]] = [by_model]
        if rule.unit == "module":
            units = by_module(by_model, modules)
        for categories in units:
            counts = Counter(c for c in categories if c is not None)
            if not counts:
                continue  # without models the prediction has no meaning
            if rule.than is None:
                others = [n for c, n in counts.items() if c != rule.of]
                yield counts[rule.of] > max(others, default=0)
            else:
                share = Fraction(counts[rule.of], counts.total())
                limit = Fraction(str(rule.than))
                yield share > limit if rule.says == "greater" else share < limit


@given(rules, st.lists(layers, max_size=4), st.integers(0, 2), modules_of)
def test_a_decision_holds_however_the_other_models_would_count(
    rule: CensusRule,
    models: list[dict[str, int]],
    not_counted: int,
    modules: list[str],
) -> None:
    names = [f"m{i}" for i in range(len(models))]
    failures = tuple(f"f{i}" for i in range(not_counted))
    modules = modules[: len(models) + not_counted]
    census = a_census(
        dict(zip(names, models, strict=True)),
        failures,
        dict(zip([*names, *failures], modules, strict=True)),
    )
    verdict = judge_census(rule, census)
    possible = set(truths(rule, models, not_counted, modules))
    tied = any(len(leaders(model, rule.among)) > 1 for model in models)
    if verdict.decision == "confirmed":
        assert possible == {True}
    elif verdict.decision == "contradicted":
        assert possible == {False}
    elif TIED not in verdict.counts and not tied:  # the rule is exact without ties
        assert possible in ({True, False}, set())
    assert sum(verdict.counts.values()) == verdict.total
    if verdict.share is not None:
        assert verdict.lowest_share <= verdict.share <= verdict.highest_share


@given(st.lists(layers, max_size=5), st.integers(0, 2), rules)
def test_modules_of_one_model_each_are_models(
    models: list[dict[str, int]], not_counted: int, rule: CensusRule
) -> None:
    named = {f"m{i}": model for i, model in enumerate(models)}
    census = a_census(named, tuple(f"f{i}" for i in range(not_counted)))
    first, second = (
        judge_census(rule.model_copy(update={"unit": unit}), census)
        for unit in ("model", "module")
    )
    assert first == second.model_copy(update={"unit": "model"})


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
