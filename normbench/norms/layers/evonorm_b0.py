"""EvoNorm-B0, a normalization and activation found by search (Liu et al. 2020, arXiv
2004.02967).

y = weight * x / max(sqrt(var + eps), v * x + sqrt(instance_var + eps)) + bias, with the
biased variance of each channel over samples and positions, and of each sample and
channel over positions, masked ones included; no mean is subtracted. running_var is
moved as in `batch`, with the unbiased variance, and is var in evaluation.
weight, bias, v, running_var: (C,), v is 1 at first. As timm's EvoNorm2dB0, eps 1e-3 too
(1e-5 in the other norms).
"""

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from normbench.norms.base import Momentum, per_channel, require_positions
from normbench.norms.statistics import BatchStatistics, pooled, widened


class EvoNormB0(BatchStatistics, name="evonorm_b0"):
    source = "Liu et al. 2020"
    contains_activation = True

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(
        self, channels: int, *, eps: PositiveFloat = 1e-3, momentum: Momentum = 0.1
    ) -> None:
        super().__init__(channels, eps=eps, momentum=momentum)

    def add_state(self) -> None:
        self.v = nn.Parameter(torch.ones(self.channels))
        self.add_statistics(running_var=torch.ones(self.channels))

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        require_positions(self, x)
        wide = widened(x)
        instance_var, mean = torch.var_mean(wide.flatten(2), 2, correction=0)
        var = self.running_var
        if self.training:
            # The variance within the instances and between them: no second pass.
            between = mean.var(0, correction=0)
            var = pooled(mean.mean(0), instance_var.mean(0) + between)[1]
            self.update(None, var, self.count(x))
        batch_std = per_channel(torch.sqrt(var + self.eps), x)
        instance_std = per_channel(torch.sqrt(instance_var + self.eps), x)
        below = torch.maximum(batch_std, per_channel(self.v, x) * wide + instance_std)
        y = per_channel(self.weight, x) * wide / below + per_channel(self.bias, x)
        return y.to(x.dtype)
