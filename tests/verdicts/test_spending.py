"""Alpha spending, against published tables, scipy and simulation."""

from math import sqrt
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as oracle
from simulations_made import normal, tolerance

from normbench.verdicts.seeds import Spending
from normbench.verdicts.spending import Looks, adjusted_p, nominal_levels, spent

SPENDINGS: tuple[Spending, ...] = get_args(Spending)
LOOKS = st.lists(st.integers(6, 64), min_size=2, max_size=4, unique=True).map(sorted)
OVERALL = st.floats(1e-4, 0.3)


def bounds(looks: int, spending: Spending, alpha: float) -> list[float]:
    """Return the z values of equally spaced looks, `alpha` one-sided."""
    levels = nominal_levels(tuple(range(1, looks + 1)), looks, spending, alpha)
    return [float(oracle.norm.isf(level)) for level in levels]


@pytest.mark.parametrize(
    ("spending", "published"),
    [
        # Two-sided .05, five looks: Lan & DeMets' program (Reboussin et al. 2000).
        ("pocock", [2.438, 2.427, 2.410, 2.397, 2.386]),
        ("obrien_fleming", [4.877, 3.357, 2.680, 2.290, 2.031]),
    ],
)
def test_bounds_are_the_published_ones(
    spending: Spending, published: list[float]
) -> None:
    assert bounds(5, spending, 0.025) == pytest.approx(published, abs=6e-4)


def test_bounds_of_two_looks_follow_from_the_bivariate_normal_distribution() -> None:
    for spending in SPENDINGS:
        for n, maximum in ((8, 32), (31, 32)):
            looks = (n, maximum)
            c = oracle.norm.isf(nominal_levels(looks, maximum, spending, 0.05))
            correlation = sqrt(n / maximum)
            covariance = [[1, correlation], [correlation, 1]]
            below = oracle.multivariate_normal(cov=covariance).cdf(c)
            assert 1 - below == pytest.approx(0.05, abs=1e-6), (spending, n)


def test_the_first_look_has_the_level_that_is_spent_and_the_last_spends_the_rest() -> (
    None
):
    for spending in SPENDINGS:
        for fraction in (0.1, 0.5, 0.9):
            first, _ = nominal_levels((int(100 * fraction), 100), 100, spending, 0.03)
            expected = spent(spending, int(100 * fraction) / 100, 0.03)
            assert first == pytest.approx(expected, rel=1e-9)
        assert spent(spending, 1, 0.03) == 0.03
        with pytest.raises(ValueError, match="fraction is 0"):
            spent(spending, 0, 0.03)


@pytest.mark.parametrize("spending", SPENDINGS)
@pytest.mark.parametrize(
    ("looks", "maximum"),
    [((8, 16, 24, 32), 32), ((8, 12, 16, 24, 32, 48, 64), 64), ((8, 13), 32)],
)
def test_a_true_hypothesis_is_rejected_as_often_as_is_spent(
    looks: tuple[int, ...], maximum: int, spending: Spending
) -> None:
    simulations, alpha = 40_000, 0.05
    sums = normal(simulations, maximum, seed=3).cumsum(axis=1)
    z = sums[:, [n - 1 for n in looks]] / np.sqrt(looks)
    levels = nominal_levels(looks, maximum, spending, alpha)
    crossed = (z > oracle.norm.isf(levels)).cumsum(axis=1) > 0
    for share, n in zip(crossed.mean(axis=0), looks, strict=True):
        expected = spent(spending, n / maximum, alpha)
        assert share == pytest.approx(expected, abs=tolerance(expected, simulations))


@settings(max_examples=15, deadline=None)
@given(LOOKS, st.sampled_from(SPENDINGS), OVERALL, OVERALL)
def test_levels_increase_with_alpha_and_adjusted_p_is_their_inverse(
    looks: list[int], spending: Spending, alpha: float, other: float
) -> None:
    so_far, maximum = tuple(looks), looks[-1] + 5
    levels = nominal_levels(so_far, maximum, spending, alpha)
    others = nominal_levels(so_far, maximum, spending, other)
    for level, other_level in zip(levels, others, strict=True):
        assert (level - other_level) * (alpha - other) >= 0
        assert level < alpha
    overall = adjusted_p(levels[-1], so_far, maximum, spending)
    assert overall == pytest.approx(alpha, rel=2e-4)


@settings(max_examples=15, deadline=None)
@given(LOOKS, st.sampled_from(SPENDINGS), st.lists(st.floats(1e-300, 1), min_size=2))
def test_adjusted_p_increases_from_0_to_1_and_is_at_least_p(
    looks: list[int], spending: Spending, p_values: list[float]
) -> None:
    history = Looks(tuple(looks), looks[-1], spending)
    adjusted = [history.overall(p) for p in sorted(p_values)]
    assert adjusted == sorted(adjusted)
    for p, overall in zip(sorted(p_values), adjusted, strict=True):
        assert p * (1 - 1e-4) <= overall <= 1
    assert (history.overall(0.0), history.overall(1.0)) == (0.0, 1.0)


def test_one_look_at_all_seeds_is_the_fixed_test() -> None:
    for spending in SPENDINGS:
        only = Looks((16,), 16, spending)
        assert (only.level(0.03), only.overall(0.03)) == (0.03, 0.03)


@pytest.mark.parametrize("looks", [(), (8, 8), (16, 8), (0, 8), (8, 40)])
def test_looks_increase_to_the_maximum(looks: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must increase, from 1 or more to 32"):
        nominal_levels(looks, 32, "pocock", 0.05)
