"""Batch normalization that leaves the pads out of its statistics (folklore; PowerNorm,
Shen et al. 2020, and RBN, Wang et al. 2022, have it in their code).

As `batch`, with the mean, the biased variance (unbiased in running_var) and the count
of values taken over the real positions of all samples. Every position goes through the
same affine map, pads too; an infinity or NaN at a pad counts as 0.
weight, bias, running_mean, running_var: (C,). Equals torch.nn.BatchNorm1d on x[mask].
"""

import torch
from pydantic import PositiveFloat
from torch import Tensor

from normbench.errors import Incompatible
from normbench.norms.base import (
    Momentum,
    Norm,
    affine_parameters,
    batch_norm,
    check_mask,
    per_channel,
    register_running_statistics,
)


class MaskedBatchNorm(Norm, name="batch_masked"):
    source = "folklore; Shen et al. 2020"
    axes = "all samples, one channel, all positions"
    uses_other_samples = True
    differs_in_eval = True
    honours_mask = True

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
        register_running_statistics(self)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        if mask is None:
            return batch_norm(self, x, self.weight, self.bias)
        check_mask(mask, self, x)
        real = mask.unsqueeze(1)
        # Zero gradient times NaN is NaN: it would reach weight and real positions.
        x = torch.where(real | x.isfinite(), x, 0)
        if not self.training:
            return batch_norm(self, x, self.weight, self.bias)

        count = self._count(mask)
        over = [0, *range(2, x.dim())]
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = torch.where(real, wide, 0).sum(over) / count
        centred = wide - per_channel(mean, x)
        var = torch.where(real, centred, 0).square().sum(over) / count
        self._update(mean.detach(), var.detach(), count)

        scale = torch.rsqrt(var + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        y = centred * per_channel(scale, x)
        if self.bias is not None:
            y = y + per_channel(self.bias, x)
        return y.to(x.dtype)

    def _count(self, mask: Tensor) -> Tensor:
        """The number of real positions, at least 1, as a scalar on the device.

        Raises Incompatible where it is below 2, on the CPU. Elsewhere asking would wait
        for the device: such a batch comes out as bias, and `_update` leaves it out.
        """
        count = mask.sum()
        if mask.device.type == "cpu" and count <= 1:
            raise Incompatible(
                f"norm={self.name} needs more than one real position per norm batch, "
                f"and a mask of shape {tuple(mask.shape)} has {int(count)}; "
                "raise norm_batch"
            )
        return count.clamp(min=1)

    @torch.no_grad()
    def _update(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        step = torch.where(count > 1, self.momentum, 0.0).to(self.running_mean.dtype)
        unbiased = var * (count / (count - 1).clamp(min=1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), step)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), step)
        self.num_batches_tracked.add_(1)
