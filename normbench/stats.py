"""The statistics of verdicts: pure functions on arrays of numbers, one per seed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special


@dataclass(frozen=True)
class MeanInterval:
    """A mean and its t interval; one value has neither an interval nor an sd."""

    mean: float
    sd: float | None
    n: int
    low: float | None
    high: float | None
    confidence: float


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> MeanInterval:
    """Mean of `values`, shape (n,), with mean +- t(n-1) sd / sqrt(n) (Student 1908)."""
    x = np.asarray(values, dtype=np.float64)
    n, mean = len(x), float(x.mean())
    if n == 1:
        return MeanInterval(mean, None, 1, None, None, confidence)
    sd = float(x.std(ddof=1))
    half = float(special.stdtrit(n - 1, (1 + confidence) / 2)) * sd / n**0.5
    return MeanInterval(mean, sd, n, mean - half, mean + half, confidence)
