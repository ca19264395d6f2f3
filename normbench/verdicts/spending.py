"""Levels of a test that is repeated while seeds are added: alpha spending.

A fixed test of level alpha that is repeated at every look rejects a true hypothesis far
more often than alpha. Lan & DeMets (1983) fix how much of alpha is spent when a
fraction t of the maximum number of seeds is there; the looks themselves may come at any
t that does not depend on the effects. The level of each look follows from the joint
normal distribution of the statistics of all looks, by recursive numerical integration
(Armitage, McPherson & Rowe 1969; Jennison & Turnbull 2000, chapter 19).

All levels are one-sided. A two-sided test of level alpha is two one-sided tests of
level alpha / 2. For a t test, the level of a look gives the quantile of Student's t
distribution with the degrees of freedom at that look (the significance-level approach:
Jennison & Turnbull 2000, chapter 11).
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from math import ceil, e, log1p, pi, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from normbench.verdicts.seeds import Spending

Array = NDArray[np.float64]

MIN_LEVEL = 1e-15
"""Smaller levels count as this one: 1 - level must not be rounded to 1."""
LOWEST, HIGHEST = -8.0, 20.0
"""Limits of the integration, in standard errors."""
NODES_PER_SD = 5
"""Nodes of the integration per standard deviation of what the next look adds."""
OVERALL = np.linspace(8.0, -2.5, 211)
"""Quantiles of the levels at which `adjusted_p` is computed; it interpolates others."""


@dataclass(frozen=True)
class Looks:
    """The looks at a contrast so far, as numbers of seeds; the last one is the present.

    `maximum` is the number of seeds at which all of alpha is spent.
    """

    seeds: tuple[int, ...]
    maximum: int
    spending: Spending = "pocock"

    def level(self, alpha: float) -> float:
        """Return the one-sided level of the present look; `alpha` is that of all."""
        return nominal_levels(self.seeds, self.maximum, self.spending, alpha)[-1]

    def overall(self, p: float) -> float:
        """Return the overall one-sided p value of `p`, that of the present look."""
        return adjusted_p(p, self.seeds, self.maximum, self.spending)


def spent(spending: Spending, fraction: float, alpha: float) -> float:
    """Return how much of the one-sided `alpha` is spent at a fraction of the seeds.

    `pocock` and `obrien_fleming` are the functions of Lan & DeMets (1983) with bounds
    like those of Pocock (1977) and of O'Brien & Fleming (1979). `kim_demets` is
    alpha t^1.5 (Kim & DeMets 1987). Raises ValueError for a fraction outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}; it must be above 0 and at most 1")
    if fraction == 1:
        return alpha
    if spending == "pocock":
        return alpha * log1p((e - 1) * fraction)
    if spending == "obrien_fleming":
        return float(2 * special.ndtr(special.ndtri(alpha / 2) / sqrt(fraction)))
    return float(alpha * fraction**1.5)


def nominal_levels(
    looks: tuple[int, ...], maximum: int, spending: Spending, alpha: float
) -> tuple[float, ...]:
    """Return the one-sided level of each look, for the one-sided level `alpha` overall.

    `looks` are increasing numbers of seeds, at most `maximum`. The probability that a
    true hypothesis is rejected at one of the looks is `spent` at the last of them. The
    only look of a fixed design, at `maximum`, has the level `alpha`. Raises ValueError
    for looks that do not increase or go beyond `maximum`.
    """
    increasing = all(a < b for a, b in pairwise((0, *looks)))
    if not looks or not increasing or looks[-1] > maximum:
        raise ValueError(
            f"looks {list(looks)} must increase, from 1 or more to {maximum} at most"
        )
    if looks == (maximum,):
        return (alpha,)
    histories = (looks[:count] for count in range(1, len(looks) + 1))
    bounds = [_state(each, maximum, spending, alpha).bound for each in histories]
    return tuple(np.maximum(special.ndtr(np.negative(bounds)), MIN_LEVEL).tolist())


def adjusted_p(
    p: float, looks: tuple[int, ...], maximum: int, spending: Spending
) -> float:
    """Return the overall level at which the last of `looks` has the nominal level `p`.

    Both are one-sided. The result is at least `p`, and increases with it. It is below
    alpha if and only if `p` is below the nominal level for alpha; by interpolation, the
    result is wrong by 1e-4 of its value at most. In a fixed design, it is `p`.
    """
    if looks == (maximum,):
        return p
    overall, nominal = _table(looks, maximum, spending)
    z = -float(special.ndtri(p))
    inside = min(max(z, nominal[0]), nominal[-1])
    # Beyond the table, the distance of the two quantiles is that at its end.
    shift = float(np.interp(inside, nominal, overall)) - inside
    return float(special.ndtr(-(z + shift)))


@cache
def _table(
    looks: tuple[int, ...], maximum: int, spending: Spending
) -> tuple[Array, Array]:
    """Return increasing quantiles of overall levels, and the last look's for each."""
    nominal = [
        _state(looks, maximum, spending, float(level)).bound
        for level in special.ndtr(-OVERALL)
    ]
    return OVERALL[::-1], np.array(nominal[::-1])


class _State(NamedTuple):
    """What the recursion knows after a look.

    At or above the z value `bound`, the look rejects the hypothesis. `masses` are the
    probabilities, at the z values `nodes` of the look before, that no look up to then
    has rejected the hypothesis. They are empty after the first look.
    """

    bound: float
    nodes: Array
    masses: Array


@lru_cache(maxsize=10_000)
def _state(
    looks: tuple[int, ...], maximum: int, spending: Spending, alpha: float
) -> _State:
    """Return the state after the last of `looks`."""
    *earlier, n = looks
    amount = spent(spending, n / maximum, alpha)
    if not earlier:
        return _State(-float(special.ndtri(amount)), np.empty(0), np.empty(0))
    last = _state(tuple(earlier), maximum, spending, alpha)
    before = earlier[-1]
    added = sqrt((n - before) / n)  # the sd of what the new seeds add to z
    nodes, weights = _quadrature(min(last.bound, HIGHEST), added)
    if len(earlier) == 1:
        density = np.exp(-(nodes**2) / 2) / sqrt(2 * pi)
    else:
        density = _kernel(nodes, last.nodes, earlier[-2], before) @ last.masses
    masses = weights * density
    amount -= spent(spending, before / maximum, alpha)
    return _State(
        _bound(amount, nodes * sqrt(before / n), masses, added), nodes, masses
    )


def _quadrature(end: float, added: float) -> tuple[Array, Array]:
    """Return nodes and weights of Gauss-Legendre quadrature from LOWEST to `end`."""
    count = 20 + ceil(NODES_PER_SD * (end - LOWEST) / added)
    nodes, weights = _legendre(count)
    half = (end - LOWEST) / 2
    return LOWEST + half * (nodes + 1), half * weights


@cache
def _legendre(count: int) -> tuple[Array, Array]:
    return np.polynomial.legendre.leggauss(count)


def _kernel(new: Array, old: Array, n_old: int, n_new: int) -> Array:
    """Return the density of the z value `new` at `n_new` seeds, given `old`."""
    added = sqrt((n_new - n_old) / n_new)
    z = (new[:, None] - old * sqrt(n_old / n_new)) / added
    return np.exp(-(z**2) / 2) / (added * sqrt(2 * pi))


def _bound(amount: float, means: Array, masses: Array, sd: float) -> float:
    """Return the z that a mixture of normal distributions exceeds with `amount`."""
    low, high = LOWEST - 2, 2 * HIGHEST
    while high - low > 1e-11:
        middle = (low + high) / 2
        exceeded = masses @ special.ndtr((means - middle) / sd)
        low, high = (middle, high) if exceeded > amount else (low, middle)
    return low
