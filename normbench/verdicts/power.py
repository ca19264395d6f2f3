"""Estimate how many seeds would decide a contrast, from its observed effect."""

from bisect import bisect_left
from collections.abc import Callable
from math import inf, sqrt

import numpy as np
from scipy import special

from normbench.stats import t_quantile
from normbench.verdicts.design import Says

POWER = 0.8
MAX_SEEDS = 200
"""Larger numbers of seeds are not suggested."""

# Gauss-Legendre quadrature on (0, 1).
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2


def seeds_needed(
    says: Says, effect: float, sd: float, margin: float, alpha: float
) -> int | None:
    """Return the fewest seeds that decide a contrast with power .8.

    None if more than MAX_SEEDS are needed. `effect` and `sd` are the observed mean and
    standard deviation of the differences, used as if they were the true values. With
    few seeds the sd is inaccurate: at n = 8 the true sd is between .66 and 2.0 times
    the observed sd.
    """
    if not sd:
        return None
    size = abs(effect)
    powers: list[Callable[[int], float]] = []
    if says in {"greater", "less"} and effect:  # confirmed or contradicted
        powers.append(lambda n: power_of_difference(n, size, sd, alpha))
    if says == "not_greater" and effect < margin:  # confirmed
        powers.append(lambda n: power_within(n, effect, sd, -inf, margin, alpha))
    elif says != "not_greater" and size < margin:  # confirmed, or no difference
        powers.append(lambda n: power_within(n, effect, sd, -margin, margin, alpha))
    elif says in {"equal", "not_greater"} and size > margin:  # contradicted
        powers.append(lambda n: power_within(n, size, sd, margin, inf, alpha))
    seeds = range(2, MAX_SEEDS + 1)
    fewest = [bisect_left(seeds, POWER, key=power) for power in powers]
    return min((seeds[i] for i in fewest if i < len(seeds)), default=None)


def power_of_difference(n: int, effect: float, sd: float, alpha: float) -> float:
    """Return the probability that the interval of confidence 1 - `alpha` excludes 0."""
    above = power_within(n, effect, sd, 0, inf, alpha / 2)
    return above + power_within(n, effect, sd, -inf, 0, alpha / 2)


def power_within(
    n: int, effect: float, sd: float, low: float, high: float, alpha: float
) -> float:
    """Return the probability that the t interval lies within (`low`, `high`).

    The interval has confidence 1 - 2 `alpha`; it is computed from `n` >= 2 normal
    differences with mean `effect` and standard deviation `sd`. For a given sd of
    the sample, the normal distribution of the mean gives the probability. This
    probability is integrated over the distribution of that sd (Owen 1965, Phillips
    1990). The error is about 1e-6. With only one bound, the result is a probability of
    the noncentral t distribution.
    """
    df, error = n - 1, sd / sqrt(n)
    critical = t_quantile(df, 1 - alpha)
    to_low, to_high = (effect - low) / error, (high - effect) / error
    # s is the sample's sd divided by the true sd. The interval lies within the bounds
    # if the mean is further than `critical` * s (standard errors) from both. That is
    # possible only if s is below `max_s`, with the probability `share_below`.
    max_s = (to_high + to_low) / (2 * critical)
    share_below = special.gammainc(df / 2, df * max_s**2 / 2)
    # The values of s at the nodes, which are quantiles of its distribution below max_s:
    s = np.sqrt(2 * special.gammaincinv(df / 2, share_below * _NODES) / df)
    inside = special.ndtr(to_high - critical * s) - special.ndtr(critical * s - to_low)
    return float(share_below * (_WEIGHTS @ inside))
