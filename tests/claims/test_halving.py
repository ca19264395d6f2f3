"""Successive halving over learning rates, and the arms that it drops."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from normbench.claims.halving import (
    DROP_LEVEL,
    Try,
    Tuned,
    clearly_worse,
    tune,
)
from normbench.verdicts.seeds import FULL_TUNING_SEEDS

RATES = (0.1, 0.2, 0.4)


class Measured:
    """Costs by a function of arm, rate and seed; at most `limit` runs are done."""

    def __init__(
        self, cost: Callable[[str, float, int], float | None], limit: int = 1000
    ) -> None:
        self.cost, self.limit = cost, limit
        self.rounds: list[list[Try]] = []

    def __call__(self, tries: Sequence[Try]) -> Mapping[Try, float | None]:
        self.rounds.append(list(tries))
        done = tries[: self.limit]
        self.limit -= len(done)
        return {key: self.cost(*key) for key in done}


def cost(arm: str, lr: float, seed: int) -> float:
    """Return a cost: the best rate is .2; b is worse than a by .3, c by 3."""
    noise = 0.01 * ((7 * seed + 3 * len(arm) + ord(arm[0])) % 5)
    return {"a": 0.0, "b": 0.3, "c": 3.0}[arm] + math.log2(lr / 0.2) ** 2 + noise


def tuned(
    measured: Measured, arms: str = "abc", margin: float = 1.0, extend: int = 2
) -> dict[str, Tuned]:
    return tune(arms, RATES, measured, extend=extend, margin=margin)


def test_every_arm_keeps_the_better_half_of_its_rates_on_twice_the_seeds() -> None:
    result = tuned(measured := Measured(cost))
    first, second, third = measured.rounds
    assert first == [(arm, lr, 0) for arm in "abc" for lr in RATES]
    assert {(arm, seed) for arm, _, seed in second} == {(a, 1) for a in "abc"}
    assert len(second) == 6  # two rates of each arm
    assert [seed for *_, seed in third] == 6 * [2] + 6 * [3]  # in order of the seeds
    assert {t.lr for t in result.values()} == {0.2}
    assert {lr: seeds for lr, (_, seeds) in result["a"].tried.items()} == {
        0.1: 4,
        0.2: 4,
        0.4: 1,
    }
    assert not any(t.at_edge for t in result.values())


def test_only_an_arm_that_is_clearly_worse_is_dropped() -> None:
    result = tuned(Measured(cost))
    assert (result["a"].dropped, result["b"].dropped) == (None, None)
    assert "worse than a by 3.0" in (result["c"].dropped or "")
    assert "4 tuning seeds" in (result["c"].dropped or "")
    assert result["c"].lr == 0.2
    assert tuned(Measured(cost), margin=4.0)["c"].dropped is None
    # Two arms always stay.
    assert tuned(Measured(cost), "ac")["c"].dropped is None
    both = tuned(Measured(lambda a, lr, s: cost("a" if a == "a" else "c", lr, s)))
    assert sum(t.dropped is not None for t in both.values()) == 1


def test_the_grid_is_extended_at_its_edge_and_not_further_than_allowed() -> None:
    measured = Measured(lambda arm, lr, seed: -lr)
    result = tuned(measured, "ab")["a"]
    assert (result.lr, result.at_edge) == (1.6, True)
    assert sorted(result.tried) == [0.1, 0.2, 0.4, 0.8, 1.6]
    result = tuned(Measured(lambda arm, lr, seed: (lr - 0.8) ** 2), "ab")["a"]
    assert (result.lr, result.at_edge) == (0.8, False)
    assert sorted(result.tried) == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert tuned(Measured(lambda arm, lr, seed: lr), "ab", extend=0)["b"].lr == 0.1


def test_a_rate_without_a_cost_is_the_worst_and_drops_no_arm() -> None:
    result = tuned(Measured(lambda arm, lr, seed: None if lr > 0.1 else lr), "abc")
    assert {t.lr for t in result.values()} == {0.025}
    nothing = tuned(Measured(lambda a, lr, s: None if a == "c" else cost(a, lr, s)))
    assert nothing["c"].dropped is None
    assert nothing["c"].tried[nothing["c"].lr][0] is None


@pytest.mark.parametrize("limit", range(1, 27))
def test_if_the_time_ends_the_rates_are_chosen_on_the_finished_rounds(
    limit: int,
) -> None:
    result = tuned(measured := Measured(cost, limit))
    asked = sum(map(len, measured.rounds))
    assert asked >= limit
    if limit <= 6:  # the third arm has no run
        assert set(result) == set("abc"[: math.ceil(limit / 3)])
        return
    if limit >= 9:
        assert {t.lr for t in result.values()} == {0.2}
    assert all(t.dropped is None for t in result.values())


def test_seeds_of_a_round_that_was_not_finished_do_not_count() -> None:
    rounds = Measured(cost)
    tuned(rounds)
    first, second, third = map(len, rounds.rounds)
    result = tuned(Measured(cost, first + second + third - 1))
    assert {t.tried[t.lr][1] for t in result.values()} == {2}


@pytest.mark.parametrize("arms", [3, 8])
@pytest.mark.parametrize("shape", ["normal", "skewed"])
def test_the_best_arm_is_seldom_dropped_for_noise(arms: int, shape: str) -> None:
    """The other arms are slightly worse; rates are chosen on the same seeds."""
    rng, simulations, dropped = np.random.default_rng(5), 300, 0
    names = [str(i) for i in range(arms)]
    for _ in range(simulations):

        def noisy(arm: str, lr: float, seed: int) -> float:
            noise = rng.normal() if shape == "normal" else rng.exponential() - 1
            return float(noise) + 0.2 * (arm != "0")

        result = tune(names, RATES, noisy_measure(noisy), extend=2, margin=0.25)
        dropped += result["0"].dropped is not None
    assert dropped / simulations <= 0.02


def noisy_measure(cost: Callable[[str, float, int], float]) -> Measured:
    return Measured(cost, limit=10**6)


def test_the_level_of_the_test_is_that_of_all_arms_together() -> None:
    worse = [0.0, 0.1, -0.1, 0.05]
    costs = {"best": [0.0] * FULL_TUNING_SEEDS, "x": [1 + noise for noise in worse]}
    (p,) = clearly_worse(costs, 0.5).values()
    others = int(DROP_LEVEL / p) + 1  # with so many other arms, p is not small enough
    for count, expected in ((others - 1, True), (others, False)):
        more = {f"{i}": [0.0, 0.0, 0.0, 0.001] for i in range(count - 1)}
        assert ("x" in clearly_worse(costs | more, 0.5)) is expected
