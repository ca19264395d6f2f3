"""Intervals of the difference of two arms whose rates are chosen, and resampled."""

from collections.abc import Iterator, Sequence
from math import sqrt

import numpy as np
from _made_runs import RATES, Array, Runs

from normbench import stats
from normbench.verdicts.choosing import Choosing, Indices, chosen

RESAMPLES = 200


def at_rates(values: Array, index: Indices) -> Array:
    """Return the values (..., S, R) at the rate of each seed, shape (..., S)."""
    taken: Array = np.take_along_axis(values, index[..., None], axis=-1)[..., 0]
    return taken


def log_values(errors: Array) -> Array:
    """Return values whose mean is the log of the mean error, shape (..., S).

    The difference of two arms has the log ratio of their means as its mean; a seed adds
    to it linearly (the influence function of the ratio).
    """
    means = errors.mean(axis=-1, keepdims=True)
    values: Array = np.log(means) + errors / means - 1
    return values


def intervals_of(
    rng: np.random.Generator, runs: Sequence[Runs], how: Choosing
) -> Iterator[tuple[str, Array, Array]]:
    """Yield (name, middles, half widths) of the intervals of each replication.

    `t` takes the rates as given. `bootstrap t` has the standard error, and
    `percentile` the quantiles, of resamples of the seeds that choose the rates anew.
    """
    values = [
        log_values(at_rates(arm.error, chosen(arm.validation, RATES, how)))
        for arm in runs
    ]
    differences = values[1] - values[0]
    n = differences.shape[1]
    means = differences.mean(axis=1)
    yield "t", means, stats.half_width(1, n) * differences.std(axis=1, ddof=1)
    count = len(means) // 4
    halves, ends = np.empty(count), np.empty((count, 2))
    for row in range(count):
        counts = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float64)
        reference, other = (
            resampled(arm.validation[row], arm.error[row], counts, how) for arm in runs
        )
        error = (other - reference).std(ddof=1) * sqrt(n / (n - 1))
        halves[row] = stats.t_quantile(n - 1, 0.975) * error
        ends[row] = stats.bootstrap_interval(other - reference, n)
    yield "bootstrap t", means[:count], halves
    yield "percentile", ends.mean(axis=1), (ends[:, 1] - ends[:, 0]) / 2


def resampled(validation: Array, errors: Array, counts: Array, how: Choosing) -> Array:
    """Return the log mean error of each resample, whose rates are chosen anew.

    `validation` and `errors` are (S, R); `counts`, (B, S), says how often a resample
    contains a seed. `cross_fitted` leaves out all copies of a seed.
    """
    n = len(validation)
    seeds = np.arange(n)
    if how == "nested":
        means = counts @ errors[seeds, chosen(validation, RATES, how)] / n
        return np.asarray(np.log(means))
    totals = counts @ validation
    if how == "cross_fitted":
        others = totals[:, None] - counts[..., None] * validation
        index = chosen(others[..., None, :], RATES, "pooled")[..., 0]
        return np.asarray(np.log((counts * errors[seeds, index]).sum(axis=1) / n))
    index = chosen(totals[:, None] / n, RATES, how)
    return np.asarray(np.log(at_rates((counts @ errors / n)[:, None], index)[:, 0]))
