"""The statistics of verdicts against scipy, published values, and simulation.

A simulated share is held to what is expected within four of its standard errors. P
marks figures of an earlier pilot of 3,000 simulations, with an error of its own.
"""

from collections.abc import Callable, Iterable
from dataclasses import astuple
from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy import integrate
from scipy import stats as oracle

from normbench.stats import (
    bootstrap_interval,
    crossover,
    detectable,
    holm,
    interquartile_mean,
    mean_interval,
    non_inferiority,
    paired_t_test,
    power_at,
    probability_of_improvement,
    seeds_needed,
    sign_flip_test,
    slopes,
    tost,
)

SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
"""Additional hours of sleep, one drug minus another (Student 1908; R's `sleep`)."""

MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
"""Heights of Darwin's maize, crossed minus self-fertilized (Fisher 1935)."""

DRAWN = np.random.default_rng(7).normal(0.3, 1, 9)


def normal(sims: int, n: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(sims, n))


def share(found: Iterable[bool]) -> float:
    return float(np.mean(list(found)))


def error(expected: float, sims: int) -> float:
    """Four binomial standard errors."""
    return 4 * sqrt(expected * (1 - expected) / sims)


# Against scipy and published values


@pytest.mark.parametrize("values", [SLEEP, MAIZE, [3.0, 5.0], DRAWN])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_t_interval_and_test_equal_scipy(values, confidence):
    found = paired_t_test(values, confidence)
    reference = oracle.ttest_1samp(values, 0)
    assert_allclose((found.t, found.p), (reference.statistic, reference.pvalue))
    interval = reference.confidence_interval(confidence)
    assert_allclose((found.low, found.high), interval)
    assert_allclose((found.mean, found.sd), (np.mean(values), np.std(values, ddof=1)))
    alone = mean_interval(values, confidence)
    assert astuple(alone) == astuple(found)[:6]


def test_student_sleep():
    found = paired_t_test(SLEEP)
    assert found.mean == pytest.approx(1.58)
    assert found.t == pytest.approx(4.0621, abs=5e-5)
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    assert (found.low, found.high) == pytest.approx((0.7001142, 2.4598858))


def test_one_value_has_no_interval():
    found = mean_interval([2.5])
    assert (found.mean, found.n) == (2.5, 1)
    assert found.sd is found.low is found.high is None


def test_equal_differences_have_an_interval_of_no_width():
    zero, one = paired_t_test([0, 0, 0]), paired_t_test([1, 1, 1])
    assert (zero.low, zero.high, zero.p) == (0, 0, 1)
    assert (one.low, one.high, one.p, one.t) == (1, 1, 0, inf)
    assert tost([0, 0, 0], 0.5).holds
    assert not tost([1, 1, 1], 1).holds
    assert tost([1, 1, 1], 1).p == 0.5
    assert sign_flip_test([1, 1, 1]).p == 0.25


@pytest.mark.parametrize("margin", [0.3, 1.0, 2.0])
def test_tost_and_non_inferiority_are_one_sided_t_tests(margin):
    upper = oracle.ttest_1samp(DRAWN, margin, alternative="less").pvalue
    lower = oracle.ttest_1samp(DRAWN, -margin, alternative="greater").pvalue
    both, one = tost(DRAWN, margin), non_inferiority(DRAWN, margin)
    assert both.p == pytest.approx(max(upper, lower))
    assert one.p == pytest.approx(upper)
    assert both.confidence == one.confidence == pytest.approx(0.9)
    interval = oracle.ttest_1samp(DRAWN, 0).confidence_interval(0.9)
    assert_allclose((both.low, both.high), interval)
    assert_allclose((one.low, one.high), interval)


def test_sign_flip_of_darwins_maize_is_fishers():
    # The Design of Experiments, section 21: 863 of 32,768 in each direction.
    found = sign_flip_test(MAIZE)
    assert found.p == 2 * 863 / 32768
    assert (found.exact, found.assignments) == (True, 32768)


@pytest.mark.parametrize(
    ("n", "least"), [(1, 1), (5, 0.0625), (6, 0.03125), (8, 2**-7)]
)
def test_least_p_of_the_sign_flip_test(n, least):
    assert sign_flip_test(np.arange(1, n + 1)).p == least


@pytest.mark.parametrize("values", [DRAWN, DRAWN.round(), [1, -1, 2, 0, 3]])
def test_sign_flip_equals_scipy(values):
    reference = oracle.permutation_test(
        (values,), np.sum, permutation_type="samples", n_resamples=inf
    )
    assert sign_flip_test(values).p == pytest.approx(reference.pvalue)


def test_sign_flip_samples_above_sixteen():
    values = np.random.default_rng(1).normal(0.4, 1, 18)
    bits = np.arange(2**18)[:, None] >> np.arange(18) & 1
    sums = np.abs((1 - 2 * bits) @ values)
    exact = (sums >= abs(values.sum()) - 1e-9).mean()
    found = sign_flip_test(values, rng=3)
    assert not found.exact
    assert found.p == pytest.approx(exact, abs=error(exact, found.assignments))
    assert found == sign_flip_test(values, rng=np.random.default_rng(3))
    assert sign_flip_test(values + 100, rng=0, assignments=999).p == 1 / 1000


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),
        # Order kept, capped at 1, as R's p.adjust(p, "holm").
        ([0.04, 0.01, 0.03, 0.005], [0.06, 0.03, 0.06, 0.02]),
        ([0.6, 0.9], [1, 1]),
        ([0.2], [0.2]),
    ],
)
def test_holm(p, adjusted):
    assert_allclose(holm(p), adjusted)


def test_slopes_equal_scipy():
    x, y = np.log2([1, 2, 4, 16, 32]), normal(6, 5)
    expected = [oracle.linregress(x, row).slope for row in y]
    assert_allclose(slopes(x, y), expected)


def test_bootstrap_interval_is_hesterbergs_expanded_percentiles():
    resampled = normal(1, 99_999)[0]
    for n in (5, 10, 100_000):
        tail = oracle.norm.cdf(sqrt(n / (n - 1)) * oracle.t.ppf(0.025, n - 1))
        expected = np.quantile(resampled, [tail, 1 - tail])
        assert_allclose(bootstrap_interval(resampled, n), expected, rtol=2e-3)
    assert_allclose(bootstrap_interval(resampled, 10**5), [-1.96, 1.96], atol=0.02)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([3, 1, -1, -2], 2.0),  # between levels
        ([3, 2, 0, -1], 3.0),  # at a level
        ([1, -3, 2, -2], 0.25),  # the first of several
        ([4, 3, 2, 1], inf),
        ([-1, -1, 2, 3], -inf),
    ],
)
def test_crossover_of_curves_without_noise(curve, expected):
    a = np.tile(curve, (4, 1)) + 5.0
    found = crossover([0, 1, 3, 4], a, np.full((4, 4), 5.0), rng=0)
    assert found.x == found.low == found.high == expected
    assert found.share_before == (expected == -inf)
    assert found.share_after == (expected == inf)
    assert found.share_several == (curve == [1, -3, 2, -2])


def test_crossover_pairs_the_seeds():
    # A seed moves both curves alike by far more than they differ.
    offsets = 100 * normal(8, 1)
    a, b = offsets + np.array([1, 0.5, -0.5, -1]), offsets + np.zeros(4)
    found = crossover([0, 1, 2, 3], a, b, rng=0)
    assert (found.low, found.x, found.high) == pytest.approx((1.5, 1.5, 1.5))


def test_crossover_beyond_the_levels_is_an_infinite_end():
    a = normal(8, 4, seed=2) + np.array([2, 1, 0.5, 0.1])
    found = crossover([0, 1, 2, 3], a, np.zeros((8, 4)), rng=0)
    assert found.high == inf
    assert np.isfinite(found.low)
    assert 0 < found.share_after < 1
    assert found == crossover(
        [0, 1, 2, 3], a, np.zeros((8, 4)), rng=np.random.default_rng(0)
    )


@pytest.mark.parametrize("wins", range(9))
def test_probability_of_improvement_without_ties_is_clopper_pearson(wins):
    b = np.zeros(8)
    a = np.where(np.arange(8) < wins, -1.0, 1.0)
    found = probability_of_improvement(a, b)
    interval = oracle.binomtest(wins, 8).proportion_ci(0.95, "exact")
    assert found.value == wins / 8
    assert_allclose((found.low, found.high), interval, atol=1e-15)


def test_ties_count_half_and_widen_the_interval():
    found = probability_of_improvement([0, 0, 0, 1, 2], [1, 1, 0, 1, 0])
    low = oracle.binomtest(2, 5).proportion_ci(0.95, "exact").low
    high = oracle.binomtest(4, 5).proportion_ci(0.95, "exact").high
    assert found.value == 0.6
    assert_allclose((found.low, found.high), (low, high))


@pytest.mark.parametrize("shape", [(2, 1), (5, 3), (8, 6)])
def test_interquartile_mean_is_a_trimmed_mean(shape):
    scores = normal(*shape)
    expected = oracle.trim_mean(scores, 0.25, axis=None)
    for shared in (False, True):
        found = interquartile_mean(scores, rng=0, shared_seeds=shared, resamples=99)
        again = interquartile_mean(
            scores, rng=np.random.default_rng(0), shared_seeds=shared, resamples=99
        )
        assert found == again
        assert found.value == pytest.approx(expected)
        assert found.low <= found.value <= found.high


def test_strata_keep_cells_apart():
    # Cells that differ, seeds that do not: nothing is left to vary.
    scores = np.tile([0.0, 10.0, 100.0], (4, 1))
    for shared in (False, True):
        found = interquartile_mean(scores, rng=0, shared_seeds=shared)
        assert found.low == found.value == found.high


@pytest.mark.parametrize(("d", "n"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_for_a_difference_are_those_of_r(d, n):
    # power.t.test(delta = d, sd = 1, power = .8, type = "paired"), rounded up.
    assert seeds_needed(1, d, "difference") == n
    assert detectable(1, n, "difference") <= d < detectable(1, n - 1, "difference")


@pytest.mark.parametrize("n", [2, 5, 8, 30, 400])
@pytest.mark.parametrize("margin", [0.05, 0.5, 3.0])
def test_power_of_a_difference_and_of_non_inferiority_is_noncentral_t(n, margin):
    df, root = n - 1, sqrt(n) / 1.5
    two, one = oracle.t.ppf([0.975, 0.95], df)
    difference = oracle.nct.sf(two, df, margin * root)
    difference += np.nan_to_num(oracle.nct.cdf(-two, df, margin * root))  # far tail
    found = power_at(n, 1.5, margin, "difference")
    assert found == pytest.approx(difference, abs=3e-6)
    inferior = oracle.nct.sf(one, df, (margin - 0.1) * root)
    found = power_at(n, 1.5, margin, "non_inferiority", effect=0.1)
    assert found == pytest.approx(inferior, abs=3e-6)


@pytest.mark.parametrize("n", [2, 3, 8, 30, 400])
@pytest.mark.parametrize("margin", [0.05, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("effect", [0.0, 0.3, -1.2])
def test_power_of_tost_is_the_integral_over_the_sd(n, margin, effect):
    df, root, critical = n - 1, sqrt(n), oracle.t.ppf(0.95, n - 1)

    def integrand(s: float) -> float:
        inside = oracle.norm.cdf((margin - effect) * root - critical * s)
        inside -= oracle.norm.cdf(critical * s - (margin + effect) * root)
        density: float = inside * oracle.chi.pdf(s * sqrt(df), df) * sqrt(df)
        return density

    widest = min(margin * root / critical, 1 + 12 / sqrt(2 * df))
    peak = [1] if widest > 1 else None
    expected, _ = integrate.quad(integrand, 0, widest, points=peak, limit=200)
    found = power_at(n, 1, margin, "equivalence", effect=effect)
    assert found == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    ("margin", "n", "pilot"),
    [
        (2, 3, 0.56),
        (2, 5, 0.95),
        (2, 8, 1.0),
        (1, 5, 0.29),
        (1, 8, 0.64),
        (1, 10, 0.78),
    ],
)
def test_power_of_tost_is_that_of_the_pilot(margin, n, pilot):  # P
    found = power_at(n, 1, margin, "equivalence")
    assert found == pytest.approx(pilot, abs=0.005 + error(found, 3000))


def test_seeds_needed_gives_up_above_the_cap_and_outside_the_margins():
    assert seeds_needed(1, 0.05, "equivalence") is None
    assert seeds_needed(1, 0.5, "equivalence", cap=35) is None
    assert seeds_needed(1, 0.5, "equivalence", cap=36) == 36
    assert seeds_needed(1, 0.5, "equivalence", effect=0.6) is None
    assert seeds_needed(1, 0.5, "non_inferiority", effect=0.5) is None
    assert seeds_needed(1, 0.5, "non_inferiority", effect=-5) == 3


BAD = [0.1, np.nan, 0.2, 0.3]
ROWS = np.ones((4, 2))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mean_interval(BAD), r"values holds nan at \(1,\)"),
        (lambda: paired_t_test([1, inf]), r"differences holds inf at \(1,\)"),
        (lambda: tost(BAD, 1), "differences holds nan"),
        (lambda: non_inferiority(BAD, 1), "differences holds nan"),
        (lambda: sign_flip_test(BAD), "differences holds nan"),
        (lambda: holm([0.1, np.nan]), "p_values holds nan"),
        (lambda: slopes([0, 1], [[1, np.nan]]), r"y holds nan at \(0, 1\)"),
        (lambda: crossover([0, 1], ROWS, ROWS * inf, rng=0), "y_b holds inf"),
        (lambda: probability_of_improvement(BAD, BAD), "a holds nan"),
        (
            lambda: interquartile_mean(ROWS * np.nan, rng=0, shared_seeds=True),
            "scores holds nan",
        ),
        (lambda: bootstrap_interval([1, np.nan], 8), "resampled"),
        (lambda: mean_interval([]), "values has shape"),
        (lambda: mean_interval([[1, 2]]), "1 axes"),
        (lambda: paired_t_test([1]), "differences has shape"),
        (lambda: tost([1], 1), "differences has shape"),
        (lambda: tost([1, 2], 0), "margin is 0"),
        (lambda: tost([1, 2], 1, alpha=0.5), "alpha is 0.5"),
        (lambda: mean_interval([1, 2], 95), "confidence is 95"),
        (lambda: holm([0.1, 1.1]), "between 0 and 1"),
        (lambda: slopes([0, 1, 2], ROWS), "3 levels"),
        (lambda: slopes([0.1, 0.1], ROWS), "one level only"),
        (lambda: crossover([1, 0], ROWS, ROWS, rng=0), "must increase"),
        (lambda: crossover([0, 1], ROWS, ROWS[:3], rng=0), r"y_b \(3, 2\)"),
        (lambda: crossover([0, 1], ROWS[:1], ROWS[:1], rng=0), "y_a has shape"),
        (lambda: bootstrap_interval([1, 2], 1), "seeds is 1"),
        (lambda: probability_of_improvement([1, 2], [1]), "not paired"),
        (lambda: power_at(1, 1, 1, "equivalence"), "n is 1"),
        (lambda: power_at(8, 0, 1, "equivalence"), "sd is 0"),
        (lambda: power_at(8, 1, 1, "superiority"), "kind is 'superiority'"),
        (lambda: power_at(8, 1, 1, "difference", effect=1), "effect is given"),
        (lambda: power_at(8, 1, 1, "equivalence", effect=np.nan), "effect is nan"),
        (lambda: seeds_needed(1, 1, "equivalence", power=1), "power is 1"),
        (lambda: detectable(1, 8, "equivalence", power=80), "power is 80"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


# Properties

numbers = st.floats(-100, 100).map(lambda value: round(value, 3))
several = st.lists(numbers, min_size=2, max_size=12)
paired = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12)


@given(several, numbers, st.floats(0.01, 100))
def test_intervals_shift_and_scale_with_the_values(values, shift, scale):
    one = mean_interval(values)
    other = mean_interval(np.multiply(values, scale) + shift)
    assert one.low <= one.mean <= one.high
    for name in ("low", "mean", "high"):
        expected = getattr(one, name) * scale + shift
        assert getattr(other, name) == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(several, st.randoms(use_true_random=False))
def test_tests_ignore_order_and_sign(values, random):
    shuffled = random.sample(values, len(values))
    t, margin, flip = paired_t_test(values), tost(values, 3), sign_flip_test(values)
    for other in (shuffled, np.negative(values)):
        assert paired_t_test(other).p == pytest.approx(t.p, abs=1e-6)
        assert tost(other, 3).p == pytest.approx(margin.p, abs=1e-6)
        assert sign_flip_test(other).p == flip.p


@given(several, st.floats(0.1, 100), st.floats(0.01, 0.4))
def test_p_and_interval_agree(values, margin, alpha):
    both, upper = tost(values, margin, alpha), non_inferiority(values, margin, alpha)
    lower = non_inferiority(np.negative(values), margin, alpha)
    assert both.p == max(upper.p, lower.p)
    assert both.holds == (upper.holds and lower.holds)
    assume(abs(both.p - alpha) > 1e-6 and abs(upper.p - alpha) > 1e-6)
    assert both.holds == (both.p < alpha)
    assert upper.holds == (upper.p < alpha)
    t = paired_t_test(values, 1 - alpha)
    assume(t.sd > 1e-9 and abs(t.p - alpha) > 1e-6)
    assert (t.low > 0 or t.high < 0) == (t.p < alpha)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10), st.randoms())
def test_holm_is_monotone_and_between_p_and_bonferroni(p, random):
    adjusted, m = holm(p), len(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, np.multiply(p, m)) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    order = random.sample(range(m), m)
    assert_allclose(holm(np.take(p, order)), adjusted[order])


@given(paired)
def test_probability_of_improvement_mirrors_and_needs_only_ranks(pairs):
    a, b = np.transpose(pairs)
    found, mirrored = probability_of_improvement(a, b), probability_of_improvement(b, a)
    assert found.value == pytest.approx(1 - mirrored.value)
    assert (found.low, found.high) == pytest.approx(
        (1 - mirrored.high, 1 - mirrored.low)
    )
    assert found.low <= found.value <= found.high
    assert found == probability_of_improvement(a**3, b**3)


@settings(max_examples=30)
@given(st.integers(0, 1000), numbers, st.floats(0.1, 10))
def test_crossover_moves_with_x_alone(seed, shift, scale):
    x, a = np.arange(4), normal(5, 4, seed) + np.array([2, 1, -1, -2])
    b = normal(5, 4, seed + 1)
    one = crossover(x, a, b, rng=0, resamples=199)
    other = crossover(x + shift, a * scale + 3, b * scale + 3, rng=0, resamples=199)
    for name in ("x", "low", "high"):
        assert getattr(other, name) == pytest.approx(getattr(one, name) + shift)
    assert other.share_several == one.share_several


@settings(max_examples=30)
@given(st.integers(0, 1000), numbers, st.floats(0.1, 10), st.booleans())
def test_interquartile_mean_shifts_and_scales(seed, shift, scale, shared):
    scores = normal(5, 3, seed)
    one = interquartile_mean(scores, rng=0, shared_seeds=shared, resamples=99)
    other = interquartile_mean(
        scores * scale + shift, rng=0, shared_seeds=shared, resamples=99
    )
    for name in ("low", "value", "high"):
        assert getattr(other, name) == pytest.approx(getattr(one, name) * scale + shift)
    assert scores.min() <= one.low <= one.high <= scores.max()


@settings(max_examples=30, deadline=None)
@given(
    st.floats(0.1, 10),
    st.floats(0.3, 3),
    st.sampled_from(["difference", "equivalence", "non_inferiority"]),
    st.floats(0.5, 0.95),
)
def test_seeds_needed_is_the_least_that_detects(sd, ratio, kind, power):
    margin = sd * ratio
    n = seeds_needed(sd, margin, kind, power)
    assert detectable(sd, n, kind, power) <= margin * (1 + 1e-6)
    if n > 2:
        assert detectable(sd, n - 1, kind, power) > margin * (1 - 1e-6)


# Simulations: coverage, false positives, power


@pytest.mark.parametrize("n", [3, 5, 8, 10])
def test_t_interval_covers_a_normal_mean(n):
    sims = 4000
    found = [mean_interval(row) for row in normal(sims, n)]
    covered = share(i.low <= 0 <= i.high for i in found)
    assert covered == pytest.approx(0.95, abs=error(0.95, sims))


@pytest.mark.parametrize("n", [5, 10])
def test_t_interval_covers_less_of_a_skewed_mean(n):  # P: .88 to .92
    rows = np.random.default_rng(0).exponential(size=(4000, n))
    covered = share(i.low <= 1 <= i.high for i in map(mean_interval, rows))
    assert 0.87 < covered < 0.93


@pytest.mark.parametrize(
    ("n", "percentile", "expanded"),
    [(3, 0.75, 0.75), (5, 0.84, 0.92), (8, 0.88, 0.94), (10, 0.905, 0.95)],
)
def test_bootstrap_covers_too_little_and_expanded_less_so(n, percentile, expanded):
    # P: .73, .84, .88, .91; at n = 3 it is exactly 3/4, that of the range.
    sims, random = 3000, np.random.default_rng(5)
    counts = random.multinomial(n, np.full(n, 1 / n), 1000) / n
    plain = wide = 0
    for row in random.normal(size=(sims, n)):
        means = counts @ row
        low, high = np.quantile(means, [0.025, 0.975])
        plain += low <= 0 <= high
        low, high = bootstrap_interval(means, n)
        wide += low <= 0 <= high
    assert plain / sims == pytest.approx(percentile, abs=error(percentile, sims))
    assert wide / sims == pytest.approx(expanded, abs=error(expanded, sims))


def test_false_positives_of_the_paired_tests():
    sims, n = 4000, 8
    t = share(paired_t_test(row).p < 0.05 for row in normal(sims, n))
    assert t == pytest.approx(0.05, abs=error(0.05, sims))
    # The sign-flip test is exact whatever the symmetric law: 6 of 128 pairs of signs.
    heavy = np.random.default_rng(1).standard_cauchy((1500, n))
    flip = share(sign_flip_test(row).p < 0.05 for row in heavy)
    assert flip == pytest.approx(6 / 128, abs=error(6 / 128, 1500))


@pytest.mark.parametrize(
    ("n", "margin", "effect"), [(3, 2, 0), (5, 1, 0), (8, 1, 0.2), (8, 0.7, 0.7)]
)
def test_power_at_is_what_the_tests_have(n, margin, effect):
    # The last case is the false-positive rate: the truth lies on the margin.
    sims, rows = 4000, normal(4000, n) + effect
    cases = [
        ("equivalence", share(tost(row, margin).holds for row in rows)),
        ("non_inferiority", share(non_inferiority(row, margin).holds for row in rows)),
    ]
    for kind, found in cases:
        expected = power_at(n, 1, margin, kind, effect=effect)
        assert found == pytest.approx(expected, abs=error(expected, sims))
        if effect == margin:
            assert expected <= 0.05 + 1e-9
    found = share(paired_t_test(row - effect + margin).p < 0.05 for row in rows)
    expected = power_at(n, 1, margin, "difference")
    assert found == pytest.approx(expected, abs=error(expected, sims))


@pytest.mark.parametrize("common", [0.0, 0.8])
def test_holm_keeps_the_rate_of_any_error(common):
    # Four contrasts, three null, that may share an arm and with it their noise.
    sims, random = 4000, np.random.default_rng(0)
    z = sqrt(1 - common) * random.normal(size=(sims, 4))
    z += sqrt(common) * random.normal(size=(sims, 1)) + [0, 0, 0, 5]
    p = 2 * oracle.norm.sf(np.abs(z))
    unadjusted = (p[:, :3] < 0.05).any(axis=1).mean()
    rejected = np.array([holm(row) for row in p]) < 0.05
    assert rejected[:, :3].any(axis=1).mean() <= 0.05 + error(0.05, sims)
    assert unadjusted > 0.07
    assert rejected[:, 3].mean() > 0.95


def test_paired_slopes_are_free_of_what_a_seed_shares():
    sims, x = 2000, np.arange(6)
    random = np.random.default_rng(0)
    seed_effect = 10 * random.normal(size=(sims, 8, 1))
    y = seed_effect + random.normal(size=(sims, 8, 6))
    flat = share(paired_t_test(slopes(x, run)).p < 0.05 for run in y)
    assert flat == pytest.approx(0.05, abs=error(0.05, sims))
    # A slope has sd 1 / sqrt(sum (x - mean)^2) = 1 / sqrt(17.5).
    steep = share(paired_t_test(slopes(x, run + 0.2 * x)).p < 0.05 for run in y)
    expected = power_at(8, 1 / sqrt(17.5), 0.2, "difference")
    assert steep == pytest.approx(expected, abs=error(expected, sims))


def crossover_coverage(n: int, sims: int) -> float:
    """Noise and curve of the size met in small batches: error against log2 of batch."""
    random = np.random.default_rng(n)
    x, mean, truth = (
        np.arange(6),
        np.array([1.5, 0.9, 0.4, -0.2, -0.5, -0.6]),
        2 + 2 / 3,
    )
    covered = 0
    for seed in range(sims):
        seed_effect = 3 * random.normal(size=(n, 1))
        a = mean + seed_effect + 0.45 * random.normal(size=(n, 6))
        found = crossover(x, a, np.tile(seed_effect, 6), rng=seed, resamples=999)
        covered += found.low <= truth <= found.high
    return covered / sims


@pytest.mark.parametrize(("n", "expected"), [(3, 0.77), (8, 0.94)])
def test_crossover_covers_the_crossing_from_eight_seeds(n, expected):
    assert crossover_coverage(n, 600) == pytest.approx(
        expected, abs=error(expected, 600)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "expected"), [(3, 0.76), (5, 0.92), (8, 0.94), (16, 0.94)]
)
def test_crossover_coverage_with_many_simulations(n, expected):
    found = crossover_coverage(n, 3000)
    assert found == pytest.approx(expected, abs=error(expected, 3000))


@pytest.mark.parametrize("cut", [-inf, 0.0, 0.8])
def test_interval_of_the_probability_of_improvement_covers(cut):
    # Exact intervals cover at least the nominal level; ties where both are cut off.
    sims, n, random = 2000, 8, np.random.default_rng(0)
    a = np.maximum(random.normal(-0.5, 1, (sims, n)), cut)
    b = np.maximum(random.normal(0, 1, (sims, n)), cut)
    truth = ((a < b).mean() + (a <= b).mean()) / 2
    found = [probability_of_improvement(*pair) for pair in zip(a, b, strict=True)]
    assert share(i.low <= truth <= i.high for i in found) >= 0.95 - error(0.95, sims)
    assert np.mean([i.value for i in found]) == pytest.approx(truth)


def test_interquartile_mean_covers_if_told_that_seeds_are_shared():
    sims, n, cells = 300, 8, np.linspace(0, 1, 6)
    random = np.random.default_rng(0)

    def scores(seed_sd: float, n: int = n) -> NDArray[np.float64]:
        own = sqrt(0.25 - seed_sd**2) * random.normal(size=(n, 6))
        drawn: NDArray[np.float64] = cells + own + seed_sd * random.normal(size=(n, 1))
        return drawn

    def coverage(seed_sd: float, shared: bool) -> float:
        found = [
            interquartile_mean(
                scores(seed_sd), rng=s, shared_seeds=shared, resamples=499
            )
            for s in range(sims)
        ]
        return share(i.low <= truth <= i.high for i in found)

    truth = 0.5  # the law of all runs is symmetric about it
    assert coverage(0, shared=False) == pytest.approx(0.95, abs=error(0.95, sims))
    assert coverage(0.35, shared=True) == pytest.approx(0.94, abs=error(0.94, sims))
    assert coverage(0.35, shared=False) < 0.85
