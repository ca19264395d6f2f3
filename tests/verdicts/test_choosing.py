"""The rate of each seed: chosen by its own, by other seeds, or by a fitted curve."""

import numpy as np
import pytest

from normbench.verdicts.choosing import Choosing, best_common, chosen

RATES = (0.05, 0.1, 0.2, 0.4, 0.8)
LOG_RATES = np.log2(RATES)
WAYS: tuple[Choosing, ...] = ("nested", "cross_fitted", "curve")


def parabola(minimum: float, seeds: int = 4) -> np.ndarray:
    """Return costs whose minimum is so many steps above the lowest rate."""
    costs = 1 + (LOG_RATES - LOG_RATES[0] - minimum) ** 2
    return np.tile(costs, (seeds, 1))


@pytest.mark.parametrize("how", WAYS)
def test_without_noise_all_ways_choose_the_best_rate(how: Choosing) -> None:
    for minimum in (0.3, 1.4, 2.0, 2.6, 4.0):
        expected = [round(minimum)] * 4
        assert chosen(parabola(minimum), RATES, how).tolist() == expected


def test_each_way_looks_at_its_own_seeds() -> None:
    validation = np.array(
        [[1.0, 2.0, 4.0], [1.0, 2.0, 4.0], [9.0, 8.0, 1.0], [9.0, 3.0, 1.0]]
    )
    rates = RATES[:3]
    assert chosen(validation, rates, "nested").tolist() == [0, 0, 2, 2]
    # Means of the others: (6.3 4.3 2), (6.3 4.3 2), (3.7 2.3 3), (3.7 4 3).
    assert chosen(validation, rates, "cross_fitted").tolist() == [2, 2, 1, 2]
    assert chosen(validation, rates, "curve").tolist() == [2] * 4


def test_the_curve_corrects_a_lucky_rate() -> None:
    validation = parabola(2.0)
    validation[:, 1] = 0.99  # its neighbours cost 5 and 1
    assert chosen(validation, RATES, "cross_fitted").tolist() == [1] * 4
    # The quadratic has its minimum at 1.74.
    assert chosen(validation, RATES, "curve").tolist() == [2] * 4


def test_the_curve_is_fitted_near_the_best_rate_only() -> None:
    rates = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
    costs = np.array([[3.0, 2.0, 1.0, 1.9, 3.1, 500.0, 900.0]])
    assert chosen(costs, rates, "curve").tolist() == [2]


def test_a_concave_curve_gives_the_best_rate() -> None:
    costs = np.array([[1.0, 5.0, 6.0, 6.0, 1.1]])
    assert chosen(costs, RATES, "curve").tolist() == [0]
    assert chosen(np.array([[1.1, 4.0, 4.0, 1.0]]), RATES[:4], "curve").tolist() == [3]


def test_a_diverged_run_removes_the_rate_from_the_means_it_is_in() -> None:
    validation = np.array([[3.0, 1.0, np.inf], [3.0, np.inf, 2.0], [3.0, 1.0, 2.0]])
    rates = RATES[:3]
    assert chosen(validation, rates, "nested").tolist() == [1, 2, 1]
    assert chosen(validation, rates, "cross_fitted").tolist() == [2, 1, 0]
    assert chosen(validation, rates, "curve").tolist() == [0] * 3


@pytest.mark.parametrize("how", WAYS)
def test_if_all_rates_diverged_the_lowest_is_chosen(how: Choosing) -> None:
    assert chosen(np.full((3, 5), np.inf), RATES, how).tolist() == [0] * 3


@pytest.mark.parametrize("how", WAYS)
def test_in_a_tie_the_lower_rate_is_chosen(how: Choosing) -> None:
    """The sums of 0.1, 0.2, 0.3 and of 0.3, 0.2, 0.1 differ by rounding."""
    validation = np.array([[0.9, 0.6, 0.6], [0.9, 0.1, 0.3], [0.9, 0.3, 0.1]])
    assert chosen(validation, RATES[:3], how)[0] == 1


@pytest.mark.parametrize("how", WAYS)
def test_a_dropped_rate_is_ignored(how: Choosing) -> None:
    validation = parabola(2.0, seeds=4)
    validation[:, 0] = 0.0  # the best, had it been run with all seeds
    validation[2:, 0] = np.nan
    assert chosen(validation, RATES, how).tolist() == [2] * 4
    validation[:, 2] = np.nan
    assert chosen(validation, RATES, how)[0] in {1, 3}


def test_bad_arguments_are_named() -> None:
    costs = parabola(2.0)
    with pytest.raises(ValueError, match=r"shape \(4, 5\); it must be \(seeds, 4\)"):
        chosen(costs, RATES[:4], "nested")
    with pytest.raises(ValueError, match="must be positive and increase"):
        chosen(costs, RATES[::-1], "nested")
    with pytest.raises(ValueError, match="no rate was run with all seeds"):
        chosen(np.full((4, 5), np.nan), RATES, "nested")
    with pytest.raises(ValueError, match=r"diverged run must have \+inf"):
        chosen(-np.inf * costs, RATES, "nested")
    with pytest.raises(ValueError, match="at least two seeds"):
        chosen(costs[:1], RATES, "cross_fitted")
    with pytest.raises(ValueError, match="'best' must be nested, cross_fitted"):
        chosen(costs, RATES, "best")  # type: ignore[arg-type]


def test_the_common_rate_costs_the_cells_least() -> None:
    flat, steep = parabola(0.0) * 0.1, parabola(4.0)
    assert best_common([flat, steep]) == 4
    assert best_common([parabola(0.0), steep]) == 2
    # The level of a cell does not count.
    assert best_common([parabola(0.0) + 100, steep]) == 2


def test_the_common_rate_was_run_and_did_not_diverge_in_any_cell() -> None:
    low, high = parabola(0.0), parabola(4.0)
    low[0, 2] = np.inf
    high[1, 1] = np.nan
    assert best_common([low, high]) == 3
    low[:] = np.inf
    assert best_common([low, high]) == 4
    assert best_common([low, low]) == 0
    with pytest.raises(ValueError, match="no rate was run with all seeds"):
        best_common([np.full((4, 5), np.nan), high])
