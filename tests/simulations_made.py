"""Samples of a normal distribution, and the share of simulations that fulfil something.

A simulated share must be within `tolerance` of the expected share.
"""

from collections.abc import Iterable
from math import sqrt

import numpy as np
from numpy.typing import NDArray


def normal(simulations: int, n: int, seed: int = 0) -> NDArray[np.float64]:
    """Return standard normal samples, shape (simulations, n)."""
    return np.random.default_rng(seed).normal(size=(simulations, n))


def share(results: Iterable[bool]) -> float:
    """Return the share of results that are true."""
    return float(np.mean(list(results)))


def tolerance(expected: float, simulations: int) -> float:
    """Return four binomial standard errors of a simulated share."""
    return 4 * sqrt(expected * (1 - expected) / simulations)
