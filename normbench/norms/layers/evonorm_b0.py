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

from normbench.norms.base import Momentum, Norm, per_channel, require_several
from normbench.norms.statistics import (
    pooled,
    processes,
    update_running_statistics,
)


class EvoNormB0(Norm, name="evonorm_b0"):
    source = "Liu et al. 2020"
    axes = "all samples, one channel, all positions"
    uses_other_samples = True
    differs_in_eval = True
    contains_activation = True

    def __init__(
        self,
        channels: int,
        *,
        eps: PositiveFloat = 1e-3,
        momentum: Momentum = 0.1,
    ) -> None:
        super().__init__(channels)
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.v = nn.Parameter(torch.ones(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        require_several(
            x.shape[2:].numel(), self, x, "raise the resolution or the length"
        )
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        instance_var, mean = torch.var_mean(wide.flatten(2), 2, correction=0)
        var = self.running_var
        if self.training:
            # The variance within the instances and between them: no second pass.
            var = instance_var.mean(0) + mean.var(0, correction=0)
            _, var = pooled(mean.mean(0), var)
            count = x.numel() // self.channels * processes()
            update_running_statistics(self, None, var.detach(), count)
        of_batch = per_channel(torch.sqrt(var + self.eps), x)
        of_instance = torch.sqrt(instance_var + self.eps)
        of_instance = of_instance.view(*of_instance.shape, *(1,) * (x.dim() - 2))
        below = torch.maximum(of_batch, per_channel(self.v, x) * wide + of_instance)
        y = per_channel(self.weight, x) * wide / below + per_channel(self.bias, x)
        return y.to(x.dtype)
