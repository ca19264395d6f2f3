"""Power normalization (Shen et al. 2020, arXiv 2003.07845).

Training: z = x / sqrt(running_square + eps), y = weight * z + bias, with the running
mean square of each channel as it was before this forward; no mean is subtracted. Then
running_square += momentum * (square - running_square), with the mean square over the
(real) positions of all samples. In the first `warmup_steps` training forwards z is
x / sqrt(square + eps) instead, and at momentum 1, where nothing is remembered.
The backward pass is the paper's approximation of that through the running mean square:
with g the gradient of z and nu a buffer, the gradient of x is
(g - nu * z) / sqrt(what z divided by), and then
nu = nu * (1 - momentum * mean(z * z)) + momentum * mean(g * z).
The means are over the (real) positions of all samples; a pad has no nu * z.
Evaluation: y = weight * x / sqrt(running_square + eps) + bias.
weight, bias, running_square, nu: (C,). As the paper (momentum = 1 - alpha); its code
also divides x by its root mean square over channels first, divides the gradient by the
batch's root mean square after the warm-up too, and warms up for thousands of forwards.
An infinity or NaN at a pad counts as 0.
"""

from typing import Any

import torch
import torch.distributed as dist
from pydantic import NonNegativeInt, PositiveFloat
from torch import Tensor
from torch.autograd.function import once_differentiable

from normbench.norms.base import Momentum, per_channel
from normbench.norms.statistics import (
    BatchStatistics,
    clean_pads,
    replicas,
    sharing,
    total,
    widened,
)


class PowerNorm(BatchStatistics, name="power"):
    source = "Shen et al. 2020"
    honours_mask = True
    exact_gradient = False
    loss_scaling = False  # `nu` averages gradients, whose scale would change

    running_square: Tensor
    nu: Tensor

    def __init__(
        self,
        channels: int,
        *,
        warmup_steps: NonNegativeInt = 50,
        eps: PositiveFloat = 1e-5,
        momentum: Momentum = 0.1,
        affine: bool = True,
    ) -> None:
        super().__init__(channels, eps=eps, momentum=momentum, affine=affine)
        self.warmup_steps = warmup_steps

    def add_state(self) -> None:
        ones, zeros = torch.ones(self.channels), torch.zeros(self.channels)
        self.add_statistics(running_square=ones, nu=zeros)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *_: Tensor | None
    ) -> Tensor:
        x = clean_pads(x, mask)
        if self.training:
            count = self.count(x, mask)
            real = None if mask is None else mask.unsqueeze(1)
            inverse = torch.rsqrt(self._square(x, real, count) + self.eps)
            z: Tensor = _Divide.apply(x, inverse, self.nu, self.momentum, real, count)
        else:
            z = x * per_channel(torch.rsqrt(self.running_square + self.eps), x)
        if self.weight is None or self.bias is None:
            return z.to(x.dtype)
        y = torch.addcmul(per_channel(self.bias, x), per_channel(self.weight, x), z)
        return y.to(x.dtype)

    @torch.no_grad()
    def _square(self, x: Tensor, real: Tensor | None, count: Tensor | int) -> Tensor:
        """The mean square to divide by; moves the running mean square."""
        dtype = self.running_square.dtype
        square = _mean(widened(x).square(), real, count, sharing()).to(dtype)
        if self.momentum == 1:
            divisor = square
        else:
            warm = self.num_batches_tracked < self.warmup_steps
            divisor = torch.where(warm, square, self.running_square)
        step: Tensor | float = self.momentum
        if isinstance(count, Tensor):
            step = self.momentum * (count > 1).to(dtype)
        self.running_square.lerp_(square, step)
        self.num_batches_tracked.add_(1)
        return divisor


def _mean(
    values: Tensor,
    real: Tensor | None,
    count: Tensor | int,
    group: dist.ProcessGroup | None,
) -> Tensor:
    if real is not None:
        values = torch.where(real, values, 0)
    return total(values.sum([0, *range(2, values.dim())]), group) / count


class _Divide(torch.autograd.Function):
    """x * inverse, with the paper's backward pass, which moves `nu`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        inverse: Tensor,
        nu: Tensor,
        momentum: float,
        real: Tensor | None,
        count: Tensor | int,
    ) -> Tensor:
        ctx.save_for_backward(x, inverse, real)
        ctx.nu, ctx.momentum, ctx.count = nu, momentum, count
        ctx.group, ctx.replicas = sharing(), replicas()
        return x * per_channel(inverse, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, inverse, real = ctx.saved_tensors
        nu: Tensor = ctx.nu
        scale = per_channel(inverse, x)
        z = x * scale
        # `grad` is of this process's loss, `nu` of the mean of all losses.
        correction = per_channel(nu * ctx.replicas, x) * z
        if real is not None:
            correction = torch.where(real, correction, 0)
        x_grad = ((grad - correction) * scale).to(x.dtype)
        gamma, lam = (_mean(v * z, real, ctx.count, ctx.group) for v in (z, grad))
        nu.add_(ctx.momentum * (lam / ctx.replicas - nu * gamma))
        return x_grad, None, None, None, None, None
