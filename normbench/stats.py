"""The statistics of verdicts: functions on arrays with one number per seed.

Arms are paired by seed. `differences` are the costs of the new arm minus those of the
reference, one per seed. A cost is a number that is better if it is smaller. A score is
better if it is larger, so a caller must negate it. The mean of the differences has a t
interval (Student 1908). The t interval has the right coverage for normal differences at
any n. The coverage of a percentile bootstrap interval is too low if n is below 20.
A difference that is not significant is not a proof of equality: equivalence has its own
test (`tost`).

All functions raise ValueError for numbers that are not finite and for too few seeds. So
a caller must decide before the call how a diverged run counts. Functions that resample
have a parameter `rng`, a `numpy.random.Generator` or a seed. The same `rng` gives the
same result. This module imports only `scipy.special`, because importing `scipy.stats`
takes over a second.
"""

from dataclasses import dataclass
from math import copysign, inf, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]
Rng = np.random.Generator | int


@dataclass(frozen=True)
class MeanInterval:
    """A mean with its t interval, and the standard deviation of the values."""

    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class Share:
    """A share of the seeds with its exact interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Crossover:
    """The level `x` at which curve a, which starts above curve b, meets curve b.

    `x` is -inf if a is not above b at the first level, and inf if a is above b at all
    levels. `share_before` is the share of the resamples with the result -inf, and
    `share_after` the share with inf. `share_several` is the share of the resamples with
    more than one crossing; only the first crossing counts. If `share_several` is large,
    the curves are too noisy or too flat for a meaningful crossover.
    """

    x: float
    low: float
    high: float
    share_before: float
    share_after: float
    share_several: float


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> MeanInterval:
    """Return the mean of `values`, shape (n >= 2,), and mean +- t(n-1) sd / sqrt(n)."""
    x = _finite("values", values, ndim=1, at_least=2)
    _fraction("confidence", confidence)
    mean, sd = float(x.mean()), float(x.std(ddof=1))
    half = half_width(sd, len(x), confidence)
    return MeanInterval(mean, sd, mean - half, mean + half)


def half_width(sd: float, n: int, confidence: float = 0.95) -> float:
    """Return half the width of a t interval, `n` >= 2 values: t(n-1) sd / sqrt(n)."""
    return t_quantile(n - 1, (1 + confidence) / 2) * sd / sqrt(n)


def t_quantile(df: int, q: float) -> float:
    """Return quantile `q` of Student's t distribution with `df` degrees of freedom."""
    return float(special.stdtrit(df, q))


def t_test(differences: ArrayLike) -> float:
    """Return the two-sided p value of the paired t test of `differences`, (n >= 2,).

    The null hypothesis is that the mean is zero. t = mean / (sd / sqrt(n)) has n - 1
    degrees of freedom (Student 1908). If all differences are equal, sd is 0; then p is
    1 if the differences are zero, and 0 otherwise. The test assumes normal differences;
    `sign_flip_test` does not assume them.
    """
    d = _finite("differences", differences, ndim=1, at_least=2)
    return 2 * float(special.stdtr(len(d) - 1, -abs(_t_statistic(d, 0))))


def tost(differences: ArrayLike, margin: float) -> float:
    """Return the p value of the equivalence test of `differences`, shape (n >= 2,).

    The null hypothesis is that the mean is outside +-`margin`. p is the larger p value
    of two one-sided t tests (Schuirmann 1987; Lakens 2017). p is below alpha if and
    only if the interval of confidence 1 - 2 alpha is within the margins.
    """
    d = _finite("differences", differences, ndim=1, at_least=2)
    return max(non_inferiority(d, margin), non_inferiority(-d, margin))


def non_inferiority(differences: ArrayLike, margin: float) -> float:
    """Return the p value of the non-inferiority test of `differences`, (n >= 2,).

    The null hypothesis is that the new arm is worse by `margin` or more. This is one of
    the two tests of `tost`. p is below alpha if and only if the upper end of the
    interval of confidence 1 - 2 alpha is below the margin.
    """
    d = _finite("differences", differences, ndim=1, at_least=2)
    if not 0 < margin < inf:
        raise ValueError(f"margin is {margin}; it must be a positive number")
    return float(special.stdtr(len(d) - 1, _t_statistic(d, margin)))


def sign_flip_test(
    differences: ArrayLike, *, rng: Rng = 0, assignments: int = 99_999
) -> float:
    """Return the two-sided p value of the sign-flip test of `differences`, (n,).

    The null hypothesis is that the differences are symmetric about zero. p is the share
    of sign assignments whose |sum| is at least the observed |sum| (Fisher 1935). For
    n <= 16, all 2^n assignments are counted, so p is at least 2 / 2^n (.0625 at n = 5,
    .031 at n = 6). For larger n, `assignments` random sign assignments and the observed
    assignment are counted (Phipson & Smyth 2010). Only this case uses `rng`.
    """
    d = _finite("differences", differences, ndim=1)
    n = len(d)
    is_exact = n <= 16
    if is_exact:
        # Row i has the lowest n bits of i; a bit of 1 flips the sign of a difference.
        # The last sign stays: flipping all signs of an assignment gives the same |sum|.
        flips = np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1
    else:
        flips = np.random.default_rng(rng).integers(2, size=(assignments, n))
    sums = np.abs((1 - 2 * flips) @ d)
    # The tolerance is for sums that are equal except for rounding errors.
    extreme = int((sums >= abs(d.sum()) - 1e-12 * np.abs(d).sum()).sum())
    return extreme / len(flips) if is_exact else (extreme + 1) / (assignments + 1)


def holm(p_values: ArrayLike) -> Array:
    """Return adjusted p values, shape (m,), in the same order (Holm 1979, step-down).

    The j-th smallest p value is p_(j). The i-th smallest p value becomes the maximum of
    (m - j + 1) p_(j) over j <= i, but at most 1. If every hypothesis with an adjusted
    value <= alpha is rejected, the probability of any wrong rejection is <= alpha. The
    tests may depend on each other.
    """
    p = _finite("p_values", p_values, ndim=1)
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"p_values must lie between 0 and 1, not {p.tolist()}")
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def share_above(values: ArrayLike, confidence: float = 0.95) -> Share:
    """Return the share of `values`, shape (n,), above 0. A 0 counts half.

    If each value says by how much one arm is better with one seed, the share estimates
    the probability of improvement (Bouthillier 2021). The interval is exact (Clopper &
    Pearson 1934). A 0 counts as a loss for the lower end and as a win for the upper
    end. If all of eight values are above 0, the interval is (.63, 1).
    """
    x = _finite("values", values, ndim=1)
    _fraction("confidence", confidence)
    n, tail = len(x), (1 - confidence) / 2
    wins, wins_and_ties = int((x > 0).sum()), int((x >= 0).sum())
    low, high = 0.0, 1.0
    if wins > 0:
        low = float(special.betaincinv(wins, n - wins + 1, tail))
    if wins_and_ties < n:
        losses = n - wins_and_ties
        high = float(special.betaincinv(wins_and_ties + 1, losses, 1 - tail))
    return Share((wins + wins_and_ties) / (2 * n), low, high)


def bootstrap_interval(
    resampled: ArrayLike, seeds: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the expanded percentile interval of a statistic of n = `seeds` seeds.

    `resampled` are the values of the statistic in bootstrap resamples of the seeds. The
    percentile interval (Efron 1979) is too short if n is small, for two reasons: the
    standard deviation of a resample is sqrt((n-1)/n) times that of the sample, and the
    interval uses normal instead of t quantiles. The expanded interval uses the
    percentiles Phi(-+ sqrt(n/(n-1)) t(n-1)), which are right for a mean (Hesterberg
    2015). Phi is the normal distribution function, t(n-1) a quantile (`t_quantile`).

    Both ends are values of resamples, so the interval cannot be wider than the range of
    these values. For the mean of normal values, the coverage of a nominal .95 interval
    is

        n                       3    5    8    10
        expanded percentiles  .75  .92  .94   .95
        plain percentiles     .75  .84  .88   .90
    """
    if seeds < 2:
        raise ValueError(f"seeds is {seeds}: an interval needs at least 2")
    _fraction("confidence", confidence)
    ordered = np.sort(np.asarray(resampled, np.float64))
    if ordered.ndim != 1 or not len(ordered) or np.isnan(ordered).any():
        raise ValueError("resampled must be one row of numbers, infinite ones allowed")
    t = t_quantile(seeds - 1, (1 - confidence) / 2)
    # The number of resamples below the lower end, and above the upper end.
    outside = int(len(ordered) * special.ndtr(sqrt(seeds / (seeds - 1)) * t))
    return float(ordered[outside]), float(ordered[-1 - outside])


def crossover(
    x: ArrayLike,
    y_a: ArrayLike,
    y_b: ArrayLike,
    *,
    rng: Rng = 0,
    confidence: float = 0.95,
    resamples: int = 9_999,
) -> Crossover:
    """Return the first x at which the mean of `y_a` is not above the mean of `y_b`.

    `x`, shape (levels,), increases; it may be log2 of the batch size. `y_a` and `y_b`,
    shape (n >= 2, levels), are paired: row i of both has the same seed. `y_a` should be
    the curve that is above at the first level. Means are interpolated linearly between
    levels.

    The interval is the `bootstrap_interval` over seeds. A resampled seed keeps all
    levels of both arms. An end of -inf or inf is outside the levels.
    """
    levels = _finite("x", x, ndim=1, at_least=2)
    if (np.diff(levels) <= 0).any():
        raise ValueError(f"x must increase, not {levels.tolist()}")
    a = _finite("y_a", y_a, ndim=2, at_least=2)
    b = _finite("y_b", y_b, ndim=2, at_least=2)
    if not a.shape == b.shape == (len(a), len(levels)):
        raise ValueError(
            f"y_a has shape {a.shape} and y_b {b.shape}; both must be "
            f"(seeds, levels), and x has {len(levels)} levels"
        )
    n = len(a)
    # counts[r, i] is how often resample r contains seed i.
    counts = np.random.default_rng(rng).multinomial(n, np.full(n, 1 / n), resamples)
    means = counts @ (a - b) / n
    crossings = _crossings(levels, means)
    low, high = bootstrap_interval(crossings, n, confidence)
    changes = np.diff(means > 0, axis=1).sum(axis=1)
    return Crossover(
        x=float(_crossings(levels, (a - b).mean(axis=0, keepdims=True))[0]),
        low=low,
        high=high,
        share_before=float((crossings == -inf).mean()),
        share_after=float((crossings == inf).mean()),
        share_several=float((changes > 1).mean()),
    )


def _crossings(x: Array, d: Array) -> Array:
    """Return for each row of `d`, (m, levels), the first x where it is not positive.

    A row is interpolated linearly between levels. The result is -inf if the row is not
    positive at the first level, and inf if it is positive at all levels.
    """
    is_below = d <= 0
    first = np.where(is_below.any(axis=1), is_below.argmax(axis=1), len(x))
    right = np.clip(first, 1, len(x) - 1)  # the level at the right of the crossing
    rows = np.arange(len(d))
    left_value, right_value = d[rows, right - 1], d[rows, right]
    is_inner = (first > 0) & (first < len(x))
    # 1 prevents a division by 0 in rows whose result is -inf or inf.
    drop = np.where(is_inner, left_value - right_value, 1)
    crossing = x[right - 1] + (x[right] - x[right - 1]) * left_value / drop
    return np.where(is_inner, crossing, np.where(first == 0, -inf, inf))


def _t_statistic(d: Array, expected: float) -> float:
    """Return (mean of `d` - `expected`) / (sd / sqrt(n)); +-inf or 0 if sd is 0."""
    mean, sd = float(d.mean()) - expected, float(d.std(ddof=1))
    if sd == 0:
        return 0.0 if mean == 0 else copysign(inf, mean)
    return mean / (sd / sqrt(len(d)))


def _finite(name: str, values: ArrayLike, *, ndim: int, at_least: int = 1) -> Array:
    """Return `values` as a float64 array with at least `at_least` rows.

    Raises ValueError for another number of axes, too few rows, or nan or infinity.
    """
    array = np.asarray(values, np.float64)
    if array.ndim != ndim:
        raise ValueError(f"{name} has shape {array.shape}; it must have {ndim} axes")
    if len(array) < at_least or not array.size:
        raise ValueError(f"{name} has shape {array.shape}: too few, under {at_least}")
    positions = np.argwhere(~np.isfinite(array))
    if len(positions):
        first = tuple(positions[0].tolist())
        raise ValueError(f"{name} holds {array[first]} at {first}: not a finite number")
    return array


def _fraction(name: str, value: float) -> None:
    """Raise ValueError unless 0 < `value` < 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value}; it must be between 0 and 1")
