"""Extended batch normalization, EBN (Luo et al. 2020, arXiv 2003.05569).

Training: y = weight * (x - mean) / sqrt(var + eps) + bias, with the mean of each
channel over samples and positions, and one biased variance over samples, channels and
positions (so about the mean of them all), masked positions included. running_mean and
running_var as in `batch`, running_var with the unbiased variance; evaluation normalises
with these.
weight, bias, running_mean: (C,); running_var: (). Defaults as torch.nn.BatchNorm1d.
"""

import torch
from pydantic import PositiveFloat
from torch import Tensor

from normbench.norms.base import Momentum, Norm, affine_parameters
from normbench.norms.statistics import (
    batch_count,
    batch_moments,
    sharing,
    standardise,
    update_running_statistics,
)


class ExtendedBatchNorm(Norm, name="extended_batch"):
    source = "Luo et al. 2020"
    axes = "all samples, all channels, all positions"
    uses_other_samples = True
    differs_in_eval = True

    def __init__(
        self,
        channels: int,
        *,
        eps: PositiveFloat = 1e-5,
        momentum: Momentum = 0.1,
        affine: bool = True,
    ) -> None:
        super().__init__(channels)
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = affine_parameters(channels, affine)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.tensor(1.0))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        mean, var = self.running_mean, self.running_var
        if self.training:
            count = batch_count(self, x, None)
            if sharing() is None:
                wide = x.to(torch.promote_types(x.dtype, torch.float32))
                mean = wide.mean([0, *range(2, x.dim())])
                var = wide.var(correction=0)
            else:
                mean, of_channels = batch_moments(x, None, count)
                var = of_channels.mean() + mean.var(correction=0)
            update_running_statistics(
                self, mean.detach(), var.detach(), count * self.channels
            )
        return standardise(self, x, mean, var, self.weight, self.bias)
