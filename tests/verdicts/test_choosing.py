"""How the rate of each seed is chosen from validation losses."""

import numpy as np
import pytest

from normbench.verdicts.choosing import Choosing, chosen, dropped_rates

RATES = [0.05, 0.1, 0.2, 0.4, 0.8]
ALL: list[Choosing] = ["nested", "cross_fitted", "pooled", "curve"]
nan, inf = np.nan, np.inf
Array = np.typing.NDArray[np.float64]


def draws(*shape: int, seed: int = 0) -> Array:
    noise = np.random.default_rng(seed).normal(size=(*shape, len(RATES)))
    valley = (np.arange(len(RATES)) - 2.0) ** 2
    return 10 + valley + noise


def test_nested_takes_each_seeds_own_minimum() -> None:
    validation = draws(6)
    expected = validation.argmin(axis=1).tolist()
    assert len(set(expected)) > 1
    assert chosen(validation, RATES, "nested").tolist() == expected


def test_cross_fitted_ignores_the_seed_itself() -> None:
    validation = draws(7)
    expected = [
        np.delete(validation, seed, axis=0).mean(axis=0).argmin() for seed in range(7)
    ]
    assert chosen(validation, RATES, "cross_fitted").tolist() == expected
    for seed in range(7):
        changed = validation.copy()
        changed[seed] = np.random.default_rng(9).permuted(changed[seed])
        assert chosen(changed, RATES, "cross_fitted")[seed] == expected[seed]


def test_pooled_takes_the_minimum_of_the_mean_for_all_seeds() -> None:
    validation = draws(3, 7)
    expected = validation.mean(axis=1).argmin(axis=1)
    pooled = chosen(validation, RATES, "pooled")
    assert pooled.tolist() == [[index] * 7 for index in expected.tolist()]


def test_a_curve_corrects_a_lucky_rate() -> None:
    """The means are a valley at 0.2, but 0.4 is lucky."""
    validation = np.tile([14.0, 11.0, 10.0, 9.9, 14.0], (3, 1))
    assert chosen(validation, RATES, "cross_fitted").tolist() == [3, 3, 3]
    fitted = np.polyfit(np.log2(RATES), validation[0], 2)
    assert 2 ** (-fitted[1] / (2 * fitted[0])) < 0.2 * 2**0.5
    assert chosen(validation, RATES, "curve").tolist() == [2, 2, 2]


def test_a_curve_is_fitted_near_the_best_rate_only() -> None:
    rates = [0.025, *RATES, 1.6]
    means = [10.9, 10.5, 10.2, 10.0, 10.2, 10.5, 10.9]
    far = [99.0, *means[1:]]
    for index, row in ((3, means), (3, far)):
        assert chosen(np.tile(row, (2, 1)), rates, "curve").tolist() == [index] * 2


@pytest.mark.parametrize(
    "means",
    [
        [1.0, 2.0, inf, inf, inf],  # two finite means
        [1.0, 2.0, 3.0, inf, inf],  # three: a parabola would add nothing
        [1.0, 3.0, 4.0, 4.5, 4.6],  # no minimum
    ],
)
def test_a_curve_without_a_parabola_takes_the_lowest_mean(means: list[float]) -> None:
    assert chosen(np.array([means, means]), RATES, "curve").tolist() == [0, 0]


def test_a_rate_that_diverged_for_one_of_the_used_seeds_is_not_chosen() -> None:
    validation = np.tile([5.0, 4.0, 3.0, 1.0, 6.0], (4, 1))
    validation[1, 3] = inf
    assert chosen(validation, RATES, "nested").tolist() == [3, 2, 3, 3]
    # Seed 1 does not see its own divergence.
    assert chosen(validation, RATES, "cross_fitted").tolist() == [2, 3, 2, 2]
    assert chosen(validation, RATES, "pooled").tolist() == [2, 2, 2, 2]
    assert set(chosen(validation, RATES, "curve").tolist()) <= {1, 2}


@pytest.mark.parametrize("how", ALL)
def test_if_all_rates_diverged_the_lowest_that_was_run_is_chosen(how: Choosing) -> None:
    validation = np.full((3, 5), inf)
    assert chosen(validation, RATES, how).tolist() == [0, 0, 0]
    validation[1:, 0] = nan
    assert chosen(validation, RATES, how).tolist() == [1, 1, 1]


@pytest.mark.parametrize("how", ALL)
def test_the_lower_of_equal_rates_is_chosen(how: Choosing) -> None:
    validation = np.tile([3.0, 1.0, 1.0, 3.0, inf], (4, 1))
    assert chosen(validation, RATES, how).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("how", ALL)
def test_a_dropped_rate_changes_nothing_else(how: Choosing) -> None:
    validation = draws(8)
    dropped = np.insert(validation, 3, -1.0, axis=1)
    dropped[5:, 3] = nan  # it has losses of the first seeds
    rates = [*RATES[:3], 0.3, *RATES[3:]]
    before, after = chosen(validation, RATES, how), chosen(dropped, rates, how)
    assert [rates[i] for i in after] == [RATES[i] for i in before]


@pytest.mark.parametrize("how", ALL)
def test_leading_axes_are_independent_cells(how: Choosing) -> None:
    validation = draws(3, 4, 6)
    validation[0, 1, 2, 0] = nan
    validation[2, 2, :, 3:] = inf
    together = chosen(validation, RATES, how)
    assert together.shape == (3, 4, 6)
    for i, j in np.ndindex(3, 4):
        alone = chosen(validation[i, j], RATES, how)
        assert together[i, j].tolist() == alone.tolist()


def test_a_rate_is_dropped_if_it_is_worse_on_every_seed_and_clearly_worse() -> None:
    best = np.array([1.0, 2.0, 3.0, 4.0])
    barely = np.array([0.01, 0.01, 0.01, 2.0])  # a t value of 1.02
    clearly = np.array([0.9, 1.0, 1.1, 1.0])
    once_better = np.array([2.0, 2.0, 2.0, -0.01])
    diverged = np.array([0.5, 0.5, 0.5, inf])
    lucky = np.array([inf, 2.0, 2.0, -1.0])  # diverged once, and was better once
    gaps = np.stack([clearly, barely, best * 0, once_better, diverged, lucky], axis=1)
    validation = best[:, None] + gaps
    expected = [True, False, False, False, True, False]
    assert dropped_rates(validation).tolist() == expected
    assert dropped_rates(np.stack([validation] * 2)).tolist() == [expected] * 2


def test_no_rate_is_dropped_if_all_are_equal_or_all_diverged() -> None:
    for loss in (1.0, inf):
        assert not dropped_rates(np.full((4, 5), loss)).any()
    with pytest.raises(ValueError, match="at least two seeds"):
        dropped_rates(np.ones((1, 5)))


@pytest.mark.parametrize(
    ("validation", "rates", "message"),
    [
        (np.ones(5), RATES, r"shape \(5,\), not"),
        (np.ones((0, 5)), RATES, r"shape \(0, 5\), not"),
        (np.ones((2, 4)), RATES, "must be the 5 rates"),
        (np.ones((2, 3)), [0.1, 0.1, 0.2], "must be positive and increase"),
        (np.ones((2, 2)), [0.0, 0.1], "must be positive and increase"),
        (np.array([[1.0, nan], [nan, 1.0]]), [0.1, 0.2], "NaN at every rate"),
    ],
)
def test_a_wrong_argument_is_named(
    validation: Array, rates: list[float], message: str
) -> None:
    for how in ALL:
        with pytest.raises(ValueError, match=message):
            chosen(validation, rates, how)


def test_what_no_rate_can_be_chosen_from_is_named() -> None:
    with pytest.raises(ValueError, match="at least two seeds"):
        chosen(np.ones((1, 5)), RATES, "cross_fitted")
