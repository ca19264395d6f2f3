"""Statistics of a batch, and the base class of norms that use them.

All norms that use other samples compute their statistics with these functions, so that
the samples may be in several processes (`shared_by`).
"""

import torch
from pydantic import PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from normbench.errors import Incompatible
from normbench.norms.base import (
    Momentum,
    Norm,
    affine_parameters,
    per_channel,
    require_several,
)
from normbench.norms.chunks import (
    batch_norm_by_chunk,
    split_chunks,
    weighted,
    weights_after_chunks,
)
from normbench.norms.sharing import (
    pooled,
    process_count,
    shared_group,
    sum_over_processes,
)


def at_least_float32(x: Tensor) -> Tensor:
    """Return `x` in float32, or unchanged if its type is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def batch_moments(
    x: Tensor, mask: Tensor | None, count: Tensor | int, chunks: int = 1
) -> tuple[Tensor, Tensor]:
    """Return the mean and the biased variance (C,) per channel, at least in float32.

    Both are computed over the real positions, or over all positions if `mask` is None.
    `count` is the number of values per channel in all sharing processes, as
    BatchStatistics.count returns it. With several chunks, both are (chunks, C).
    """
    wide = at_least_float32(x)
    if mask is None:
        var, mean = torch.var_mean(*split_chunks(wide, chunks), correction=0)
        return pooled(mean, var)
    # Without sharing, `count` already is the number of values in this process.
    local_count = None if shared_group() is None else mask.sum()
    divisor = count if local_count is None else local_count.clamp(min=1)
    real = mask.unsqueeze(1)
    mean = torch.sum(*split_chunks(torch.where(real, wide, 0), chunks)) / divisor
    squares = torch.where(real, wide - per_channel(mean, x), 0).square()
    var = torch.sum(*split_chunks(squares, chunks)) / divisor
    return pooled(mean, var, local_count)


def unbiased(var: Tensor, count: Tensor | int) -> Tensor:
    """Return the unbiased variance for the biased variance over `count` values."""
    if isinstance(count, int):
        return var * (count / (count - 1))
    return var * (count / (count - 1).clamp(min=1))


def clean_pads(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return `x` with infinities and NaNs at masked positions replaced by 0.

    A zero gradient times NaN is NaN, and the NaN would reach other gradients.
    """
    if mask is None:
        return x
    return torch.where(mask.unsqueeze(1) | x.isfinite(), x, 0)


class BatchStatistics(Norm, name=""):
    """Base class of norms with batch statistics in training and running ones in eval.

    weight (ones), bias (zeros): (C,), or None without `affine`. `add_state` registers
    the buffers. The defaults are those of torch.nn.BatchNorm1d. At momentum None, the
    running statistics are the mean over all norm batches so far.
    """

    axes = "all samples, one channel, all positions"
    uses_other_samples = True
    differs_in_eval = True

    tracks: bool = True
    """The norm has running statistics; without them, all modes use those of a batch."""
    num_batches_tracked: Tensor

    def __init__(
        self,
        channels: int,
        *,
        eps: PositiveFloat = 1e-5,
        momentum: Momentum | None = 0.1,
        affine: bool = True,
    ) -> None:
        super().__init__(channels)
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = affine_parameters(channels, affine)
        self.add_state()

    def add_state(self) -> None:
        """Register the buffers of torch.nn.BatchNorm1d: running statistics, a counter.

        `__init__` calls this method last. A subclass extends it to add parameters, or
        overrides it to register other buffers with `add_statistics`.
        """
        self.add_statistics(
            running_mean=torch.zeros(self.channels),
            running_var=torch.ones(self.channels),
        )

    def add_statistics(self, **buffers: Tensor) -> None:
        """Register `buffers` and the count of training forwards."""
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    @property
    def of_batch(self) -> bool:
        """The norm normalizes with the statistics of the batch, not running ones."""
        return self.training or not self.tracks

    def count(self, x: Tensor, mask: Tensor | None = None) -> Tensor | int:
        """Return the number of values per channel and chunk in all sharing processes.

        With a mask, only real positions are counted, and the numbers are on the device,
        at least 1: a scalar, or (chunks, 1) with several chunks.
        Raises Incompatible if the number is below 2. With a mask, this is checked only
        on the CPU and outside compiled graphs, because the check would wait for another
        device. If it is not checked, `update` ignores a batch with a number below 2.
        """
        if mask is None:
            chunk = x[: x.shape[0] // self.chunks]
            count = chunk.numel() // x.shape[1] * process_count()
            require_several(count, self, chunk, "raise norm_batch or the resolution")
            return count
        chunk = mask[: len(mask) // self.chunks]
        several = self.chunks > 1
        real = mask.reshape(self.chunks, -1).sum(1, True) if several else mask.sum()
        real = sum_over_processes(real, shared_group())
        can_check = mask.device.type == "cpu" and not torch.compiler.is_compiling()
        if can_check and real.min() <= 1:
            raise Incompatible(
                f"norm={self.name} needs more than one real position per norm batch, "
                f"but a mask of shape {tuple(chunk.shape)} has {int(real.min())}; "
                "raise norm_batch"
            )
        return real.clamp(min=1)

    def update(self, mean: Tensor | None, var: Tensor, count: Tensor | int) -> None:
        """Update running_mean and running_var, as `average` does.

        `var` is the biased variance over `count` values, and running_var averages the
        unbiased variance. `mean` is None for a norm without a running mean.
        """
        means = {} if mean is None else {"running_mean": mean}
        self.average(count, **means, running_var=unbiased(var, count))

    @torch.no_grad()
    def average(self, count: Tensor | int, **statistics: Tensor) -> None:
        """Average `statistics` into the buffers of their names, and count the forward.

        Each has the shape of its buffer, or (chunks, ...) with several chunks, which
        count one after another. A chunk whose `count` is a tensor below 2 changes no
        buffer.
        """
        if not self.tracks:
            return
        if self.momentum is None:
            self._average_cumulatively(count, statistics)
            return
        self.count_forward()
        if self.chunks > 1:
            self._average_chunks(count, statistics)
            return
        step: Tensor | float = self.momentum
        for name, statistic in statistics.items():
            buffer = self.get_buffer(name)
            if isinstance(count, Tensor):  # the step is 0 if `count` is below 2
                step = self.momentum * (count > 1).to(buffer.dtype)
            buffer.lerp_(statistic.to(buffer.dtype).view_as(buffer), step)

    def _average_chunks(
        self, count: Tensor | int, statistics: dict[str, Tensor]
    ) -> None:
        (like, *_) = statistics.values()
        if isinstance(count, Tensor) or self.equal_weights:
            weights = weights_after_chunks(self._steps(like, count))[-1:]
            for name, statistic in statistics.items():
                buffer = self.get_buffer(name)
                buffer.copy_(weighted(weights, buffer, statistic)[0])
            return
        # With equal steps, the weights are powers of 1 - momentum. This takes half the
        # operations, which decide the time of a step in a small network.
        assert self.momentum is not None
        kept, k = 1 - self.momentum, self.chunks
        powers = torch.logspace(
            k - 1, 0, k, base=kept, dtype=like.dtype, device=like.device
        )
        for name, statistic in statistics.items():
            buffer = self.get_buffer(name)
            values, weights = statistic.to(buffer.dtype), powers.to(buffer.dtype)
            buffer.view(-1).addmv_(
                values.t(), weights, beta=kept**k, alpha=self.momentum
            )

    def _average_cumulatively(
        self, count: Tensor | int, statistics: dict[str, Tensor]
    ) -> None:
        """Give each norm batch so far the same weight, and count those of `count`."""
        (like, *_) = statistics.values()
        weights = weights_after_chunks(self._steps(like, count))[-1:]
        for name, statistic in statistics.items():
            buffer = self.get_buffer(name)
            values = statistic.to(buffer.dtype).view(self.chunks, -1)
            buffer.copy_(weighted(weights, buffer, values)[0])
        if self.counting:
            enough = self.chunks if isinstance(count, int) else (count > 1).sum()
            self.num_batches_tracked.add_(enough)

    @torch.no_grad()
    def before_chunks(
        self, buffer: Tensor, statistic: Tensor, count: Tensor | int
    ) -> Tensor:
        """Return the running statistic `buffer` (C,) before each chunk: (chunks, C).

        `statistic` (chunks, C) is that of the chunks. Call this before `average`. With
        one chunk, the result is `buffer`.
        """
        if self.chunks == 1:
            return buffer
        weights = weights_after_chunks(self._steps(statistic, count))[:-1]
        return weighted(weights, buffer, statistic).to(buffer.dtype)

    def _steps(self, like: Tensor, count: Tensor | int) -> Tensor:
        """Return the step of the running statistics at each chunk: (chunks,)."""
        dtype = at_least_float32(like).dtype
        if isinstance(count, int):
            enough = torch.ones(self.chunks, dtype=dtype, device=like.device)
        else:
            enough = (count > 1).flatten().to(dtype)
        if self.equal_weights:
            return enough / enough.cumsum(0).clamp(min=1)
        if self.momentum is None:
            counts = self.num_batches_tracked + enough.cumsum(0)
            return enough / counts.clamp(min=1)
        return self.momentum * enough

    def count_forward(self) -> None:
        """Add 1 to the count of training forwards."""
        if self.counting:
            self.num_batches_tracked.add_(1)

    def past_steps(self) -> Tensor:
        """Return the number of optimizer steps before this forward."""
        return self.num_batches_tracked // self.forwards_per_step

    def standardize(
        self,
        x: Tensor,
        mean: Tensor,
        var: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
    ) -> Tensor:
        """Return weight * (x - mean) / sqrt(var + eps) + bias in the type of `x`.

        mean, weight, bias: (C,); var: (C,) or a scalar for all channels. With several
        chunks, mean is (chunks, C), and var is (chunks, C) or (chunks, 1).
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
        """Return `x` normalized as by torch's BatchNorm with the buffers of this norm.

        weight, bias: (C,), or both (chunks, C) with several chunks.
        If `of_batch`, raises Incompatible if a channel has a single value.
        """
        if self.of_batch:
            count = self.count(x)
            if self.chunks > 1:
                y, mean, var = batch_norm_by_chunk(
                    x, self.chunks, weight, bias, self.eps
                )
                self.update(mean, var, count)
                return y
            if shared_group() is not None:
                mean, var = batch_moments(x, None, count)
                self.update(mean, var, count)
                return self.standardize(x, mean, var, weight, bias)
            if self.tracks and self.momentum is not None:
                self.count_forward()  # F.batch_norm does not
        mean_buffer, var_buffer, momentum = self._kernel_buffers()
        tokens = x.transpose(1, -1)
        # If `x` (N, C, T) is a view of memory in the order (N, T, C), torch's kernel
        # would copy `x`. It does not copy the same values as rows (N * T, C).
        as_rows = x.dim() == 3 and tokens.is_contiguous()
        y = F.batch_norm(
            tokens.reshape(-1, self.channels) if as_rows else x,
            mean_buffer,
            var_buffer,
            weight,
            bias,
            training=self.of_batch,
            momentum=momentum,
            eps=self.eps,
        )
        if self.training and self.momentum is None and mean_buffer is not None:
            assert var_buffer is not None  # as mean_buffer; it is unbiased already
            new = {"running_mean": mean_buffer, "running_var": var_buffer}
            self.average(self.count(x), **new)
        return y.view(tokens.shape).transpose(1, -1) if as_rows else y

    def _kernel_buffers(self) -> tuple[Tensor | None, Tensor | None, float]:
        """Return the buffers that F.batch_norm updates, and its momentum.

        At momentum None they are new, and receive the statistics of the batch.
        """
        if not self.tracks:
            return None, None, 0.0
        mean, var = self.running_mean, self.running_var
        if self.momentum is None and self.training:
            return torch.zeros_like(mean), torch.zeros_like(var), 1.0
        return mean, var, self.momentum or 0.0
