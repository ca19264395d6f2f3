"""Power normalization (Shen et al. 2020, arXiv 2003.07845).

Training: y = weight * z + bias with z = x / sqrt(running_square + eps). Here
running_square, the running mean square of each channel, still has its value from before
this forward. No mean is subtracted. Afterwards the forward updates it:
running_square += momentum * (square - running_square), where square is the mean of
x * x over all samples and all positions that are not masked. In the first
`warmup_steps` optimizer steps, and always at momentum 1, z is x / sqrt(square + eps)
instead.
The backward pass is the paper's approximation of the gradient through the running mean
square. Let g be the gradient of z, and nu a buffer. The gradient of x is
(g - nu * z) / sqrt(s + eps), where s is the mean square that z used. Then
nu = nu * (1 - momentum * mean(z * z)) + momentum * mean(g * z).
The chunks of a ghost batch change nu one after another too, but the last one first.
These means also leave out masked positions, and the term nu * z is 0 there.
Evaluation: y = weight * x / sqrt(running_square + eps) + bias.
weight, bias, running_square, nu: (C,). All this is as in the paper, whose alpha is
1 - momentum. The authors' code differs: it first divides x by its root mean square over
channels, it divides the gradient by the batch's root mean square after the warm-up too,
and it warms up for thousands of steps. An infinity or NaN at a masked position
counts as 0.
"""

from typing import Any

import torch
import torch.distributed as dist
from pydantic import NonNegativeInt, PositiveFloat
from torch import Tensor
from torch.autograd.function import once_differentiable

from normbench.norms.base import Momentum, per_channel
from normbench.norms.chunks import split_chunks
from normbench.norms.sharing import replica_count, shared_group, sum_over_processes
from normbench.norms.statistics import BatchStatistics, at_least_float32, clean_pads


class PowerNorm(BatchStatistics, name="power"):
    source = "Shen et al. 2020"
    one_call = True
    honours_mask = True
    exact_gradient = False
    loss_scaling = False  # `nu` averages gradients of steps with different scales

    momentum: float
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
            z: Tensor = _Divide.apply(
                x, inverse, self.nu, self.momentum, real, count, self.chunks
            )
        else:
            z = x * per_channel(torch.rsqrt(self.running_square + self.eps), x)
        if self.weight is None or self.bias is None:
            return z.to(x.dtype)
        y = torch.addcmul(per_channel(self.bias, x), per_channel(self.weight, x), z)
        return y.to(x.dtype)

    @torch.no_grad()
    def _square(self, x: Tensor, real: Tensor | None, count: Tensor | int) -> Tensor:
        """Return the mean square to divide by, and update the running mean square."""
        dtype = self.running_square.dtype
        squares = at_least_float32(x).square()
        square = _mean(squares, real, count, shared_group(), self.chunks).to(dtype)
        divisor = square
        if self.momentum != 1:
            before = self.before_chunks(self.running_square, square, count)
            in_warmup = self.past_steps() < self.warmup_steps
            divisor = torch.where(in_warmup, square, before)
        self.average(count, running_square=square)
        return divisor


def _mean(
    values: Tensor,
    real: Tensor | None,
    count: Tensor | int,
    group: dist.ProcessGroup | None,
    chunks: int,
) -> Tensor:
    if real is not None:
        values = torch.where(real, values, 0)
    total = torch.sum(*split_chunks(values, chunks))
    return sum_over_processes(total, group) / count


class _Divide(torch.autograd.Function):
    """Computes x * inverse; the paper's backward pass also updates `nu`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        inverse: Tensor,
        nu: Tensor,
        momentum: float,
        real: Tensor | None,
        count: Tensor | int,
        chunks: int,
    ) -> Tensor:
        ctx.save_for_backward(x, inverse, real)
        ctx.nu, ctx.momentum, ctx.count, ctx.chunks = nu, momentum, count, chunks
        ctx.group, ctx.replicas = shared_group(), replica_count()
        return x * per_channel(inverse, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, inverse, real = ctx.saved_tensors
        scale = per_channel(inverse, x)
        z = x * scale
        mean_zz, mean_gz = (
            _mean(values, real, ctx.count, ctx.group, ctx.chunks).view(ctx.chunks, -1)
            for values in (z * z, grad * z)
        )
        # As without chunks in one call, the backward pass begins with the last chunk.
        nu: Tensor = ctx.nu
        before = []  # nu for each chunk, the last one first
        for zz, gz in zip(mean_zz.flip(0), mean_gz.flip(0), strict=True):
            before.append(nu)
            nu = nu + ctx.momentum * (gz / ctx.replicas - nu * zz)
        # `grad` belongs to the loss of this process, `nu` to the mean loss of all.
        correction = torch.stack(before[::-1]) * ctx.replicas
        correction = per_channel(correction, x) * z
        if real is not None:
            correction = torch.where(real, correction, 0)
        x_grad = ((grad - correction) * scale).to(x.dtype)
        ctx.nu.copy_(nu)
        return x_grad, None, None, None, None, None, None
