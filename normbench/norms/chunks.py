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
    the memory format of `x`. Mean and variance are (k, C) and have no gradient.
    """
    tokens = not x.is_contiguous() and x.movedim(1, -1).is_contiguous()
    normalize = _chunks_as_channels if tokens else _chunks_as_samples
    y, mean, rstd = normalize(x, chunks, weight, bias, eps)
    mean, rstd = mean.detach().view(chunks, -1), rstd.detach().view(chunks, -1)
    return y, mean, rstd.pow(-2).sub_(eps).clamp_(min=0)


# Both kernels need the values of a channel of a chunk in another order, so they copy
# `x`, except that chunks of one sample need no copy in the first. Each was the fastest
# for its memory format on a CPU.


def _chunks_as_samples(
    x: Tensor, chunks: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize `x`, contiguous as (N, C, *spatial), as groups of one channel.

    Returns the result, the means and the inverse standard deviations.
    """
    channels = x.shape[1]
    parts = x.reshape(chunks, len(x) // chunks, channels, -1).transpose(1, 2)
    own_affine = weight is not None and weight.dim() == 2
    samples, groups = (1, chunks * channels) if own_affine else (chunks, channels)
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
    return y.view(parts.shape).transpose(1, 2).reshape(x.shape), mean, rstd


def _chunks_as_channels(
    x: Tensor, chunks: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_chunks_as_samples`, for `x` contiguous as (N, *spatial, C)."""
    channels, last = x.shape[1], x.movedim(1, -1)
    rows = last.reshape(chunks, -1, channels).transpose(0, 1)
    weight, bias = (
        None if values is None else values.expand(chunks, channels).flatten()
        for values in (weight, bias)
    )
    y, mean, rstd = torch.native_batch_norm(
        rows.flatten(1), weight, bias, None, None, True, 0.0, eps
    )
    y = y.view(rows.shape).transpose(0, 1).reshape(last.shape)
    return y.movedim(-1, 1), mean, rstd


def weights_after_chunks(steps: Tensor) -> Tensor:
    """Return the weights of a running average after each chunk: (k + 1, k + 1).

    Chunk i moves the average r to its statistic s by r += steps[i] * (s - r); steps:
    (k,). Row j has the weights of r and of the k statistics after j chunks, so row 0 is
    1, 0, ..., 0, and the last row is the average after the batch.
    """
    steps = F.pad(steps, (1, 0), value=1.0)
    kept = (1 - steps).unsqueeze(1).expand(-1, len(steps)).tril(-1)
    return (kept + torch.ones_like(kept).triu()).cumprod(0).tril() * steps


def weighted(weights: Tensor, running: Tensor, statistics: Tensor) -> Tensor:
    """Return the running averages with the rows `weights`: (rows, *running.shape).

    weights: (rows, k + 1); statistics: (k, *running.shape).
    """
    values = torch.cat([running.flatten().unsqueeze(0), statistics])
    # A matrix product would run in 16 bits under autocast.
    averages = (weights.unsqueeze(2) * values.to(weights.dtype)).sum(1)
    return averages.view(-1, *running.shape)
