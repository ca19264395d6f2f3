"""Choose the learning rate of each seed from the validation losses of one cell.

Every seed has a run at every rate of one grid, so a cell has a validation loss for each
seed and rate, shape (S, R). Lower is better: a caller negates a score. +inf stands for
a run that diverged. A rate whose mean has an inf is chosen only if all means have one;
then it is the lowest rate. NaN stands for a run that was not done, because its rate was
dropped: a rate with a NaN is not chosen for any seed. A validation loss itself is never
NaN. If rates are equally good, the lowest of them is chosen.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

Choosing = Literal["nested", "cross_fitted", "pooled", "curve"]
"""How the rate of a seed is chosen.

`nested`: the lowest validation loss of the seed itself. `cross_fitted`: the lowest mean
validation loss of all other seeds. `pooled`: the lowest mean validation loss of all
seeds. `curve`: the minimum of a parabola in log2 of the rate, which is fitted to the
mean validation loss of all seeds. With the last two, all seeds get the same rate.
"""
STANDARD_ERRORS = 3.0
"""`dropped_rates` drops a rate that is worse by more than this many standard errors."""
REACH = 2.0
"""`curve` fits the means from a quarter to four times the best rate (log2: +-2)."""
DIVERGED = float(np.finfo(np.float64).max)
"""Rank of a mean of inf: worse than all numbers, and better than a dropped rate."""


def chosen(validation: Array, rates: Sequence[float], how: Choosing) -> Indices:
    """Return the index of the rate of each seed, shape (..., S).

    `validation`, shape (..., S, R), has the validation losses of S seeds at R rates, as
    the module describes; leading axes are independent cells. `rates` increase. Raises
    ValueError for other shapes, for rates that do not increase, for `cross_fitted` with
    one seed, and if a cell has a NaN at every rate.
    """
    _check(validation, rates)
    seeds = validation.shape[-2]
    dropped = _dropped(validation)
    if how == "nested":
        return _lowest(validation, dropped[..., None, :])
    if how == "cross_fitted":
        if seeds < 2:
            raise ValueError("cross_fitted needs the losses of at least two seeds")
        return _lowest(_means_of_others(validation), dropped[..., None, :])
    means = validation.mean(axis=-2)
    if how == "pooled":
        index = _lowest(means, dropped)
    else:
        index = _lowest_of_curve(means, dropped, np.log2(rates))
    return np.repeat(index[..., None], seeds, axis=-1)


def dropped_rates(validation: Array) -> NDArray[np.bool_]:
    """Return which rates need no runs on further seeds, shape (..., R).

    `validation`, shape (..., S >= 2, R), has a loss for every seed so far and rate. A
    rate is dropped if it is worse than the rate with the lowest mean on every seed, and
    if its mean is worse by more than STANDARD_ERRORS standard errors of the differences
    (paired by seed). A rate that diverged on some seed is worse by inf. No rate is
    dropped if all diverged. Raises ValueError for fewer than two seeds.
    """
    seeds = validation.shape[-2]
    if seeds < 2:
        raise ValueError("dropped_rates needs the losses of at least two seeds")
    means = validation.mean(axis=-2)
    diverged = np.isposinf(means)
    finite = np.where(diverged[..., None, :], np.nan, validation)
    best = means.argmin(axis=-1)[..., None, None]
    lowest = np.take_along_axis(finite, best, axis=-1)  # NaN if all diverged
    gaps = finite - lowest
    errors = gaps.std(axis=-2, ddof=1) / np.sqrt(seeds)
    clearly_worse = diverged | (gaps.mean(axis=-2) > STANDARD_ERRORS * errors)
    return np.asarray((validation > lowest).all(axis=-2) & clearly_worse)


def _check(validation: Array, rates: Sequence[float]) -> None:
    """Raise ValueError unless `validation` is (..., S, R) and fits the R `rates`."""
    if validation.ndim < 2 or 0 in validation.shape:
        raise ValueError(f"validation has shape {validation.shape}, not (seeds, rates)")
    if validation.shape[-1] != len(rates):
        raise ValueError(
            f"validation has shape {validation.shape}: its last axis must be the "
            f"{len(rates)} rates"
        )
    if rates[0] <= 0 or any(low >= high for low, high in pairwise(rates)):
        raise ValueError(f"rates must be positive and increase, not {list(rates)}")
    if _dropped(validation).all(axis=-1).any():
        raise ValueError("a cell has a NaN at every rate: no rate is left to choose")


def _dropped(validation: Array) -> NDArray[np.bool_]:
    """Return which rates have a run that was not done, shape (..., R)."""
    return np.asarray(np.isnan(validation).any(axis=-2))


def _lowest(losses: Array, dropped: NDArray[np.bool_]) -> Indices:
    """Return the index of the lowest of `losses`, (..., R), that is not `dropped`."""
    ranks = np.where(dropped, np.inf, np.minimum(losses, DIVERGED))
    return np.asarray(ranks.argmin(axis=-1))


def _means_of_others(validation: Array) -> Array:
    """Return for each seed the mean over all other seeds, shape (..., S, R)."""
    is_inf = np.isposinf(validation)
    finite = np.where(is_inf, 0, validation)
    others = finite.sum(axis=-2, keepdims=True) - finite
    others_inf = is_inf.sum(axis=-2, keepdims=True) - is_inf
    means: Array = np.where(others_inf > 0, np.inf, others) / (validation.shape[-2] - 1)
    return means


def _lowest_of_curve(means: Array, dropped: NDArray[np.bool_], x: Array) -> Indices:
    """Return the index of the rate nearest to the minimum of the fitted parabola.

    `means` and `dropped` have shape (..., R), `x` is log2 of the rates. The parabola is
    the least-squares fit to the finite means within REACH of the lowest mean. The
    lowest mean itself is chosen if the parabola has no minimum or if there are fewer
    than four such means: a parabola through three equally spaced means always has its
    minimum nearest to the lowest of them.
    """
    best = _lowest(means, dropped)
    distance = x - x[best][..., None]
    near = (np.abs(distance) < REACH + 1e-9) & ~dropped & np.isfinite(means)
    weights = near.astype(np.float64)
    powers = distance[..., None] ** np.arange(3)  # (..., R, 3)
    normal = np.einsum("...r,...ri,...rj->...ij", weights, powers, powers)
    right = np.einsum("...ri,...r->...i", powers, np.where(near, means, 0))
    enough = near.sum(axis=-1) >= 4
    normal = np.where(enough[..., None, None], normal, np.eye(3))
    _, slope, curvature = np.moveaxis(
        np.linalg.solve(normal, right[..., None])[..., 0], -1, 0
    )
    curved = enough & (curvature > 0)
    vertex = np.where(curved, -slope / (2 * np.where(curved, curvature, 1)), 0)
    nearest = _lowest(np.abs(distance - vertex[..., None]), ~near)
    return np.where(curved, nearest, best)
