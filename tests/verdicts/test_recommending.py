"""Only decided contrasts put norms in order, at the nearest measured condition."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from verdicts_made import a_claim, a_contrast, a_design, grids, pair

from normbench.config.composition import compose
from normbench.norms import REGISTRY
from normbench.tasks.base import REGISTRY as TASK_CLASSES
from normbench.verdicts import judging
from normbench.verdicts.conditions import (
    LAYER,
    TASKS,
    USES_OTHER_SAMPLES,
    Condition,
    asked_condition,
    setting_of,
    task_defaults,
)
from normbench.verdicts.design import DataSet
from normbench.verdicts.gaps import gaps_of_pairs
from normbench.verdicts.pairs import pairs_of
from normbench.verdicts.preferences import standings
from normbench.verdicts.recommendation import Recommendation
from normbench.verdicts.recommending import recommend
from normbench.verdicts.registration import Claim
from normbench.verdicts.verdict import Verdict

CLEAR = [-0.05, *[-0.04] * 7]
"""Differences that are clear: a is better than b."""
VAGUE = [-0.05, 0.05] * 4
AT_32 = Condition(batch_size=32, samples_per_statistic=32)
edges = st.sets(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")).filter(
        lambda pair: pair[0] != pair[1]
    )
)


def closure(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return all pairs that a chain of pairs leads from and to."""
    reached = set(pairs)
    for _ in "abcdef":
        reached |= {(x, z) for x, y in reached for w, z in pairs if y == w}
    return reached


def test_no_chain_passes_through_a_contradiction() -> None:
    placed = standings("abcd", {("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")})
    assert placed["a"].better_than == ("b",)
    assert placed["d"].worse_than == ("c",)


@given(edges)
def test_a_norm_is_above_another_only_by_a_chain_without_a_cycle(
    better: set[tuple[str, str]],
) -> None:
    placed = standings("abcdef", better)
    reached = closure(better)
    agreed = closure({(x, y) for x, y in better if (y, x) not in reached})
    for x, y in permutations("abcdef", 2):
        assert (y in placed[x].better_than) == ((x, y) in agreed)
        assert (x in placed[y].worse_than) == ((x, y) in agreed)
        assert (y in placed[x].contradictory) == ({(x, y), (y, x)} <= reached)
    for norm, standing in placed.items():
        assert (standing.place == "behind") == bool(standing.worse_than)
        if standing.place == "ahead":
            assert standing.better_than and not standing.contradictory
        if standing.place == "undecided":
            assert not any(norm in pair for pair in better)


@given(edges)
def test_places_do_not_depend_on_the_order_of_the_contrasts(
    better: set[tuple[str, str]],
) -> None:
    assert standings("abcdef", sorted(better)) == standings(
        "fedcba", sorted(better, reverse=True)
    )


def test_what_is_written_down_of_norms_and_tasks_is_that_of_their_classes() -> None:
    using = {n for n in REGISTRY.names() if REGISTRY.get(n).uses_other_samples}
    assert using == USES_OTHER_SAMPLES
    for kind, task in TASKS.items():
        assert TASK_CLASSES.get(task).norm_aliases["layer"] == LAYER[kind]
        default = compose([f"task={task}"]).batch_size
        assert task_defaults(task) == (kind, default)
    assert task_defaults("resnet20") == ("images", 128)
    assert task_defaults("resnet56")[0] == "images"


def a_registered(common: str = "task=cnn batch_size=32", **changes: Any) -> Claim:
    """Return a claim that compares BatchNorm (a) with GroupNorm (b)."""
    contrast = a_contrast(**changes.pop("contrast", {}))
    return a_claim(a_design(contrast, common=common, **changes))


def checked(
    claim: Claim, differences: Mapping[str, Sequence[float]] | Sequence[float]
) -> Verdict:
    """Return a verdict with these differences of a and b, for each design."""
    designs = []
    for name, design in claim.designs().items():
        values = differences[name] if isinstance(differences, Mapping) else differences
        runs = pair(values)
        first, second = design.contrasts[0].weights or {}
        cells = {first: runs["a@-"], second: runs["b@-"]}
        designs.append(
            judging.judge_design(name, design, grids(cells), {}, 0.05, tested=True)
        )
    return judging.make_verdict(
        claim, budget="full", designs=designs, theorems=[], caveats=["a caveat"],
        records=[], registered=None, command="normbench claim check made-up",
        started="2026-01-01T00:00:00+00:00", environment={}, census=[],
    )  # fmt: skip


def recommended(
    claim: Claim, verdict: Verdict | None, asked: Condition = AT_32
) -> Recommendation:
    verdicts = {} if verdict is None else {claim.name: verdict}
    return recommend("images", asked, {claim.name: claim}, verdicts)


def places(recommendation: Recommendation) -> dict[str, str]:
    return {norm: each.place for norm, each in recommendation.standings.items()}


def test_a_decided_contrast_puts_two_norms_in_order() -> None:
    claim = a_registered()
    made = recommended(claim, checked(claim, CLEAR))
    assert places(made) == {"norm=batch": "ahead", "norm=group": "behind"}
    assert made.standings["norm=batch"].better_than == ("norm=group",)
    (pair,) = made.pairs
    assert (pair.norm, pair.other) == ("norm=batch", "norm=group")
    assert (pair.summary, pair.far, pair.variants) == ("better", False, False)
    (evidence,) = pair.evidence
    assert evidence.numbers() == "-4.12 points [-4.42, -3.83]"
    assert (evidence.relation, evidence.size) == ("better", "clear")
    turned = evidence.turned()
    assert turned.numbers() == "+4.12 points [+3.83, +4.42]"
    assert (turned.norm, turned.relation) == ("norm=group", "worse")
    assert turned.turned() == evidence
    assert made.notes == ["made-up: a caveat"]


@pytest.mark.parametrize(
    ("differences", "says", "summary"),
    [
        (VAGUE, "less", "not decided"),
        ([-0.004, *[-0.003] * 7], "less", "as good"),  # small
        ([0.001, -0.001] * 4, "less", "as good"),
        ([0.001, -0.001] * 4, "equal", "as good"),
        ([0.008, -0.014] * 4, "not_greater", "no worse"),
    ],
)
def test_without_a_decided_difference_there_is_no_order(
    differences: list[float], says: str, summary: str
) -> None:
    claim = a_registered(contrast={"says": says})
    made = recommended(claim, checked(claim, differences))
    assert set(places(made).values()) == {"undecided"}
    (pair,) = made.pairs
    assert (pair.norm, pair.summary) == ("norm=batch", summary)


def test_the_better_norm_of_a_pair_comes_first() -> None:
    claim = a_registered(contrast={"weights": {"b@-": 1.0, "a@-": -1.0}})
    (pair,) = recommended(claim, checked(claim, [-d for d in CLEAR])).pairs
    assert (pair.norm, pair.other, pair.summary) == (
        "norm=batch",
        "norm=group",
        "better",
    )
    assert pair.evidence[0].effect is not None and pair.evidence[0].effect < 0


def test_no_worse_is_better_if_a_second_test_shows_it() -> None:
    claim = a_registered(contrast={"says": "not_greater"})
    made = recommended(claim, checked(claim, CLEAR))
    assert places(made) == {"norm=batch": "ahead", "norm=group": "behind"}
    contradicted = recommended(claim, checked(claim, [-d for d in CLEAR]))
    assert places(contradicted) == {"norm=group": "ahead", "norm=batch": "behind"}


TWO = {"x": DataSet(overrides="data=mnist5k"), "y": DataSet(overrides="data=textures")}


def test_two_data_sets_that_disagree_are_contradictory() -> None:
    claim = a_registered(data=TWO)
    opposite = {"made_up-x": CLEAR, "made_up-y": [-d for d in CLEAR]}
    made = recommended(claim, checked(claim, opposite))
    assert set(places(made).values()) == {"contradictory"}
    placed = made.standings.values()
    assert all(not each.better_than and not each.worse_than for each in placed)
    assert [pair.summary for pair in made.pairs] == ["contradictory"]


def test_one_data_set_is_enough_unless_the_other_leans_the_other_way() -> None:
    claim = a_registered(data=TWO, contrast={"says": "not_greater"})
    one = {"made_up-x": CLEAR, "made_up-y": [0.001, -0.001] * 4}
    assert places(recommended(claim, checked(claim, one)))["norm=batch"] == "ahead"
    leaning = {"made_up-x": CLEAR, "made_up-y": [0.004, 0.018] * 4}
    made = recommended(claim, checked(claim, leaning))
    assert set(places(made).values()) == {"undecided"}
    assert made.pairs[0].summary == "mixed"


def test_the_nearest_condition_counts_and_a_far_one_does_not() -> None:
    levels = {"4": "batch_size=4", "16": "batch_size=16"}
    contrasts = [
        a_contrast(name=level, weights={f"a@{level}": 1.0, f"b@{level}": -1.0})
        for level in levels
    ]
    claim = a_claim(a_design(*contrasts, common="task=cnn", levels=levels))
    design = claim.designs()["made_up"]
    better, worse = pair(CLEAR), pair([-d for d in CLEAR])
    cells = {
        "a@4": better["a@-"], "b@4": better["b@-"],
        "a@16": worse["a@-"], "b@16": worse["b@-"],
    }  # fmt: skip
    judged = judging.judge_design(
        "made_up", design, grids(cells), {}, 0.05, tested=True
    )
    verdict = checked(a_registered(), CLEAR).model_copy(
        update={
            "outcomes": [judged],
            "registration": checked(claim, CLEAR).registration,
        }
    )
    for batch_size, first in ((4, "batch"), (2, "batch"), (16, "group"), (64, "group")):
        made = recommended(claim, verdict, asked_condition("images", batch_size, None))
        assert next(iter(made.standings)) == made.pairs[0].norm == f"norm={first}"
        (evidence,) = made.pairs[0].evidence
        assert evidence.condition.batch_size == min(
            (4, 16), key=lambda known: abs(known - batch_size)
        )
    between = recommended(claim, verdict, asked_condition("images", 8, None))
    assert set(places(between).values()) == {"contradictory"}
    far = recommended(claim, verdict, asked_condition("images", 128, None))
    assert set(places(far).values()) == {"undecided"}
    assert [gap.text for gap in far.gaps if gap.kind == "far"] == [
        "measured only at batch size 16: GroupNorm against BatchNorm"
    ]


def test_only_cells_that_differ_in_the_norm_are_a_pair_of_norms() -> None:
    def found(**changes: Any) -> list[tuple[str, str]]:
        claim = a_registered(**changes)
        return [(each.first.norm, each.second.norm) for each in pairs_of(claim)]

    both = [("norm=batch", "norm=group")]
    assert found() == both
    assert found(arms={"a": "norm=layer", "b": "norm=group norm.num_groups=8"}) == [
        ("norm=layer_sample", "norm=group")
    ]
    assert found(arms={"a": "norm=batch", "b": "norm=group train_size=100"}) == []
    assert found(arms={"a": "norm=batch", "b": "norm=batch init_offset=7"}) == []
    # A norm that uses no other samples may have any norm_batch.
    assert found(arms={"a": "norm=batch norm_batch=2", "b": "norm=group"}) == both
    arms = {"a": "norm=batch norm_batch=2", "b": "norm=batch_masked norm_batch=4"}
    assert found(arms=arms) == []
    assert found(contrast={"metric": "test_batch/error"}) == []
    assert found(contrast={"expected": 0.1}) == []
    assert found(contrast={"weights": {"a@-": 1.0}}) == []
    assert found(contrast={"weights": {"a@-": 1.0, "b@-": -0.5}}) == []


def test_a_cell_has_its_norm_and_its_samples_per_statistic() -> None:
    design = a_design(
        common="task=resnet20",
        arms={"a": "norm=batch accumulate=4", "b": "norm=group reparam=weight_std"},
    )
    first, second = (setting_of(design, cell) for cell in ("a@-", "b@-"))
    assert first is not None and second is not None
    assert first.condition == Condition(batch_size=128, samples_per_statistic=32)
    assert second.norm == "norm=group reparam=weight_std"
    assert second.condition.samples_per_statistic is None
    assert dict(second.rest) == {"task": "resnet20"}


def test_an_undecided_pair_is_a_gap_with_its_numbers() -> None:
    claim = a_registered()
    made = recommended(claim, checked(claim, VAGUE))
    (gap,) = (gap for gap in made.gaps if gap.kind == "not decided")
    assert gap.text.startswith("not decided at batch size 32: BatchNorm against Group")
    (evidence,) = made.pairs[0].evidence
    assert gap.text.endswith(f" ({evidence.numbers()} on {evidence.data})")
    many = made.pairs[0].model_copy(update={"evidence": [evidence] * 4})
    (short,) = gaps_of_pairs([many], [], made.names)
    assert "GroupNorm" in short.text and "(" not in short.text


def test_unchecked_changed_and_withdrawn_claims_are_gaps() -> None:
    claim = a_registered()
    unchecked = recommended(claim, None)
    assert [gap.kind for gap in unchecked.gaps] == ["no verdict"]
    assert not unchecked.standings
    verdict = checked(claim, CLEAR)
    changed = recommended(claim, verdict.model_copy(update={"registration": "0" * 16}))
    assert [gap.kind for gap in changed.gaps] == ["changed"]
    assert not changed.standings
    parts = [part.model_copy(update={"withdrawn": "Wrong."}) for part in verdict.parts]
    withdrawn = recommended(claim, verdict.model_copy(update={"parts": parts}))
    assert [gap.kind for gap in withdrawn.gaps] == ["withdrawn"]
    assert not withdrawn.standings
    for made in (unchecked, changed, withdrawn):
        assert made.experiment is None or len(made.experiment.norms) == 2


def test_the_same_norm_at_two_batch_sizes_is_shown_and_gives_no_order() -> None:
    claim = a_registered(
        arms={"a": "norm=batch norm_batch=2", "b": "norm=batch"},
    )
    verdict = checked(claim, [-d for d in CLEAR])
    small = recommended(claim, verdict, asked_condition("images", 32, 2))
    assert places(small) == {"norm=batch": "undecided"}
    (evidence,) = small.sensitivity
    assert evidence.relation == "worse"
    assert evidence.other_condition == AT_32
    assert not recommended(claim, verdict).sensitivity


def test_the_command_has_the_settings_of_the_nearest_design() -> None:
    claim = a_registered(
        common="task=cnn batch_size=32 data=textures", rates=[0.1, 0.2], seconds=3.0
    )
    asked = Condition(batch_size=16, samples_per_statistic=8)
    made = recommended(claim, checked(claim, VAGUE), asked).experiment
    assert made is not None
    assert made.command == (
        "normbench compare task=cnn data=textures batch_size=16 norm_batch=8 "
        "--arm norm=batch --arm norm=group --metric test/error --rates 0.1,0.2 "
        "--gate 0.2 --margin 0.01 --minutes 5"
    )
    assert (made.seconds, made.minutes, made.claim) == (6.0, 5, "made-up")
