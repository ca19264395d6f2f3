"""Statistics over the samples of a batch: what several norms compute alike."""

import torch
from torch import Tensor
from torch.nn import functional as F

from normbench.errors import Incompatible
from normbench.norms.base import Norm, per_channel, require_several


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
        count = x.numel() // x.shape[1]
        require_several(count, norm, x, "raise norm_batch or the resolution")
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
    """The number of (real) values per channel; of a mask a scalar on the device, >= 1.

    Raises Incompatible where it is below 2; where asking a mask would wait for the
    device or break a compiled graph, `update_running_statistics` leaves such a batch
    out instead.
    """
    if mask is None:
        count = x.numel() // x.shape[1]
        require_several(count, norm, x, "raise norm_batch or the resolution")
        return count
    real = mask.sum()
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
        return mean, var
    real = mask.unsqueeze(1)
    mean = torch.where(real, wide, 0).sum(over) / count
    centred = torch.where(real, wide - per_channel(mean, x), 0)
    return mean, centred.square().sum(over) / count


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
