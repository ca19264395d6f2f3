"""Probe `statistic_noise`: how much batch statistics vary between norm batches.

The statistics are those of Batch Normalization (Ioffe & Szegedy 2015), computed from
the input of any norm. m_b and s_b are the mean and the standard deviation of a channel
in norm batch b, over samples and positions without padding. s is the standard deviation
of all values of the channel, in all norm batches together. sd_b(z_b) is the standard
deviation of the numbers z_b, of which every norm batch has one.

    mean_noise         sd_b(m_b) / s
    std_noise          sd_b(log s_b)
    effective_samples  1 / mean_noise^2: the number of independent values whose mean
                       is as noisy as m_b. effective_samples is smaller than the number
                       of values in a norm batch if the values at different positions
                       are correlated

mean_noise and std_noise are root mean squares over channels, then means over layers.
For n independent normal values, mean_noise is 1 / sqrt(n) and std_noise about
1 / sqrt(2 n).
"""

from collections import defaultdict

import torch
from torch import Tensor

from normbench.probes.base import PROBES, Trained
from normbench.probes.inputs import (
    mean_and_variance,
    variance_between_batches,
    visit_norm_batches,
)


@PROBES("statistic_noise")
def statistic_noise(trained: Trained) -> dict[str, float]:
    """How much the mean and deviation of a channel differ between norm batches.

    The result depends only on the input of a norm, so every norm has a result. A
    channel that has one value or is constant in a norm batch has no log s_b there, so
    that norm batch is left out of std_noise. A channel that is constant in all norm
    batches is left out of mean_noise and std_noise.
    """
    layers = defaultdict[int, _LayerStatistics](_LayerStatistics)

    def add(layer: int, values: Tensor, real: Tensor | None) -> None:
        layers[layer].add(values.flatten(0, 1) if real is None else values[real])

    visit_norm_batches(trained, add)
    noises = torch.stack([layer.noise() for layer in layers.values()])
    mean_noise, std_noise = noises.nanmean(0).tolist()
    return {
        "mean_noise": mean_noise,
        "std_noise": std_noise,
        "effective_samples": mean_noise**-2 if mean_noise else float("nan"),
    }


class _LayerStatistics:
    """The statistics of the inputs of one norm, per norm batch."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.means: list[Tensor] = []
        self.variances: list[Tensor] = []

    def add(self, values: Tensor) -> None:
        """Add a norm batch: n values of C channels, (n, C)."""
        mean, variance = mean_and_variance(values)
        self.counts.append(len(values))
        self.means.append(mean)
        self.variances.append(variance)

    def noise(self) -> Tensor:
        """Return (2,): mean_noise and std_noise of the layer."""
        means, variances = torch.stack(self.means), torch.stack(self.variances)
        counts = means.new_tensor(self.counts)[:, None]
        centre = (counts * means).sum(0) / counts.sum()
        within = ((counts - 1) * variances).nansum(0)  # nan if a batch has one value
        between = (counts * (means - centre).square()).sum(0)
        total = (within + between) / counts.sum()
        total = torch.where(total > 0, total, torch.nan)
        mean_noise_squared = variance_between_batches(means) / total
        log_stds = torch.where(variances > 0, variances, torch.nan).log() / 2
        std_noise_squared = variance_between_batches(log_stds)
        squares = [mean_noise_squared.nanmean(), std_noise_squared.nanmean()]
        return torch.stack(squares).sqrt()
