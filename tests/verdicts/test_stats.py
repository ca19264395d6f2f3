"""The statistics of verdicts against scipy, published values and properties."""

from collections.abc import Callable
from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats as oracle
from simulations_made import normal, tolerance

from normbench.stats import (
    bootstrap_interval,
    crossover,
    holm,
    mean_interval,
    non_inferiority,
    share_above,
    sign_flip_test,
    t_test,
    tost,
)

SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
"""Additional hours of sleep, one drug minus another (Student 1908; R's `sleep`)."""

MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
"""Heights of Darwin's maize, crossed minus self-fertilized (Fisher 1935)."""

DRAWN = np.random.default_rng(7).normal(0.3, 1, 9)


def test_t_interval_and_tests_equal_scipy():
    for values in (SLEEP, MAIZE, [3.0, 5.0], DRAWN):
        reference = oracle.ttest_1samp(values, 0)
        assert t_test(values) == pytest.approx(reference.pvalue)
        for confidence in (0.8, 0.95):
            result = mean_interval(values, confidence)
            interval = reference.confidence_interval(confidence)
            assert_allclose((result.low, result.high), interval)
            moments = np.mean(values), np.std(values, ddof=1)
            assert (result.mean, result.sd) == pytest.approx(moments)
    for margin in (0.3, 1.0, 2.0):
        upper = oracle.ttest_1samp(DRAWN, margin, alternative="less").pvalue
        lower = oracle.ttest_1samp(DRAWN, -margin, alternative="greater").pvalue
        assert tost(DRAWN, margin) == pytest.approx(max(upper, lower))
        assert non_inferiority(DRAWN, margin) == pytest.approx(upper)


def test_student_sleep():
    result = mean_interval(SLEEP)
    assert result.mean == pytest.approx(1.58)
    assert t_test(SLEEP) == pytest.approx(0.002833, abs=5e-7)
    assert (result.low, result.high) == pytest.approx((0.7001142, 2.4598858))


def test_equal_differences_have_an_interval_of_no_width():
    zero, one = mean_interval([0, 0, 0]), mean_interval([1, 1, 1])
    assert (zero.low, zero.high, t_test([0, 0, 0])) == (0, 0, 1)
    assert (one.low, one.high, t_test([1, 1, 1])) == (1, 1, 0)
    assert (tost([0, 0, 0], 0.5), tost([1, 1, 1], 1)) == (0, 0.5)
    assert sign_flip_test([1, 1, 1]) == 0.25


def test_sign_flip_equals_fisher_and_scipy():
    # The Design of Experiments, section 21: 863 of 32,768 in each direction.
    assert sign_flip_test(MAIZE) == 2 * 863 / 32768
    for n, least in ((1, 1), (5, 0.0625), (6, 0.03125), (8, 2**-7)):
        assert sign_flip_test(np.arange(1, n + 1)) == least
    for values in (DRAWN, DRAWN.round(), [1, -1, 2, 0, 3]):
        reference = oracle.permutation_test(
            (values,), np.sum, permutation_type="samples", n_resamples=inf
        )
        assert sign_flip_test(values) == pytest.approx(reference.pvalue)


def test_sign_flip_samples_above_sixteen():
    values = np.random.default_rng(1).normal(0.4, 1, 18)
    bits = np.arange(2**18)[:, None] >> np.arange(18) & 1
    sums = np.abs((1 - 2 * bits) @ values)
    exact = (sums >= abs(values.sum()) - 1e-9).mean()
    result = sign_flip_test(values, rng=3)
    assert result == pytest.approx(exact, abs=tolerance(exact, 99_999))
    assert result == sign_flip_test(values, rng=np.random.default_rng(3))
    assert sign_flip_test(values + 100, assignments=999) == 1 / 1000


def test_holm():
    for p, adjusted in (
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),
        # Order kept, capped at 1, as R's p.adjust(p, "holm").
        ([0.04, 0.01, 0.03, 0.005], [0.06, 0.03, 0.06, 0.02]),
        ([0.6, 0.9], [1, 1]),
        ([0.2], [0.2]),
    ):
        assert_allclose(holm(p), adjusted)


def test_bootstrap_interval_is_hesterbergs_expanded_percentiles():
    resampled = normal(1, 99_999)[0]
    for n in (5, 10, 100_000):
        tail = oracle.norm.cdf(sqrt(n / (n - 1)) * oracle.t.ppf(0.025, n - 1))
        expected = np.quantile(resampled, [tail, 1 - tail])
        assert_allclose(bootstrap_interval(resampled, n), expected, rtol=2e-3)
    assert_allclose(bootstrap_interval(resampled, 10**5), [-1.96, 1.96], atol=0.02)


def test_crossover_of_curves_without_noise():
    for curve, expected in (
        ([3, 1, -1, -2], 2.0),  # between levels
        ([3, 2, 0, -1], 3.0),  # at a level
        ([1, -3, 2, -2], 0.25),  # the first of several
        ([4, 3, 2, 1], inf),
        ([-1, -1, 2, 3], -inf),
    ):
        a = np.tile(curve, (4, 1)) + 5.0
        result = crossover([0, 1, 3, 4], a, np.full((4, 4), 5.0))
        assert result.x == result.low == result.high == expected, curve
        assert result.share_before == (expected == -inf), curve
        assert result.share_after == (expected == inf), curve
        assert result.share_several == (curve == [1, -3, 2, -2]), curve


def test_crossover_pairs_the_seeds():
    # A seed moves both curves alike by far more than they differ.
    offsets = 100 * normal(8, 1)
    a, b = offsets + np.array([1, 0.5, -0.5, -1]), offsets + np.zeros(4)
    result = crossover([0, 1, 2, 3], a, b)
    assert (result.low, result.x, result.high) == pytest.approx((1.5, 1.5, 1.5))


def test_crossover_beyond_the_levels_is_an_infinite_end():
    a = normal(8, 4, seed=2) + np.array([2, 1, 0.5, 0.1])
    result = crossover([0, 1, 2, 3], a, np.zeros((8, 4)), rng=0)
    assert result.high == inf
    assert np.isfinite(result.low)
    assert 0 < result.share_after < 1
    generator = np.random.default_rng(0)
    assert result == crossover([0, 1, 2, 3], a, np.zeros((8, 4)), rng=generator)


def test_the_share_above_zero_has_a_clopper_pearson_interval():
    for wins in range(9):
        result = share_above(np.where(np.arange(8) < wins, 1.0, -1.0))
        interval = oracle.binomtest(wins, 8).proportion_ci(0.95, "exact")
        assert result.value == wins / 8
        assert_allclose((result.low, result.high), interval, atol=1e-15)
    # Ties count half, and widen the interval.
    result = share_above([1, 1, 0, 0, -2])
    low = oracle.binomtest(2, 5).proportion_ci(0.95, "exact").low
    high = oracle.binomtest(4, 5).proportion_ci(0.95, "exact").high
    assert result.value == 0.6
    assert_allclose((result.low, result.high), (low, high))


BAD = [0.1, np.nan, 0.2, 0.3]
ROWS = np.ones((4, 2))
WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: mean_interval(BAD), r"values holds nan at \(1,\)"),
    (lambda: t_test([1, inf]), r"differences holds inf at \(1,\)"),
    (lambda: tost(BAD, 1), "differences holds nan"),
    (lambda: non_inferiority(BAD, 1), "differences holds nan"),
    (lambda: sign_flip_test(BAD), "differences holds nan"),
    (lambda: holm([0.1, np.nan]), "p_values holds nan"),
    (lambda: crossover([0, 1], ROWS, ROWS * inf), "y_b holds inf"),
    (lambda: share_above(BAD), "values holds nan"),
    (lambda: bootstrap_interval([1, np.nan], 8), "resampled"),
    (lambda: mean_interval([1]), "values has shape"),
    (lambda: mean_interval([[1, 2]]), "1 axes"),
    (lambda: t_test([1]), "differences has shape"),
    (lambda: tost([1], 1), "differences has shape"),
    (lambda: tost([1, 2], 0), "margin is 0"),
    (lambda: mean_interval([1, 2], 95), "confidence is 95"),
    (lambda: holm([0.1, 1.1]), "between 0 and 1"),
    (lambda: crossover([1, 0], ROWS, ROWS), "must increase"),
    (lambda: crossover([0, 1], ROWS, ROWS[:3]), r"y_b \(3, 2\)"),
    (lambda: crossover([0, 1], ROWS[:1], ROWS[:1]), "y_a has shape"),
    (lambda: bootstrap_interval([1, 2], 1), "seeds is 1"),
]


def test_bad_input_is_named() -> None:
    for call, message in WRONG:
        with pytest.raises(ValueError, match=message):
            call()


numbers = st.floats(-100, 100).map(lambda value: round(value, 3))
several = st.lists(numbers, min_size=2, max_size=12)


@given(several, numbers, st.floats(0.01, 100), st.randoms(use_true_random=False))
def test_statistics_shift_and_scale_and_ignore_order_and_sign(
    values, shift, scale, random
):
    one = mean_interval(values)
    other = mean_interval(np.multiply(values, scale) + shift)
    assert one.low <= one.mean <= one.high
    for name in ("low", "mean", "high"):
        expected = getattr(one, name) * scale + shift
        assert getattr(other, name) == pytest.approx(expected, rel=1e-9, abs=1e-6)
    for same in (random.sample(values, len(values)), np.negative(values)):
        assert t_test(same) == pytest.approx(t_test(values), abs=1e-6)
        assert tost(same, 3) == pytest.approx(tost(values, 3), abs=1e-6)
        assert sign_flip_test(same) == sign_flip_test(values)
    above, below = share_above(values), share_above(np.negative(values))
    assert above.value == pytest.approx(1 - below.value)
    assert (above.low, above.high) == pytest.approx((1 - below.high, 1 - below.low))
    assert above.low <= above.value <= above.high


@given(several, st.floats(0.1, 100), st.floats(0.01, 0.4))
def test_p_and_interval_agree(values, margin, alpha):
    both, upper = tost(values, margin), non_inferiority(values, margin)
    assert both == max(upper, non_inferiority(np.negative(values), margin))
    narrow, wide = (mean_interval(values, 1 - k * alpha) for k in (2, 1))
    assume(abs(both - alpha) > 1e-6 and abs(upper - alpha) > 1e-6)
    assert (-margin < narrow.low and narrow.high < margin) == (both < alpha)
    assert (narrow.high < margin) == (upper < alpha)
    p = t_test(values)
    assume(wide.sd > 1e-9 and abs(p - alpha) > 1e-6)
    assert (wide.low > 0 or wide.high < 0) == (p < alpha)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10), st.randoms())
def test_holm_is_monotone_and_between_p_and_bonferroni(p, random):
    adjusted, m = holm(p), len(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, np.multiply(p, m)) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    order = random.sample(range(m), m)
    assert_allclose(holm(np.take(p, order)), adjusted[order])


@settings(max_examples=30)
@given(st.integers(0, 1000), numbers, st.floats(0.1, 10))
def test_crossover_moves_with_x_alone(seed, shift, scale):
    x, a = np.arange(4), normal(5, 4, seed) + np.array([2, 1, -1, -2])
    b = normal(5, 4, seed + 1)
    one = crossover(x, a, b, resamples=199)
    other = crossover(x + shift, a * scale + 3, b * scale + 3, resamples=199)
    for name in ("x", "low", "high"):
        assert getattr(other, name) == pytest.approx(getattr(one, name) + shift)
    assert other.share_several == one.share_several
