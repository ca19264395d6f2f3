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

from normbench.norms.statistics import (
    BatchStatistics,
    at_least_float32,
    batch_moments,
    shared_group,
)


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
            if shared_group() is None and self.chunks == 1:
                wide = at_least_float32(x)
                mean = wide.mean([0, *range(2, x.dim())])
                var = wide.var(correction=0)
            else:
                # Variance of all values: within channels, plus between channels.
                mean, channel_var = batch_moments(x, None, count, self.chunks)
                between = mean.var(-1, correction=0, keepdim=True)
                var = channel_var.mean(-1, keepdim=True) + between
            self.update(mean, var, count * self.channels)
        return self.standardize(x, mean, var, self.weight, self.bias)
