"""Statistics over the samples of a batch: what several norms compute alike.

Every norm that uses other samples takes its moments through this file, so that here is
where the samples may be those of several processes (`shared_by`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from normbench.errors import Incompatible
from normbench.norms.base import Norm, per_channel, require_several

_group: dist.ProcessGroup | None = None
_replicas = 1
_exchanges = 0


@contextmanager
def shared_by(group: dist.ProcessGroup | None, replicas: int = 1) -> Iterator[None]:
    """Let the training forwards inside take statistics over all processes of `group`.

    Each has as many samples. The gradient of a statistic is that of the sum of the
    processes' losses, so that the mean of their parameters' gradients is the gradient
    of their mean loss. Backward passes may come after; None shares with nobody.
    `replicas` is how many processes train the network, sharing or not: the loss of the
    run is the mean of theirs.
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
    """How many they are; 1 where a process is alone."""
    return 1 if _group is None else _group.size()


def replicas() -> int:
    """How many processes' losses the loss of the run is the mean of."""
    return _replicas


def exchanges() -> int:
    """How often this process has exchanged statistics with others until now."""
    return _exchanges


def pooled(
    mean: Tensor, var: Tensor, count: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over all processes, of those of this one.

    Both of one shape, over `count` values: a scalar on the device, None where every
    process has as many. As parts of one set (Chan et al. 1979): the variance within
    them plus that between them. A difference of two large sums, E[x^2] - E[x]^2, would
    lose digits where the mean is large.
    """
    if _group is None:
        return mean, var
    if count is None:
        means, variances = _gather(torch.stack([mean, var]), _group).unbind(1)
        return means.mean(0), variances.mean(0) + means.var(0, correction=0)
    own = torch.stack([mean, var, count.to(mean.dtype).expand_as(mean)])
    means, variances, counts = _gather(own, _group).unbind(1)
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
        # Every process's loss depends on this one's part.
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad, group=ctx.group)
        return grad[ctx.group.rank()], None


def register_running_statistics(norm: Norm, channels: int | None = None) -> None:
    """Give `norm` the buffers of torch.nn.BatchNorm1d: two of shape (C,), a counter.

    `channels` where it is not all of them that have running statistics.
    """
    channels = norm.channels if channels is None else channels
    norm.register_buffer("running_mean", torch.zeros(channels))
    norm.register_buffer("running_var", torch.ones(channels))
    norm.register_buffer("num_batches_tracked", torch.tensor(0))


def batch_norm(
    norm: Norm, x: Tensor, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    """torch's batch normalization of `x` with the buffers and in the mode of `norm`.

    Raises Incompatible in training on a single value per channel.
    """
    if norm.training:
        count = x.numel() // x.shape[1] * processes()
        require_several(count, norm, x, "raise norm_batch or the resolution")
        if _group is not None:
            mean, var = batch_moments(x, None, count)
            update_running_statistics(norm, mean.detach(), var.detach(), count)
            return standardise(norm, x, mean, var, weight, bias)
        norm.num_batches_tracked.add_(1)
    tokens = x.transpose(1, -1)
    # torch's kernel on (N, C, T) copies; on the (N * T, C) that lies there it does not.
    flat = x.dim() == 3 and tokens.is_contiguous()
    y = F.batch_norm(
        tokens.reshape(-1, norm.channels) if flat else x,
        norm.running_mean,
        norm.running_var,
        weight,
        bias,
        training=norm.training,
        momentum=norm.momentum,
        eps=norm.eps,
    )
    return y.view(tokens.shape).transpose(1, -1) if flat else y


def batch_count(norm: Norm, x: Tensor, mask: Tensor | None) -> Tensor | int:
    """The number of (real) values per channel, those of all processes that share.

    Of a mask a scalar on the device, >= 1.

    Raises Incompatible where it is below 2; where asking a mask would wait for the
    device or break a compiled graph, `update_running_statistics` leaves such a batch
    out instead.
    """
    if mask is None:
        count = x.numel() // x.shape[1] * processes()
        require_several(count, norm, x, "raise norm_batch or the resolution")
        return count
    real = total(mask.sum(), _group)
    may_ask = mask.device.type == "cpu" and not torch.compiler.is_compiling()
    if may_ask and real <= 1:
        raise Incompatible(
            f"norm={norm.name} needs more than one real position per norm batch, "
            f"and a mask of shape {tuple(mask.shape)} has {int(real)}; "
            "raise norm_batch"
        )
    return real.clamp(min=1)


def batch_moments(
    x: Tensor, mask: Tensor | None, count: Tensor | int
) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) of `count` (real) values, in float32 at least."""
    over = [0, *range(2, x.dim())]
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    if mask is None:
        var, mean = torch.var_mean(wide, over, correction=0)
        return pooled(mean, var)
    own = None if _group is None else mask.sum()
    divisor = count if own is None else own.clamp(min=1)
    real = mask.unsqueeze(1)
    mean = torch.where(real, wide, 0).sum(over) / divisor
    centred = torch.where(real, wide - per_channel(mean, x), 0)
    return pooled(mean, centred.square().sum(over) / divisor, own)


def clean_pads(x: Tensor, mask: Tensor) -> Tensor:
    """`x` with 0 where a masked position is not finite.

    Zero gradient times NaN is NaN: it would reach weight and real positions.
    """
    return torch.where(mask.unsqueeze(1) | x.isfinite(), x, 0)


def standardise(
    norm: Norm,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """weight * (x - mean) / sqrt(var + norm.eps) + bias, in the type of `x`.

    mean, weight, bias: (C,); var: (C,) or a scalar for all channels.
    """
    scale = torch.rsqrt(var + norm.eps)
    if weight is not None:
        scale = scale * weight
    y = (x - per_channel(mean, x)) * per_channel(scale, x)
    if bias is not None:
        y = y + per_channel(bias, x)
    return y.to(x.dtype)


@torch.no_grad()
def update_running_statistics(
    norm: Norm, mean: Tensor | None, var: Tensor, count: Tensor | int
) -> None:
    """Move the running statistics towards `mean` and the unbiased `var`; count it.

    A `count` on the device that is below 2 moves nothing.
    """
    step: Tensor | float = norm.momentum
    if isinstance(count, int):
        unbiased = var * (count / (count - 1))
    else:
        step = norm.momentum * (count > 1).to(norm.running_var.dtype)
        unbiased = var * (count / (count - 1).clamp(min=1))
    if mean is not None:
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), step)
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), step)
    norm.num_batches_tracked.add_(1)
