"""Statistics over the samples of a batch, and the base of the norms that take them.

Every norm that uses other samples takes its moments through this file, so that the
samples may be those of several processes (`shared_by`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from pydantic import PositiveFloat
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from normbench.errors import Incompatible
from normbench.norms.base import (
    Momentum,
    Norm,
    affine_parameters,
    per_channel,
    require_several,
)

_group: dist.ProcessGroup | None = None
_replicas = 1
_exchanges = 0


@contextmanager
def shared_by(group: dist.ProcessGroup | None, replicas: int = 1) -> Iterator[None]:
    """Let the training forwards inside take statistics over all processes of `group`.

    Every process has as many samples. The gradient of a statistic is that of the sum of
    the processes' losses, so that the mean of their parameters' gradients is the
    gradient of their mean loss. Backward passes may come after; None: this process
    alone. `replicas` is the number of processes that train the network, sharing or not:
    the loss of the run is the mean of their losses.
    """
    global _group, _replicas
    before, _group, _replicas = (_group, _replicas), group, replicas
    try:
        yield
    finally:
        _group, _replicas = before


def sharing() -> dist.ProcessGroup | None:
    """The processes that share statistics now."""
    return _group


def processes() -> int:
    """The number of processes that share statistics now; 1 without sharing."""
    return 1 if _group is None else _group.size()


def replicas() -> int:
    """The number of processes over whose losses the loss of the run is the mean."""
    return _replicas


def exchanges() -> int:
    """How often this process has exchanged statistics with others until now."""
    return _exchanges


def pooled(
    mean: Tensor, var: Tensor, count: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over all processes, from those of this process.

    Both have one shape and are over `count` values: a scalar on the device, None where
    all processes have as many. Pooled as parts of one set (Chan et al. 1979): the
    variance within the parts plus that between them. A difference of two large sums,
    E[x^2] - E[x]^2, would lose digits where the mean is large.
    """
    if _group is None:
        return mean, var
    if count is None:
        means, variances = _gather(torch.stack([mean, var]), _group).unbind(1)
        return means.mean(0), variances.mean(0) + means.var(0, correction=0)
    part = torch.stack([mean, var, count.to(mean.dtype).expand_as(mean)])
    means, variances, counts = _gather(part, _group).unbind(1)
    weights = counts / counts.sum(0).clamp(min=1)
    mean = (weights * means).sum(0)
    return mean, (weights * (variances + (means - mean).square())).sum(0)


@torch.no_grad()
def total(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The sum of `values` over the processes of `group`, without a gradient."""
    return values if group is None else _gather(values, group).sum(0)


# It would break a compiled graph anyway, with a warning.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _gather(values: Tensor, group: dist.ProcessGroup) -> Tensor:
    """(processes, *values.shape), in the order of their ranks."""
    global _exchanges
    _exchanges += 1
    gathered: Tensor = _Gather.apply(values.contiguous(), group)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        parts = values.new_empty(group.size(), *values.shape)
        dist.all_gather(list(parts.unbind()), values, group=group)
        return parts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        # The loss of every process depends on the part of this one.
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad, group=ctx.group)
        return grad[ctx.group.rank()], None


def widened(x: Tensor) -> Tensor:
    """`x` in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def batch_moments(
    x: Tensor, mask: Tensor | None, count: Tensor | int
) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) of `count` (real) values, in float32 at least."""
    axes = [0, *range(2, x.dim())]
    wide = widened(x)
    if mask is None:
        var, mean = torch.var_mean(wide, axes, correction=0)
        return pooled(mean, var)
    in_process = None if _group is None else mask.sum()
    divisor = count if in_process is None else in_process.clamp(min=1)
    real = mask.unsqueeze(1)
    mean = torch.where(real, wide, 0).sum(axes) / divisor
    centred = torch.where(real, wide - per_channel(mean, x), 0)
    return pooled(mean, centred.square().sum(axes) / divisor, in_process)


def clean_pads(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x` with 0 where a masked position is not finite.

    Zero gradient times NaN is NaN: it would reach weight and real positions.
    """
    if mask is None:
        return x
    return torch.where(mask.unsqueeze(1) | x.isfinite(), x, 0)


class BatchStatistics(Norm, name=""):
    """A base class: statistics of the batch in training, running ones in evaluation.

    weight (ones), bias (zeros): (C,), or None where `affine` is false. The buffers are
    those of `add_state`. Defaults as torch.nn.BatchNorm1d.
    """

    axes = "all samples, one channel, all positions"
    uses_other_samples = True
    differs_in_eval = True

    num_batches_tracked: Tensor

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
        self.add_state()

    def add_state(self) -> None:
        """Register the buffers of torch.nn.BatchNorm1d: running statistics, a counter.

        A norm with further parameters extends it, a norm with other buffers replaces
        it. `__init__` calls it last.
        """
        self.add_statistics(
            running_mean=torch.zeros(self.channels),
            running_var=torch.ones(self.channels),
        )

    def add_statistics(self, **buffers: Tensor) -> None:
        """Register `buffers` and the counter of training forwards."""
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def count(self, x: Tensor, mask: Tensor | None = None) -> Tensor | int:
        """The number of (real) values per channel in all processes that share.

        With a mask it is a scalar on the device, at least 1. Raises Incompatible where
        the number is below 2. Where asking a mask would wait for the device or break a
        compiled graph, `update` leaves such a batch out instead.
        """
        if mask is None:
            count = x.numel() // x.shape[1] * processes()
            require_several(count, self, x, "raise norm_batch or the resolution")
            return count
        real = total(mask.sum(), _group)
        may_ask = mask.device.type == "cpu" and not torch.compiler.is_compiling()
        if may_ask and real <= 1:
            raise Incompatible(
                f"norm={self.name} needs more than one real position per norm batch, "
                f"and a mask of shape {tuple(mask.shape)} has {int(real)}; "
                "raise norm_batch"
            )
        return real.clamp(min=1)

    @torch.no_grad()
    def update(self, mean: Tensor | None, var: Tensor, count: Tensor | int) -> None:
        """Move the running statistics towards `mean` and the unbiased `var`; count it.

        A `count` on the device that is below 2 moves nothing.
        """
        step: Tensor | float = self.momentum
        if isinstance(count, int):
            unbiased = var * (count / (count - 1))
        else:
            step = self.momentum * (count > 1).to(self.running_var.dtype)
            unbiased = var * (count / (count - 1).clamp(min=1))
        if mean is not None:
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), step)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), step)
        self.num_batches_tracked.add_(1)

    def standardize(
        self,
        x: Tensor,
        mean: Tensor,
        var: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
    ) -> Tensor:
        """weight * (x - mean) / sqrt(var + eps) + bias, in the type of `x`.

        mean, weight, bias: (C,); var: (C,) or a scalar for all channels.
        """
        scale = torch.rsqrt(var + self.eps)
        if weight is not None:
            scale = scale * weight
        y = (x - per_channel(mean, x)) * per_channel(scale, x)
        if bias is not None:
            y = y + per_channel(bias, x)
        return y.to(x.dtype)

    def batch_norm(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        """torch's batch normalization of `x` in this mode, with these buffers.

        Raises Incompatible in training on a single value per channel.
        """
        if self.training:
            count = self.count(x)
            if _group is not None:
                mean, var = batch_moments(x, None, count)
                self.update(mean, var, count)
                return self.standardize(x, mean, var, weight, bias)
            self.num_batches_tracked.add_(1)
        tokens = x.transpose(1, -1)
        # torch's kernel copies (N, C, T); it takes the (N * T, C) in memory as it is.
        flat = x.dim() == 3 and tokens.is_contiguous()
        y = F.batch_norm(
            tokens.reshape(-1, self.channels) if flat else x,
            self.running_mean,
            self.running_var,
            weight,
            bias,
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
        )
        return y.view(tokens.shape).transpose(1, -1) if flat else y
