"""Who can still be the best arm of a race, look by look."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np
import pytest

from normbench import stats
from normbench.verdicts.placing import Race, ranked, seeds_to_settle
from normbench.verdicts.spending import Looks
from normbench.verdicts.standings import Rules, Runs, Standings, judge

LOOKS = (6, 8, 12, 16)
NOISE = np.random.default_rng(3).normal(size=(8, 16))


def rules(*arms: str, **changes: Any) -> Rules:
    fields: dict[str, Any] = {
        "arms": arms or ("a", "b", "c"),
        "looks": LOOKS,
        "spending": "pocock",
        "alpha": 0.05,
        "margin": 0.1,
        "gate": 0.0,
    }
    return Rules(**(fields | changes))


def runs(
    means: Mapping[str, float], seeds: int = 16, sd: float = 0.1
) -> dict[str, Runs]:
    """Return arms with the given mean costs; gate costs are -1."""
    return {
        arm: Runs((center + sd * NOISE[i][:seeds]).tolist(), [-1.0] * seeds)
        for i, (arm, center) in enumerate(means.items())
    }


def places(
    rules: Rules, runs: Mapping[str, Runs], standings: Standings, sign: int = 1
) -> dict[str, str]:
    race = Race(rules, dict.fromkeys(rules.arms, 0.1), runs, sign)
    return {arm.arm: arm.place for arm in ranked(race, standings)}


def test_an_arm_that_is_worse_stops_and_the_others_go_on() -> None:
    made = runs({"a": 0.0, "b": 0.05, "c": 3.0})
    first = judge(rules(), {arm: cut(run, 6) for arm, run in made.items()})
    assert (first.seen, first.running, first.leader) == ((6,), ("a", "b"), "a")
    assert first.worse["c"] in {"a", "b"}
    assert (first.open, first.next_look) == (("b",), 8)
    # c needs no further runs.
    made["c"] = cut(made["c"], 6)
    second = judge(rules(), {arm: cut(run, 8) for arm, run in made.items()})
    assert second.seen == (6, 8)
    assert second.differences["a", "c"] == first.differences["a", "c"]
    assert second.seeds == {"a": 8, "b": 8, "c": 6}


def cut(runs: Runs, seeds: int) -> Runs:
    return Runs(runs.costs[:seeds], runs.gate[:seeds])


def test_the_race_ends_when_the_best_arm_is_told_from_all_others() -> None:
    made = runs({"a": 2.0, "b": 0.0, "c": 3.0})
    standings = judge(rules(), made)
    assert standings.seen == (6,)
    assert (standings.leader, standings.running) == ("b", ("b",))
    assert standings.next_look is None and not standings.open
    # Runs beyond the look that settled the race change nothing.
    short = {arm: cut(run, 6) for arm, run in made.items()}
    assert judge(rules(), short) == standings


def test_arms_within_the_margin_are_equal_and_settle_the_race() -> None:
    made = runs({"a": 0.0, "b": 0.001, "c": 3.0}, sd=0.01)
    standings = judge(rules(), made)
    assert standings.next_look is None
    first, second = sorted("ab", key=lambda arm: mean(costs_of(made[arm], 6)))
    assert places(rules(), made, standings) == {
        first: "best",
        second: "equal",
        "c": "worse",
    }
    # The same difference is open if the margin is smaller.
    strict = rules(margin=1e-6)
    assert len(judge(strict, made).open) == 1


def test_a_look_needs_all_running_arms() -> None:
    made = runs({"a": 0.0, "b": 0.05, "c": 0.1}, sd=1.0)
    assert judge(rules(), made).seen == LOOKS
    made["c"] = cut(made["c"], 11)
    standings = judge(rules(), made)
    assert (standings.seen, standings.next_look) == ((6, 8), 12)
    assert judge(rules(), {a: cut(r, 5) for a, r in made.items()}).seen == ()


def test_an_arm_that_did_not_train_or_lacks_a_metric_is_left_out() -> None:
    made = runs({"a": 0.0, "b": 0.05, "c": 0.1, "d": 0.1}, sd=1.0)
    costs = list(made["b"].costs)
    costs[3] = None
    made["b"] = Runs(costs.copy(), made["b"].gate)
    made["c"] = Runs(made["c"].costs, [0.1] * 16)
    standings = judge(rules("a", "b", "c", "d"), made)
    assert standings.out == {
        "b": "no finite metric on test seed 3",
        "c": "did not train, by its gate, on 6 test seeds",
    }
    assert standings.running == ("a", "d")
    # A lack on a later seed counts from the look that uses the seed.
    costs[3], costs[9] = 0.0, None
    standings = judge(rules("a", "b", "c", "d"), made | {"b": Runs(costs, [-1.0] * 16)})
    assert standings.out["b"] == "no finite metric on test seed 9"
    assert ("a", "b") in standings.differences
    nobody = judge(rules("c", "b"), made)
    assert (nobody.leader, nobody.next_look) == (None, None)
    assert places(rules("c", "b"), made, nobody) == {}


def test_p_values_are_adjusted_for_the_looks_and_for_all_pairs() -> None:
    made = runs({"a": 0.0, "b": 0.05, "c": 0.02}, sd=0.1)
    standings = judge(rules(margin=1e-6), {a: cut(r, 8) for a, r in made.items()})
    assert standings.seen == (6, 8)
    looks = Looks((6, 8), 16, "pocock")
    p_values = []
    for pair in (("a", "b"), ("a", "c"), ("b", "c")):
        difference = standings.differences[pair]
        p = 2 * looks.overall(stats.t_test(difference.values) / 2)
        assert difference.p == pytest.approx(min(1.0, p))
        p_values.append(difference.p)
        interval = difference.interval(0.05)
        assert (interval.low > 0 or interval.high < 0) == (difference.p < 0.05)
    for difference, p in zip(
        standings.differences.values(), stats.holm(p_values), strict=True
    ):
        assert difference.p_holm == pytest.approx(p)
    # An arm without runs counts in the number of pairs.
    costs = {a: cut(r, 8) for a, r in made.items()}
    costs["d"] = Runs([None] * 8, [None] * 8)
    with_d = judge(rules("a", "b", "c", "d", margin=1e-6), costs)
    assert with_d.differences["a", "b"].p == standings.differences["a", "b"].p
    smallest = min(with_d.differences.values(), key=lambda d: d.p)
    assert smallest.p_holm == pytest.approx(min(1.0, 6 * smallest.p))


@pytest.mark.parametrize("sign", [1, -1])
def test_arms_are_ranked_with_their_difference_from_the_best(sign: int) -> None:
    made = runs({"a": 0.5, "b": 0.0, "c": 0.52, "d": 4.0}, sd=0.1)
    judged = rules("a", "b", "c", "d")
    race = Race(judged, dict.fromkeys(judged.arms, 0.1), made, sign)
    standings = judge(judged, made)
    first, *others = ranked(race, standings)
    assert (first.arm, first.place, first.from_best) == ("b", "best", None)
    assert first.mean == pytest.approx(sign * mean(costs_of(made["b"], first.n)))
    assert [arm.arm for arm in others][-1] == "d"
    for arm in others:
        assert arm.distinguishable and arm.place == "worse" and arm.worse_than
        assert arm.from_best is not None
        n = arm.from_best.n
        difference = mean(costs_of(made[arm.arm], n)) - mean(costs_of(made["b"], n))
        assert arm.from_best.difference == pytest.approx(sign * difference)
        assert arm.from_best.low < arm.from_best.difference < arm.from_best.high
        assert arm.from_best.p < 0.05


def costs_of(runs: Runs, n: int) -> Sequence[float]:
    return [cost for cost in runs.costs[:n] if cost is not None]


def test_open_arms_say_how_many_seeds_would_settle_them() -> None:
    made = runs({"a": 0.0, "b": 0.08}, sd=0.1)
    judged = rules("a", "b", margin=0.01)
    standings = judge(judged, {arm: cut(run, 6) for arm, run in made.items()})
    assert standings.open
    arms = ranked(Race(judged, {"a": 0.1, "b": 0.2}, made, 1), standings)
    needed = arms[1].from_best and arms[1].from_best.seeds_needed
    assert needed is not None
    assert seeds_to_settle(arms, standings) == max(1, needed - 6)
    # More than 200 seeds are not suggested.
    shift = float(mean(NOISE[1] - NOISE[0]))  # now the means are nearly equal
    made = runs({"a": 0.0, "b": 0.01 - shift}, sd=1.0)
    strict = rules("a", "b", margin=1e-6)
    standings = judge(strict, made)
    arms = ranked(Race(strict, {"a": 0.1, "b": 0.2}, made, 1), standings)
    assert arms[1].from_best and arms[1].from_best.seeds_needed is None
    assert seeds_to_settle(arms, standings) is None


@pytest.mark.parametrize("arms", [3, 5])
def test_a_wrong_statement_is_rare_if_all_arms_are_equal(arms: int) -> None:
    rng, simulations, wrong = np.random.default_rng(8), 400, 0
    judged = rules(*map(str, range(arms)), margin=0.01)
    for _ in range(simulations):
        costs = rng.normal(size=(arms, 16)) + rng.normal(size=16)
        made = {str(i): Runs(row.tolist(), [-1.0] * 16) for i, row in enumerate(costs)}
        wrong += bool(judge(judged, made).worse)
    assert wrong / simulations < 0.05 + 0.03
