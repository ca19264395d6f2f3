"""How many seeds would settle a question, if the effect were what it seems."""

from bisect import bisect_left
from collections.abc import Callable
from math import inf, sqrt

import numpy as np
from scipy import special

from normbench.stats import t_quantile
from normbench.verdicts.registration import Says

POWER = 0.8
MOST_SEEDS = 200
"""More seeds are not suggested."""

# Gauss-Legendre quadrature on (0, 1).
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2


def seeds_needed(
    says: Says, effect: float, sd: float, margin: float, alpha: float
) -> int | None:
    """The fewest seeds that decide a contrast with power .8; None above MOST_SEEDS.

    `effect` and `sd` are of the differences, taken for the true ones. An sd taken from
    few seeds is a guess: at n = 8 the true one is between .66 and 2.0 of it.
    """
    if not sd:
        return None
    size = abs(effect)
    ways: list[Callable[[int], float]] = []
    if says in {"greater", "less"} and effect:
        ways.append(lambda n: power_of_difference(n, size, sd, alpha))
    if says == "not_greater" and effect < margin:
        ways.append(lambda n: power_within(n, effect, sd, -inf, margin, alpha))
    elif says != "not_greater" and size < margin:
        ways.append(lambda n: power_within(n, effect, sd, -margin, margin, alpha))
    elif says in {"equal", "not_greater"} and size > margin:
        ways.append(lambda n: power_within(n, size, sd, margin, inf, alpha))
    seeds = range(2, MOST_SEEDS + 1)
    fewest = [bisect_left(seeds, POWER, key=way) for way in ways]
    return min((seeds[i] for i in fewest if i < len(seeds)), default=None)


def power_of_difference(n: int, effect: float, sd: float, alpha: float) -> float:
    """Probability that the t interval of confidence 1 - `alpha` excludes 0."""
    above = power_within(n, effect, sd, 0, inf, alpha / 2)
    return above + power_within(n, effect, sd, -inf, 0, alpha / 2)


def power_within(
    n: int, effect: float, sd: float, low: float, high: float, alpha: float
) -> float:
    """Probability that the interval of confidence 1 - 2 `alpha` is in (low, high).

    The interval is that of the mean of `n` >= 2 normal differences with mean `effect`
    and standard deviation `sd`. It is the normal probability given the sample's sd,
    integrated over the distribution of that sd (noncentral t; of two bounds, Owen 1965,
    Phillips 1990), to about 1e-6.
    """
    df, error = n - 1, sd / sqrt(n)
    critical = t_quantile(df, 1 - alpha)
    to_low, to_high = (effect - low) / error, (high - effect) / error
    # Given s, the sample's sd over the true one, the mean must be `critical` s inside
    # the bounds; both leave room for that if s is below `widest`.
    widest = (to_high + to_low) / (2 * critical)
    share = special.gammainc(df / 2, df * widest**2 / 2)
    s = np.sqrt(2 * special.gammaincinv(df / 2, share * _NODES) / df)
    inside = special.ndtr(to_high - critical * s) - special.ndtr(critical * s - to_low)
    return float(share * (_WEIGHTS @ inside))
