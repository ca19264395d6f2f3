"""The statistics of verdicts: pure functions on arrays of numbers, one per seed.

The unit is the seed, and arms are paired: `differences` are new minus reference, seed
by seed, of a cost (lower is better; negate a score). Their mean has a t interval
(Student 1908), right for normal differences at any n, where a percentile bootstrap
covers too little below n = 20. "Not significant" is never "equal": equivalence has a
test of its own (`tost`), and `seeds_needed` says what would settle an open question.

Every function raises ValueError for numbers that are not finite and for fewer seeds
than it needs: what a diverged run is worth is decided by the caller, beforehand.
Those that resample take a `numpy.random.Generator` or a seed for one, and are
deterministic given that. `scipy.stats` takes more than a second to import, so only
`scipy.special` is.
"""

from dataclasses import dataclass
from math import copysign, inf, isfinite, sqrt
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]
Rng = np.random.Generator | int
Kind = Literal["difference", "equivalence", "non_inferiority"]

# Gauss-Legendre quadrature on (0, 1).
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2


@dataclass(frozen=True)
class MeanInterval:
    """A mean and its t interval; one value has neither an interval nor an sd."""

    mean: float
    sd: float | None
    n: int
    low: float | None
    high: float | None
    confidence: float


@dataclass(frozen=True)
class PairedTest:
    """A mean difference, its t interval, and p of no difference, two-sided."""

    mean: float
    sd: float
    n: int
    low: float
    high: float
    confidence: float
    t: float
    p: float


@dataclass(frozen=True)
class MarginTest:
    """A test against `margin`; (low, high) is the interval of confidence 1 - 2 alpha.

    `holds` says that the mean difference is shown to be on the right side of the
    margin, or within both.
    """

    mean: float
    sd: float
    n: int
    low: float
    high: float
    confidence: float
    margin: float
    p: float
    holds: bool


@dataclass(frozen=True)
class SignFlip:
    """p of the sign-flip test; exact, or from so many random assignments of signs."""

    p: float
    n: int
    exact: bool
    assignments: int


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
    confidence: float
    n: int
    share_before: float
    share_after: float
    share_several: float


@dataclass(frozen=True)
class Estimate:
    """A statistic with its interval, from `n` seeds."""

    value: float
    low: float
    high: float
    confidence: float
    n: int


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> MeanInterval:
    """Mean of `values`, shape (n,), with mean +- t(n-1) sd / sqrt(n) (Student 1908)."""
    x = _finite("values", values, ndim=1)
    _fraction("confidence", confidence)
    if len(x) == 1:
        return MeanInterval(float(x[0]), None, 1, None, None, confidence)
    return MeanInterval(*_summary(x, confidence), confidence)


def half_width(sd: float, n: int, confidence: float = 0.95) -> float:
    """Half of the t interval of a mean over `n` >= 2 values: t(n-1) sd / sqrt(n)."""
    return _t_quantile(n - 1, (1 + confidence) / 2) * sd / sqrt(n)


def paired_t_test(differences: ArrayLike, confidence: float = 0.95) -> PairedTest:
    """Paired t test of `differences`, shape (n >= 2,): is their mean zero?

    t = mean / (sd / sqrt(n)) with n - 1 degrees of freedom (Student 1908). Differences
    that are all equal have sd 0, and then p is 1 if they are zero and 0 if not. That is
    the model's word: `sign_flip_test` says what so many seeds can show without it.
    """
    d = _finite("differences", differences, ndim=1, at_least=2)
    _fraction("confidence", confidence)
    mean, sd, n, low, high = _summary(d, confidence)
    t = _t_statistic(mean, sd, n)
    p = 2 * float(special.stdtr(n - 1, -abs(t)))
    return PairedTest(mean, sd, n, low, high, confidence, t, p)


def tost(differences: ArrayLike, margin: float, alpha: float = 0.05) -> MarginTest:
    """Equivalence: is the mean of `differences`, shape (n >= 2,), within +-`margin`?

    Two one-sided t tests (Schuirmann 1987; Lakens 2017): yes if and only if the
    interval of confidence 1 - 2 `alpha` lies inside the margins; p is the larger of the
    two. The same interval beyond a margin shows a difference larger than that.
    """
    return _margin_test(differences, margin, alpha, both=True)


def non_inferiority(
    differences: ArrayLike, margin: float, alpha: float = 0.05
) -> MarginTest:
    """Is new worse than reference by less than `margin`? The upper half of `tost`.

    `differences`, shape (n >= 2,), are of a cost, so yes if and only if the upper end
    of the interval, a one-sided bound of confidence 1 - `alpha`, is below the margin.
    """
    return _margin_test(differences, margin, alpha, both=False)


def sign_flip_test(
    differences: ArrayLike, *, rng: Rng = 0, assignments: int = 99_999
) -> SignFlip:
    """Are `differences`, shape (n,), symmetric about zero? Two-sided, on their |sum|.

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
        assignments = 2**n
    else:
        flips = np.random.default_rng(rng).integers(2, size=(assignments, n))
    sums = np.abs((1 - 2 * flips) @ d)
    # Sums that tie in exact arithmetic may differ in the last bits.
    extreme = int((sums >= abs(d.sum()) - 1e-12 * np.abs(d).sum()).sum())
    p = extreme / len(flips) if exact else (extreme + 1) / (assignments + 1)
    return SignFlip(p, n, exact, assignments)


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


def slopes(x: ArrayLike, y: ArrayLike) -> Array:
    """Least-squares slope of each row of `y` on `x`: (levels,), (n, levels) -> (n,).

    One slope a seed, so that a trend along x (log2 of a batch size, say) is one paired
    test: `paired_t_test(slopes(x, y_a - y_b))`.
    """
    levels = _finite("x", x, ndim=1, at_least=2)
    rows = _finite("y", y, ndim=2)
    if rows.shape[1] != len(levels):
        raise ValueError(f"y has shape {rows.shape}, but x has {len(levels)} levels")
    if np.ptp(levels) == 0:
        raise ValueError(f"x has one level only, {levels[0]}: no slope")
    centred = levels - levels.mean()
    slope: Array = rows @ centred / (centred @ centred)
    return slope


def bootstrap_interval(
    resampled: ArrayLike, seeds: int, confidence: float = 0.95, df: int | None = None
) -> tuple[float, float]:
    """Expanded percentile interval of a statistic over resamples of `seeds` seeds.

    A percentile interval (Efron 1979) is too short at small n: the spread of a resample
    is sqrt((n-1)/n) of the sample's, and its tails are a normal's. So the percentiles
    are those at Phi(-+ sqrt(n/(n-1)) t(df)), as if the statistic were a mean
    (Hesterberg 2015); df is n - 1 unless given. No such interval reaches past the most
    extreme resample: of a normal mean a nominal .95 covers .75 at n = 3, .92 at 5, .94
    at 8, .95 from 10 on (plain percentiles .75, .84, .88, and .90 at 10).
    """
    if seeds < 2:
        raise ValueError(f"seeds is {seeds}: an interval needs at least 2")
    _fraction("confidence", confidence)
    ordered = np.sort(np.asarray(resampled, np.float64))
    if ordered.ndim != 1 or not len(ordered) or np.isnan(ordered).any():
        raise ValueError("resampled must be one row of numbers, infinite ones allowed")
    t = _t_quantile(seeds - 1 if df is None else df, (1 - confidence) / 2)
    skip = int(len(ordered) * special.ndtr(sqrt(seeds / (seeds - 1)) * t))
    return float(ordered[skip]), float(ordered[-1 - skip])


def crossover(
    x: ArrayLike,
    y_a: ArrayLike,
    y_b: ArrayLike,
    *,
    rng: Rng,
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
        confidence=confidence,
        n=n,
        share_before=float((crossings == -inf).mean()),
        share_after=float((crossings == inf).mean()),
        share_several=float((changes > 1).mean()),
    )


def probability_of_improvement(
    a: ArrayLike, b: ArrayLike, confidence: float = 0.95
) -> Estimate:
    """P(A < B) + P(A = B) / 2 of paired costs `a` and `b`, both of shape (n,).

    Over pairs, as in Bouthillier 2021; that of Agarwal 2021 compares every seed with
    every other. The interval is exact (Clopper &
    Pearson 1934): ties count as losses for its lower end and as wins for its upper one.
    Eight wins of eight give (.63, 1).
    """
    left = _finite("a", a, ndim=1)
    right = _finite("b", b, ndim=1)
    if left.shape != right.shape:
        raise ValueError(f"a has {len(left)} values and b {len(right)}: not paired")
    _fraction("confidence", confidence)
    n, tail = len(left), (1 - confidence) / 2
    wins, at_most = int((left < right).sum()), int((left <= right).sum())
    low = special.betaincinv(wins, n - wins + 1, tail) if wins else 0
    high = special.betaincinv(at_most + 1, n - at_most, 1 - tail) if at_most < n else 1
    share = (wins + at_most) / (2 * n)
    return Estimate(share, float(low), float(high), confidence, n)


def interquartile_mean(
    scores: ArrayLike,
    *,
    rng: Rng,
    shared_seeds: bool,
    confidence: float = 0.95,
    resamples: int = 9_999,
) -> Estimate:
    """Mean of the middle half of `scores`, shape (n >= 2 seeds, cells) (Agarwal 2021).

    A quarter of all the runs, rounded down, is cut off at each end. With independent
    runs the bootstrap is stratified: seeds are resampled within each cell. With
    `shared_seeds` a row is one seed in every cell (same split, same initial weights),
    and rows are resampled whole: taken for independent, runs that move together give
    too short an interval.
    """
    runs = _finite("scores", scores, ndim=2, at_least=2)
    n, cells = runs.shape
    generator = np.random.default_rng(rng)
    if shared_seeds:
        drawn = runs[generator.integers(n, size=(resamples, n))]
    else:
        rows = generator.integers(n, size=(resamples, n, cells))
        drawn = runs[rows, np.arange(cells)]
    df = n - 1 if shared_seeds else cells * (n - 1)
    low, high = bootstrap_interval(
        _middle_mean(drawn.reshape(resamples, -1)), n, confidence, df
    )
    mean = float(_middle_mean(runs.reshape(1, -1))[0])
    return Estimate(mean, low, high, confidence, n)


def power_at(
    n: int,
    sd: float,
    margin: float,
    kind: Kind,
    alpha: float = 0.05,
    effect: float = 0.0,
) -> float:
    """Probability that `n` >= 2 seeds decide, if differences are normal with this `sd`.

    `kind` "difference": that `paired_t_test` gives p < `alpha` when the true mean is
    `margin`; "equivalence", "non_inferiority": that `tost`, `non_inferiority` succeed
    when the true mean is `effect`. It is the normal probability given the sample's sd,
    integrated over the distribution of that sd (noncentral t; of two bounds, Owen 1965,
    Phillips 1990), to about 1e-6.
    """
    _positive("sd", sd)
    _positive("margin", margin)
    _fraction("alpha", alpha, below=0.5)
    if kind not in get_args(Kind):
        raise ValueError(f"kind is {kind!r}; it must be one of {get_args(Kind)}")
    if kind == "difference" and effect:
        raise ValueError("effect is given: in a test of a difference it is the margin")
    if not isfinite(effect):
        raise ValueError(f"effect is {effect}: not a finite number")
    if n < 2:
        raise ValueError(f"n is {n}: a test needs at least 2 seeds")
    df, se = n - 1, sd / sqrt(n)
    critical = _t_quantile(df, 1 - (alpha / 2 if kind == "difference" else alpha))
    to_high, to_low = (margin - effect) / se, (margin + effect) / se
    # Given s, the sample's sd over the true one, the mean must be `critical` s inside
    # the margin; both margins leave room for that if s is below `widest`.
    widest = (to_high + to_low) / (2 * critical) if kind == "equivalence" else inf
    share = special.gammainc(df / 2, df * widest**2 / 2)
    s = np.sqrt(2 * special.gammaincinv(df / 2, share * _NODES) / df)
    decided = special.ndtr(to_high - critical * s)
    if kind == "equivalence":
        decided -= special.ndtr(critical * s - to_low)
    if kind == "difference":
        decided += special.ndtr(-to_high - critical * s)
    return float(share * (_WEIGHTS @ decided))


def seeds_needed(
    sd: float,
    margin: float,
    kind: Kind,
    power: float = 0.8,
    alpha: float = 0.05,
    effect: float = 0.0,
    cap: int = 1000,
) -> int | None:
    """The fewest seeds with which `power_at` reaches `power`; None if above `cap`.

    None too if no number would do, as with an `effect` outside the margins. An sd taken
    from few seeds is a guess: at n = 8 the true one is between .66 and 2.0 of it.
    """
    _fraction("power", power)
    for n in range(2, cap + 1):
        if power_at(n, sd, margin, kind, alpha, effect) >= power:
            return n
    return None


def detectable(
    sd: float,
    n: int,
    kind: Kind,
    power: float = 0.8,
    alpha: float = 0.05,
    effect: float = 0.0,
) -> float:
    """The smallest margin (or difference) that `n` seeds decide with this `power`."""
    _fraction("power", power)
    low, high = 0.0, sd
    while power_at(n, sd, high, kind, alpha, effect) < power:
        low, high = high, 2 * high
    while high - low > 1e-9 * sd:
        middle = (low + high) / 2
        if power_at(n, sd, middle, kind, alpha, effect) < power:
            low = middle
        else:
            high = middle
    return high


def _t_quantile(df: int, q: float) -> float:
    return float(special.stdtrit(df, q))


def _summary(x: Array, confidence: float) -> tuple[float, float, int, float, float]:
    """Mean, sd, n >= 2, and both ends of the t interval."""
    n, mean, sd = len(x), float(x.mean()), float(x.std(ddof=1))
    half = half_width(sd, n, confidence)
    return mean, sd, n, mean - half, mean + half


def _margin_test(
    differences: ArrayLike, margin: float, alpha: float, *, both: bool
) -> MarginTest:
    d = _finite("differences", differences, ndim=1, at_least=2)
    _positive("margin", margin)
    _fraction("alpha", alpha, below=0.5)
    mean, sd, n, low, high = _summary(d, 1 - 2 * alpha)
    t = _t_statistic(mean - margin, sd, n)
    holds = high < margin
    if both:
        t = max(t, -_t_statistic(mean + margin, sd, n))
        holds = holds and -margin < low
    p = float(special.stdtr(n - 1, t))
    return MarginTest(mean, sd, n, low, high, 1 - 2 * alpha, margin, p, holds)


def _t_statistic(mean: float, sd: float, n: int) -> float:
    if sd == 0:
        return 0.0 if mean == 0 else copysign(inf, mean)
    return mean / (sd / sqrt(n))


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


def _middle_mean(runs: Array) -> Array:
    """25 % trimmed mean of each row: (m, runs) -> (m,)."""
    cut = runs.shape[1] // 4
    middle: Array = np.sort(runs, axis=1)[:, cut : runs.shape[1] - cut].mean(axis=1)
    return middle


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


def _fraction(name: str, value: float, below: float = 1) -> None:
    if not 0 < value < below:
        raise ValueError(f"{name} is {value}; it must be between 0 and {below}")


def _positive(name: str, value: float) -> None:
    if not 0 < value < inf:
        raise ValueError(f"{name} is {value}; it must be a positive number")
