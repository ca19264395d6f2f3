"""The statistics of verdicts: pure functions on arrays of numbers, one per seed.

Arms are paired by seed: `differences` are new minus reference, seed by seed, of a cost
(lower is better; negate a score). Their mean has a t interval (Student 1908), right for
normal differences at any n, where a percentile bootstrap covers too little below
n = 20. "Not significant" is never "equal": equivalence has a test of its own (`tost`).

Every function raises ValueError for numbers that are not finite and for fewer seeds
than it needs: callers decide beforehand what a diverged run is worth. Functions that
resample take a `numpy.random.Generator` or a seed for one, and are deterministic given
that. `scipy.stats` takes more than a second to import, so only `scipy.special` is.
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
    """A mean, the standard deviation of the values, and the mean's t interval."""

    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class Share:
    """A share of the seeds, with its exact interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Crossover:
    """Where curve a, above b at first, meets it; -inf: before, inf: after all levels.

    `share_before` and `share_after` of the resamples have no crossing, on that side.
    `share_several` have more than one: the first counts, and the curves are too noisy
    or too flat for "the" crossover to mean much.
    """

    x: float
    low: float
    high: float
    share_before: float
    share_after: float
    share_several: float


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> MeanInterval:
    """Mean of `values`, shape (n >= 2,), with mean +- t(n-1) sd / sqrt(n)."""
    x = _finite("values", values, ndim=1, at_least=2)
    _fraction("confidence", confidence)
    mean, sd = float(x.mean()), float(x.std(ddof=1))
    half = half_width(sd, len(x), confidence)
    return MeanInterval(mean, sd, mean - half, mean + half)


def half_width(sd: float, n: int, confidence: float = 0.95) -> float:
    """Half of the t interval of a mean over `n` >= 2 values: t(n-1) sd / sqrt(n)."""
    return t_quantile(n - 1, (1 + confidence) / 2) * sd / sqrt(n)


def t_quantile(df: int, q: float) -> float:
    """The `q` quantile of Student's t distribution with `df` degrees of freedom."""
    return float(special.stdtrit(df, q))


def t_test(differences: ArrayLike) -> float:
    """Two-sided p of the paired t test: is the mean of `differences` (n >= 2,) zero?

    t = mean / (sd / sqrt(n)) with n - 1 degrees of freedom (Student 1908). Equal
    differences have sd 0, and then p is 1 if they are zero and 0 if not: that follows
    from the normal model; `sign_flip_test` says what so many seeds show without it.
    """
    d = _finite("differences", differences, ndim=1, at_least=2)
    return 2 * float(special.stdtr(len(d) - 1, -abs(_t_statistic(d, 0))))


def tost(differences: ArrayLike, margin: float) -> float:
    """p of equivalence: is the mean of `differences` (n >= 2,) within +-`margin`?

    The larger p of two one-sided t tests (Schuirmann 1987; Lakens 2017). It is below
    alpha if and only if the interval of confidence 1 - 2 alpha is within the margins.
    """
    d = _finite("differences", differences, ndim=1, at_least=2)
    return max(non_inferiority(d, margin), non_inferiority(-d, margin))


def non_inferiority(differences: ArrayLike, margin: float) -> float:
    """p of: new is worse than reference by less than `margin`. One half of `tost`.

    `differences`, shape (n >= 2,), are of a cost. p is below alpha if and only if the
    upper end of the interval of confidence 1 - 2 alpha is below the margin.
    """
    d = _finite("differences", differences, ndim=1, at_least=2)
    if not 0 < margin < inf:
        raise ValueError(f"margin is {margin}; it must be a positive number")
    return float(special.stdtr(len(d) - 1, _t_statistic(d, margin)))


def sign_flip_test(
    differences: ArrayLike, *, rng: Rng = 0, assignments: int = 99_999
) -> float:
    """Two-sided p: are `differences`, shape (n,), symmetric about zero?

    p is the share of the assignments of signs whose |sum| is at least the observed one
    (Fisher 1935): of all 2^n for n <= 16, so never below 2 / 2^n (.0625 at n = 5, .031
    at n = 6). Above, of so many random ones, the observed one counted too (Phipson &
    Smyth 2010); only then is `rng` used.
    """
    d = _finite("differences", differences, ndim=1)
    n = len(d)
    exact = n <= 16
    if exact:  # the last sign never flips: the other half of the 2^n mirrors this one
        flips = np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1
    else:
        flips = np.random.default_rng(rng).integers(2, size=(assignments, n))
    sums = np.abs((1 - 2 * flips) @ d)
    # Sums that tie in exact arithmetic may differ in the last bits.
    extreme = int((sums >= abs(d.sum()) - 1e-12 * np.abs(d).sum()).sum())
    return extreme / len(flips) if exact else (extreme + 1) / (assignments + 1)


def holm(p_values: ArrayLike) -> Array:
    """Adjusted p values, shape (m,), in the order given (Holm 1979, step-down).

    The i-th smallest of m becomes the largest of (m - j + 1) p_(j) over j <= i, at most
    1. Whoever rejects where this is <= alpha has a probability <= alpha of any error,
    however the tests depend on each other.
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
    """The share of `values`, shape (n,), above 0, where a 0 counts half.

    Of paired differences of a cost it is the probability of improvement over pairs
    (Bouthillier 2021). The interval is exact (Clopper & Pearson 1934): zeros count as
    losses for its lower end and as wins for its upper one. 8 of 8 give (.63, 1).
    """
    x = _finite("values", values, ndim=1)
    _fraction("confidence", confidence)
    n, tail = len(x), (1 - confidence) / 2
    wins, at_most = int((x > 0).sum()), int((x >= 0).sum())
    low = special.betaincinv(wins, n - wins + 1, tail) if wins else 0
    high = special.betaincinv(at_most + 1, n - at_most, 1 - tail) if at_most < n else 1
    return Share((wins + at_most) / (2 * n), float(low), float(high))


def bootstrap_interval(
    resampled: ArrayLike, seeds: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Expanded percentile interval of a statistic over resamples of `seeds` seeds.

    A percentile interval (Efron 1979) is too short at small n: the spread of a resample
    is sqrt((n-1)/n) of the sample's, and its tails are a normal's. So the percentiles
    are those at Phi(-+ sqrt(n/(n-1)) t(n-1)), as if the statistic were a mean
    (Hesterberg 2015). No such interval reaches past the most extreme resample: of a
    normal mean a nominal .95 covers .75 at n = 3, .92 at 5, .94 at 8, .95 from 10 on
    (plain percentiles .75, .84, .88, and .90 at 10).
    """
    if seeds < 2:
        raise ValueError(f"seeds is {seeds}: an interval needs at least 2")
    _fraction("confidence", confidence)
    ordered = np.sort(np.asarray(resampled, np.float64))
    if ordered.ndim != 1 or not len(ordered) or np.isnan(ordered).any():
        raise ValueError("resampled must be one row of numbers, infinite ones allowed")
    t = t_quantile(seeds - 1, (1 - confidence) / 2)
    skip = int(len(ordered) * special.ndtr(sqrt(seeds / (seeds - 1)) * t))
    return float(ordered[skip]), float(ordered[-1 - skip])


def crossover(
    x: ArrayLike,
    y_a: ArrayLike,
    y_b: ArrayLike,
    *,
    rng: Rng = 0,
    confidence: float = 0.95,
    resamples: int = 9_999,
) -> Crossover:
    """The first x at which the mean of `y_a` is no longer above the mean of `y_b`.

    `x`, shape (levels,), increases (log2 of a batch size, say, and so is the result);
    `y_a` and `y_b`, shape (n >= 2, levels), are paired: row i is the same seed. Means
    are interpolated linearly between levels. Give as a the curve that should be above
    at the left. The interval is that of `bootstrap_interval` over seeds, resampled
    whole (all levels of both arms); an end at -inf or inf is beyond the levels.
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
    """First x where each row of `d`, shape (m, levels), is not above zero: (m,)."""
    below = d <= 0
    first = np.where(below.any(axis=1), below.argmax(axis=1), len(x))
    right = np.clip(first, 1, len(x) - 1)
    rows = np.arange(len(d))
    before, after = d[rows, right - 1], d[rows, right]
    inner = (first > 0) & (first < len(x))
    drop = np.where(inner, before - after, 1)
    crossing = x[right - 1] + (x[right] - x[right - 1]) * before / drop
    return np.where(inner, crossing, np.where(first == 0, -inf, inf))


def _t_statistic(d: Array, expected: float) -> float:
    mean, sd = float(d.mean()) - expected, float(d.std(ddof=1))
    if sd == 0:
        return 0.0 if mean == 0 else copysign(inf, mean)
    return mean / (sd / sqrt(len(d)))


def _finite(name: str, values: ArrayLike, *, ndim: int, at_least: int = 1) -> Array:
    array = np.asarray(values, np.float64)
    if array.ndim != ndim:
        raise ValueError(f"{name} has shape {array.shape}; it must have {ndim} axes")
    if len(array) < at_least or not array.size:
        raise ValueError(f"{name} has shape {array.shape}: too few, under {at_least}")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        where = tuple(bad[0].tolist())
        raise ValueError(f"{name} holds {array[where]} at {where}: not a finite number")
    return array


def _fraction(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value}; it must be between 0 and 1")
