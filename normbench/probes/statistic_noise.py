"""How noisy a norm batch's statistics are: Ioffe & Szegedy 2015's, of any norm's input.

With m_b and s_b the mean and the standard deviation of a channel in norm batch b, over
samples and (real) positions, and s its standard deviation over all of them:

    mean_noise         sd over b of m_b / s
    std_noise          sd over b of log s_b
    effective_samples  1 / mean_noise^2: how many independent values would have a mean
                       as noisy; fewer than a norm batch has where positions correlate

each the root mean square over channels, then the mean over layers. For n independent
normal values mean_noise is 1 / sqrt(n) and std_noise about 1 / sqrt(2 n).
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

    A property of the inputs of the norms, which it has whatever the norm. The channels
    of a norm batch that have one value, or are constant, have no log s_b and are left
    out of std_noise; channels that are constant in all of them are left out of both.
    """
    layers = defaultdict[int, _Layer](_Layer)

    def see(layer: int, values: Tensor, real: Tensor | None) -> None:
        layers[layer].add(values.flatten(0, 1) if real is None else values[real])

    visit_norm_batches(trained, see)
    noises = torch.stack([layer.noise() for layer in layers.values()])
    mean_noise, std_noise = noises.nanmean(0).tolist()
    return {
        "mean_noise": mean_noise,
        "std_noise": std_noise,
        "effective_samples": mean_noise**-2 if mean_noise else float("nan"),
    }


class _Layer:
    """The statistics of one norm's inputs, batch by batch."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.means: list[Tensor] = []
        self.variances: list[Tensor] = []

    def add(self, values: Tensor) -> None:
        """Of a norm batch, (n, C)."""
        mean, variance = mean_and_variance(values)
        self.counts.append(len(values))
        self.means.append(mean)
        self.variances.append(variance)

    def noise(self) -> Tensor:
        """mean_noise and std_noise: (2,)."""
        means, variances = torch.stack(self.means), torch.stack(self.variances)
        counts = means.new_tensor(self.counts)[:, None]
        centre = (counts * means).sum(0) / counts.sum()
        within = ((counts - 1) * variances).nansum(0)
        between = (counts * (means - centre).square()).sum(0)
        total = (within + between) / counts.sum()
        of_mean = variance_between_batches(means) / torch.where(
            total > 0, total, torch.nan
        )
        logs = torch.where(variances > 0, variances, torch.nan).log() / 2
        of_std = variance_between_batches(logs)
        return torch.stack([of_mean.nanmean(), of_std.nanmean()]).sqrt()
