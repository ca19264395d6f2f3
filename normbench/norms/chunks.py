"""Functions on a batch of equal chunks, each of which has statistics of its own.

k is the number of chunks, n = N / k the number of consecutive samples in each.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def split_chunks(x: Tensor, chunks: int) -> tuple[Tensor, list[int]]:
    """Return `x` (N, C, ...) as (k, n, C, ...), and all axes but those of k and C.

    With one chunk, `x` is returned unchanged.
    """
    if chunks == 1:
        return x, [0, *range(2, x.dim())]
    return x.unflatten(0, (chunks, -1)), [1, *range(3, x.dim() + 1)]


def batch_norm_by_chunk(
    x: Tensor, chunks: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the batch normalization of each chunk, its mean and its biased variance.

    x: (N, C, *spatial); weight, bias: (C,) or both (k, C), or None. The result is in
    the memory format of `x`. Mean and variance, (k, C), are for use without a gradient.
    """
    # A chunk is a sample of a group normalization with one channel per group. Its
    # kernel needs the values of a channel side by side, so `x` is copied, except for
    # chunks of one sample. Chunks as channels of F.batch_norm need the same copies,
    # and were slower on a CPU.
    channels = x.shape[1]
    parts = x.reshape(chunks, len(x) // chunks, channels, -1).transpose(1, 2)
    own_affine = weight is not None and weight.dim() == 2
    samples = 1 if own_affine else chunks
    groups = chunks * channels // samples
    values = parts.reshape(samples, groups, -1).contiguous()
    y, mean, rstd = torch.native_group_norm(
        values,
        None if weight is None else weight.flatten(),
        None if bias is None else bias.flatten(),
        samples,
        groups,
        values.shape[2],
        groups,
        eps,
    )
    with torch.no_grad():
        var = rstd.pow(-2).sub_(eps).clamp_(min=0).view(chunks, channels)
    y = y.view(parts.shape)
    last = x.movedim(1, -1)
    if last.is_contiguous() and not x.is_contiguous():
        y = y.permute(0, 2, 3, 1).reshape(last.shape).movedim(-1, 1)
    else:
        y = y.transpose(1, 2).reshape(x.shape)
    return y, mean.detach().view(chunks, channels), var


def weights_after_chunks(steps: Tensor) -> Tensor:
    """Return the weights of a running average after each chunk: (k + 1, k + 1).

    Chunk i moves the average r to its statistic s by r += steps[i] * (s - r); steps:
    (k,). Row j has the weights of r and of the k statistics after j chunks, so row 0 is
    1, 0, ..., 0, and the last row is the average after the batch.
    """
    steps = F.pad(steps, (1, 0), value=1.0)
    kept = (1 - steps).unsqueeze(1).expand(-1, len(steps)).tril(-1)
    return (kept + torch.ones_like(kept).triu()).cumprod(0).tril() * steps


def weights_of_chunks(step: float, chunks: int, like: Tensor) -> tuple[float, Tensor]:
    """Return the last row of `weights_after_chunks` for equal steps, in two parts.

    They are the weight of the running average, and those of the statistics: (k,), in
    the type of `like`, which is float32 or wider, and on its device.
    """
    later = torch.arange(chunks - 1, -1, -1, dtype=like.dtype, device=like.device)
    return (1 - step) ** chunks, step * torch.pow(1 - step, later)


def weighted(weights: Tensor, running: Tensor, statistics: Tensor) -> Tensor:
    """Return the running averages with the rows `weights`: (rows, *running.shape).

    weights: (rows, k + 1); statistics: (k, *running.shape).
    """
    values = torch.cat([running.flatten().unsqueeze(0), statistics])
    # A matrix product would run in 16 bits under autocast.
    averages = (weights.unsqueeze(2) * values.to(weights.dtype)).sum(1)
    return averages.view(-1, *running.shape)
