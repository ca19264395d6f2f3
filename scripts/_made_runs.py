"""Made-up runs of arms at every rate of a grid: validation losses and test errors.

The numbers come from the committed runs of the CNN on 500 validation and 1,500 test
digits (results/claims/*/records.jsonl.gz, cells with an error below 15 %). On the log
scale, the sums of squares of seeds and cells give the standard deviations below, and
parabolas through the mean losses of four rates and more give the curvatures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RATES = tuple(0.0125 * 2.0**i for i in range(7))
LOSS, ERROR = 0.15, 0.05
"""The validation loss and the test error of every arm at its best rate."""
FAILED_LOSS, FAILED_ERROR = 2.3, 0.9
"""A run that fails predicts one of ten classes."""
SHARED_SD = np.array([0.13, 0.09])
"""What a seed (split, order) adds to all arms: relative sd of loss and error."""
ARM_SD = np.array([0.04, 0.04])
"""What a seed (initial weights) adds to all rates of one arm."""
RUN_SD, CORRELATION = np.array([0.1, 0.11]), 0.5
"""What each run adds by itself, correlated between loss and error of its network."""
ERROR_CURVATURE = 0.7
"""Curvature of the log error relative to that of the log loss."""
STEEPER = 0.5
"""Coefficient of the cubic term above the best rate, relative to the quadratic term."""


@dataclass(frozen=True)
class Arm:
    """The true curve of an arm over log2 of the rate.

    Its log loss is `curvature` times the square of the distance from the best rate,
    which is `shift` steps of the grid from the middle, and rises faster above it. A
    run fails with the probability `failures` at rates above the best of the grid.
    """

    curvature: float = 0.027
    shift: float = 0.0
    failures: float = 0.0


@dataclass(frozen=True)
class Runs:
    """Runs of one arm: `validation` and `error` (N, S, R), and their expectation.

    `expected` is the expectation of the error at each rate, and `best` the index of the
    true best rate of the grid, shapes (N, R) and (N,).
    """

    validation: Array
    error: Array
    expected: Array
    best: NDArray[np.int64]


SITUATIONS = {
    "alike": (Arm(), Arm()),
    "alike, flat": (Arm(0.01), Arm(0.01)),
    "steeper": (Arm(), Arm(0.09, 1.3)),
    "steeper, failing": (Arm(), Arm(0.09, 1.3, failures=0.02)),
}
"""Name -> the reference and the other arm, equally good at their best rates."""

Law = Callable[[np.random.Generator, tuple[int, ...]], Array]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal((*shape, 2))


def heavy_tails(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return pairs with a joint Student's t distribution (3 degrees), sd 1."""
    scale = np.sqrt(3 / rng.chisquare(3, shape)) / np.sqrt(3)
    pairs: Array = rng.standard_normal((*shape, 2)) * scale[..., None]
    return pairs


LAWS: dict[str, Law] = {"normal": normal, "heavy tails": heavy_tails}


def draw(
    rng: np.random.Generator,
    arms: Sequence[Arm],
    law: Law,
    replications: int,
    seeds: int,
) -> list[Runs]:
    """Return the runs of each arm; the optima fall anywhere between two rates."""
    shared = SHARED_SD * normal(rng, (replications, seeds, 1))
    offset = rng.uniform(-0.5, 0.5, (replications, 1))
    return [
        _runs(rng, arm, law, shared, offset + arm.shift, len(RATES)) for arm in arms
    ]


def _runs(
    rng: np.random.Generator,
    arm: Arm,
    law: Law,
    shared: Array,
    optimum: Array,
    rates: int,
) -> Runs:
    distance = np.arange(rates) - rates // 2 - optimum  # (N, R)
    height = distance**2 + STEEPER * np.maximum(distance, 0) ** 3
    best = height.argmin(axis=1)
    # All arms are equally good at the best rate of the grid.
    height = arm.curvature * (height - height.min(axis=1, keepdims=True))
    noise = law(rng, (*shared.shape[:2], rates))
    noise[..., 1] = (
        CORRELATION * noise[..., 0] + np.sqrt(1 - CORRELATION**2) * noise[..., 1]
    )
    noise = shared + ARM_SD * normal(rng, (*shared.shape[:2], 1)) + RUN_SD * noise
    noise = 1 + np.clip(noise, -0.95, 0.95)
    expected = ERROR * np.exp(ERROR_CURVATURE * height)
    validation = LOSS * np.exp(height)[:, None] * noise[..., 0]
    error = expected[:, None] * noise[..., 1]
    chance = arm.failures * (np.arange(rates) > best[:, None])
    failed = rng.random(error.shape) < chance[:, None]
    return Runs(
        validation=np.where(failed, FAILED_LOSS, validation),
        error=np.where(failed, FAILED_ERROR, error),
        expected=expected + chance * (FAILED_ERROR - expected),
        best=best,
    )
