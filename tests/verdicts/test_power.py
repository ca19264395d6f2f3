"""The power of the decisions, against scipy, R and simulation."""

from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy import stats as oracle

from normbench.stats import mean_interval
from normbench.verdicts import power
from normbench.verdicts.design import Says
from normbench.verdicts.power import power_of_difference, power_within, seeds_needed


def test_power_of_a_difference_and_of_a_bound_is_noncentral_t() -> None:
    for n in (2, 5, 8, 30, 400):
        for margin in (0.05, 0.5, 3.0):
            df, root = n - 1, sqrt(n) / 1.5
            two, one = oracle.t.ppf([0.975, 0.95], df)
            difference = oracle.nct.sf(two, df, margin * root)
            difference += np.nan_to_num(oracle.nct.cdf(-two, df, margin * root))
            result = power_of_difference(n, margin, 1.5, 0.05)
            assert result == pytest.approx(difference, abs=3e-6), (n, margin)
            below = oracle.nct.sf(one, df, (margin - 0.1) * root)
            result = power_within(n, 0.1, 1.5, -inf, margin, 0.05)
            assert result == pytest.approx(below, abs=3e-6), (n, margin)


@pytest.mark.parametrize("margin", [0.05, 0.5, 1.0, 3.0])
@pytest.mark.parametrize(
    ("n", "effect"), [(2, 0.0), (3, 0.3), (8, 0.0), (8, 0.3), (30, -1.2), (400, 0.3)]
)
def test_power_of_equivalence_is_the_integral_over_the_sd(
    margin: float, n: int, effect: float
) -> None:
    df, root, critical = n - 1, sqrt(n), oracle.t.ppf(0.95, n - 1)

    def integrand(s: float) -> float:
        inside = oracle.norm.cdf((margin - effect) * root - critical * s)
        inside -= oracle.norm.cdf(critical * s - (margin + effect) * root)
        density: float = inside * oracle.chi.pdf(s * sqrt(df), df) * sqrt(df)
        return density

    widest = min(margin * root / critical, 1 + 12 / sqrt(2 * df))
    peak = [1] if widest > 1 else None
    expected, _ = integrate.quad(integrand, 0, widest, points=peak, limit=200)
    result = power_within(n, effect, 1, -margin, margin, 0.05)
    assert result == pytest.approx(expected, abs=2e-6)


def test_power_is_the_share_of_simulated_intervals() -> None:
    sims = 4000
    # The last case is the false-positive rate: the truth lies on the margin.
    for n, margin, effect in ((3, 2, 0), (5, 1, 0), (8, 1, 0.2), (8, 0.7, 0.7)):
        rows = np.random.default_rng(0).normal(effect, size=(sims, n))
        intervals = [mean_interval(row, 0.9) for row in rows]
        for low in (-margin, -inf):
            share = np.mean([low < i.low and i.high < margin for i in intervals])
            expected = power_within(n, effect, 1, low, margin, 0.05)
            error = 4 * sqrt(expected * (1 - expected) / sims)
            assert share == pytest.approx(expected, abs=error), (n, margin, low)
            assert effect != margin or expected <= 0.05 + 1e-9


def test_seeds_for_a_difference_are_those_of_r() -> None:
    # power.t.test(delta = d, sd = 1, power = .8, type = "paired"), rounded up.
    for d, n in ((0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)):
        assert seeds_needed("greater", d, 1, d / 100, 0.05) == n


@pytest.mark.parametrize(
    ("says", "effect", "margin", "seeds"),
    [
        ("less", 0.05, 0.01, None),  # over MAX_SEEDS
        ("less", 0.0, 0.5, 36),  # only as equivalent
        ("equal", 0.0, 0.5, 36),
        ("equal", 1.0, 0.5, 27),  # beyond the margin by .5
        ("equal", 0.5, 0.5, None),
        ("not_greater", 0.0, 0.5, 27),
        ("not_greater", -5.0, 0.5, 3),
        ("not_greater", 0.5, 0.5, None),
        ("not_greater", 1.0, 0.5, 27),
    ],
)
def test_seeds_settle_a_contrast_in_the_quickest_way(
    says: Says, effect: float, margin: float, seeds: int | None
) -> None:
    assert seeds_needed(says, effect, 1, margin, 0.05) == seeds
    assert seeds_needed(says, effect, 0, margin, 0.05) is None


@settings(max_examples=30, deadline=None)
@given(st.floats(-3, 3), st.floats(0.1, 3), st.floats(0.01, 0.2))
def test_seeds_needed_is_the_least_number_that_reaches_the_power(
    effect: float, margin: float, alpha: float
) -> None:
    needed = seeds_needed("not_greater", effect, 1, margin, alpha)
    low, high = (-inf, margin) if effect < margin else (margin, inf)
    enough = [
        power_within(n, effect, 1, low, high, alpha) >= power.POWER
        for n in range(2, power.MAX_SEEDS + 1)
    ]
    assert needed == (enough.index(True) + 2 if any(enough) else None)
    assert enough == sorted(enough)
