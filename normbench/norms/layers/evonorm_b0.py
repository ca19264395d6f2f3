"""EvoNorm-B0: normalization and activation in one layer, found by a search (Liu et al.
2020, arXiv 2004.02967).

y = weight * x / max(sqrt(var + eps), v * x + sqrt(instance_var + eps)) + bias. var is
the biased variance of each channel over samples and positions. instance_var is the
biased variance of each sample and channel over positions. Both variances include masked
positions. No mean is subtracted. running_var is updated as in `batch`, with the
unbiased variance, and takes the place of var in evaluation.
weight, bias, v, running_var: (C,); v starts at 1. Equals timm's EvoNorm2dB0, including
its eps of 1e-3 (1e-5 in the other norms).
"""

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from normbench.norms.base import Momentum, per_channel, require_positions
from normbench.norms.sharing import pooled
from normbench.norms.statistics import BatchStatistics, at_least_float32


class EvoNormB0(BatchStatistics, name="evonorm_b0"):
    source = "Liu et al. 2020"
    one_call = True
    contains_activation = True

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(
        self,
        channels: int,
        *,
        eps: PositiveFloat = 1e-3,
        momentum: Momentum | None = 0.1,
    ) -> None:
        super().__init__(channels, eps=eps, momentum=momentum)

    def add_state(self) -> None:
        self.v = nn.Parameter(torch.ones(self.channels))
        self.add_statistics(running_var=torch.ones(self.channels))

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        require_positions(self, x)
        wide = at_least_float32(x)
        instance_var, mean = torch.var_mean(wide.flatten(2), 2, correction=0)
        var = self.running_var
        if self.training:
            # The batch variance is the mean variance within instances plus the variance
            # between instances. So x is read once.
            means = mean.unflatten(0, (self.chunks, -1))
            within = instance_var.unflatten(0, (self.chunks, -1)).mean(1)
            between = means.var(1, correction=0)
            var = pooled(means.mean(1), within + between)[1]
            self.update(None, var, self.count(x))
        batch_std = per_channel(torch.sqrt(var + self.eps), x)
        instance_std = per_channel(torch.sqrt(instance_var + self.eps), x)
        gated = per_channel(self.v, x) * wide + instance_std
        divisor = torch.maximum(batch_std, gated)
        y = per_channel(self.weight, x) * wide / divisor + per_channel(self.bias, x)
        return y.to(x.dtype)
