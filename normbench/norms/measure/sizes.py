"""How many values a statistic has, and how noisy that makes it."""

import math
from collections.abc import Mapping, Sequence

from normbench.norms.base import Norm
from normbench.norms.groups import channels_per_group

FEW_SAMPLES = 16
"""Samples in a norm batch below which BatchNorm's error grows (Wu & He 2018)."""
FEW_VALUES = 16
"""Values in a statistic of one sample below which the statistic is mostly noise."""


def relative_noise(samples: int, positions: int) -> tuple[float, float]:
    """Return the lowest and the highest standard error of a channel's batch mean.

    Both errors are fractions of the channel's standard deviation: 1 / sqrt(n_eff),
    where n_eff = samples * positions / (1 + rho * (positions - 1)) is the effective
    sample size (Kish 1965) and rho is the correlation of two positions in one sample.
    The lowest error has rho = 0, the highest rho = 1. For normal values, the standard
    error of log(std) is smaller by a factor of sqrt(2). The probe `statistic_noise`
    measures both errors.
    """
    return 1 / math.sqrt(samples * positions), 1 / math.sqrt(samples)


def values_in_statistic(
    norm: type[Norm], options: Mapping[str, object], shape: Sequence[int]
) -> int | None:
    """Return the number of values of one sample in the norm's smallest statistic.

    The count follows from the text `norm.axes` and the input's `shape` (N, C,
    *spatial); it is None if the norm has no statistic. Raises ValueError if the text
    uses unknown terms.
    """
    _, channels, *spatial = shape
    group_size = channels_per_group(options, channels)
    channel_counts = {
        "one channel": 1,
        "a window of channels": channels,  # an upper bound
        "all channels": channels,
    }
    if group_size is not None:
        channel_counts["one group of channels"] = group_size
    position_counts = {"one position": 1, "all positions": math.prod(spatial)}
    counts = []
    for axes in norm.axes.split("; "):
        match axes.split(", "):
            case [_, "one channel", "one position"]:
                continue  # one value of each sample: no mean within a sample
            case [_, c, p] if c in channel_counts and p in position_counts:
                counts.append(channel_counts[c] * position_counts[p])
            case _:
                raise ValueError(f"axes={norm.axes!r} uses unknown terms")
    return min(counts, default=None)
