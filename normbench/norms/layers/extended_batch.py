"""Extended batch normalization, EBN (Luo et al. 2020, arXiv 2003.05569).

Training: y = weight * (x - mean) / sqrt(var + eps) + bias, with the mean of each
channel over samples and positions, and a single biased variance over samples, channels
and positions. This variance is the mean square of the deviations from the mean of all
values. Masked positions are included. The running statistics are updated as in `batch`,
and running_var averages the unbiased variance. Evaluation normalizes with the running
statistics.
weight, bias, running_mean: (C,); running_var: (). The defaults are those of
torch.nn.BatchNorm1d.
"""

import torch
from torch import Tensor

from normbench.norms.base import per_channel
from normbench.norms.chunks import split_chunks
from normbench.norms.sharing import shared_group
from normbench.norms.statistics import BatchStatistics, at_least_float32, batch_moments


class ExtendedBatchNorm(BatchStatistics, name="extended_batch"):
    source = "Luo et al. 2020"
    one_call = True
    axes = "all samples, all channels, all positions"
    fixed_map_in_eval = True

    def add_state(self) -> None:
        mean, var = torch.zeros(self.channels), torch.tensor(1.0)
        self.add_statistics(running_mean=mean, running_var=var)

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        mean, var = self.running_mean, self.running_var
        if self.training:
            count = self.count(x)
            if shared_group() is None:
                wide = at_least_float32(x)
                parts, axes = split_chunks(wide, self.chunks)
                mean = parts.mean(axes)
                var = wide.var(correction=0) if self.chunks == 1 else _vars(wide, mean)
            else:
                # Variance of all values: within channels, plus between channels.
                mean, channel_var = batch_moments(x, None, count)
                var = channel_var.mean() + mean.var(correction=0)
            self.update(mean, var, count * self.channels)
        return self.standardize(x, mean, var, self.weight, self.bias)


def _vars(x: Tensor, mean: Tensor) -> Tensor:
    """Return the variance of all values of each chunk, (chunks, 1).

    `mean` (chunks, C) are the means of the channels. On a CPU, this is faster than
    torch.var over all dimensions but one.
    """
    deviations = x - per_channel(mean.mean(1, keepdim=True), x)
    squares: Tensor = deviations.square().unflatten(0, (len(mean), -1))
    return squares.flatten(1).mean(1, keepdim=True)
