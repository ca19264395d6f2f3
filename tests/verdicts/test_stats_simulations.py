"""Coverage and false positives of the statistics of verdicts, by simulation."""

from math import inf, sqrt

import numpy as np
import pytest
from scipy import stats as oracle
from simulations_made import normal, share, tolerance

from normbench.stats import (
    bootstrap_interval,
    crossover,
    holm,
    mean_interval,
    share_above,
    sign_flip_test,
    t_test,
)


def test_the_t_interval_covers_the_mean_under_the_null() -> None:
    for n in (3, 8, 16):
        intervals = [mean_interval(sample) for sample in normal(4000, n)]
        covered = share(interval.low <= 0 <= interval.high for interval in intervals)
        assert covered == pytest.approx(0.95, abs=tolerance(0.95, 4000)), n


def test_the_t_test_has_the_nominal_rate_of_false_positives() -> None:
    for n in (3, 8, 16):
        p_values = [t_test(sample) for sample in normal(4000, n, seed=1)]
        for alpha in (0.05, 0.2):
            significant = share(p < alpha for p in p_values)
            expected = pytest.approx(alpha, abs=tolerance(alpha, 4000))
            assert significant == expected, (n, alpha)


def test_expanded_percentiles_cover_more_than_those_of_the_bootstrap():
    # At n = 3 both cover what the range of the sample covers, exactly 3/4.
    simulations, generator = 3000, np.random.default_rng(5)
    for n, percentile, expanded in (
        (3, 0.75, 0.75),
        (5, 0.84, 0.92),
        (8, 0.88, 0.94),
        (10, 0.905, 0.95),
    ):
        counts = generator.multinomial(n, np.full(n, 1 / n), 1000) / n
        all_means = generator.normal(size=(simulations, n)) @ counts.T
        low, high = np.quantile(all_means, [0.025, 0.975], axis=1)
        plain = share((low <= 0) & (high >= 0))
        intervals = [bootstrap_interval(means, n) for means in all_means]
        wide = share(low <= 0 <= high for low, high in intervals)
        for covered, expected in ((plain, percentile), (wide, expanded)):
            limit = tolerance(expected, simulations)
            assert covered == pytest.approx(expected, abs=limit), (n, expected)


def test_false_positives_of_the_sign_flip_test_are_exact_under_any_symmetric_law():
    heavy = np.random.default_rng(1).standard_cauchy((1500, 8))
    flip = share(sign_flip_test(row) < 0.05 for row in heavy)
    assert flip == pytest.approx(6 / 128, abs=tolerance(6 / 128, 1500))


@pytest.mark.parametrize("common", [0.0, 0.8])
def test_holm_keeps_the_probability_of_any_error(common):
    # Three of four contrasts have no effect. A shared arm correlates their noise.
    simulations, generator = 4000, np.random.default_rng(0)
    z = sqrt(1 - common) * generator.normal(size=(simulations, 4))
    z += sqrt(common) * generator.normal(size=(simulations, 1)) + [0, 0, 0, 5]
    p = 2 * oracle.norm.sf(np.abs(z))
    rejected = np.array([holm(row) for row in p]) < 0.05
    assert rejected[:, :3].any(axis=1).mean() <= 0.05 + tolerance(0.05, simulations)
    assert (p[:, :3] < 0.05).any(axis=1).mean() > 0.07
    assert rejected[:, 3].mean() > 0.95


def crossover_coverage(n: int, simulations: int) -> float:
    """Return the share of intervals that cover the true crossover.

    The curve and its noise are as large as those of small batches: error against log2
    of the batch size.
    """
    generator = np.random.default_rng(n)
    x, mean = np.arange(6), np.array([1.5, 0.9, 0.4, -0.2, -0.5, -0.6])
    truth, covered = 2 + 2 / 3, 0
    for seed in range(simulations):
        seed_effect = 3 * generator.normal(size=(n, 1))
        a = mean + seed_effect + 0.45 * generator.normal(size=(n, 6))
        b = np.tile(seed_effect, 6)
        interval = crossover(x, a, b, rng=seed, resamples=999)
        covered += interval.low <= truth <= interval.high
    return covered / simulations


def test_crossover_covers_the_crossing_from_eight_seeds():
    for n, expected in ((3, 0.77), (8, 0.94)):
        coverage = crossover_coverage(n, 600)
        assert coverage == pytest.approx(expected, abs=tolerance(expected, 600)), n


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "expected"), [(3, 0.76), (5, 0.92), (8, 0.94), (16, 0.94)]
)
def test_crossover_coverage_with_many_simulations(n, expected):
    coverage = crossover_coverage(n, 3000)
    assert coverage == pytest.approx(expected, abs=tolerance(expected, 3000))


def test_interval_of_the_share_above_zero_covers():
    # Exact intervals cover at least the nominal level. Cut-off values give ties.
    simulations, n, generator = 2000, 8, np.random.default_rng(0)
    for minimum in (-inf, 0.0, 0.8):
        a = np.maximum(generator.normal(-0.5, 1, (simulations, n)), minimum)
        b = np.maximum(generator.normal(0, 1, (simulations, n)), minimum)
        truth = ((a < b).mean() + (a <= b).mean()) / 2
        shares = [share_above(row) for row in b - a]
        covered = share(s.low <= truth <= s.high for s in shares)
        assert covered >= 0.95 - tolerance(0.95, simulations), minimum
        assert np.mean([s.value for s in shares]) == pytest.approx(truth)
