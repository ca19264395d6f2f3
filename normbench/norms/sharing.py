"""Statistics that several processes share.

All norms that use other samples exchange their statistics with these functions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

_group: dist.ProcessGroup | None = None
_replicas = 1
_exchange_count = 0


@contextmanager
def shared_by(group: dist.ProcessGroup | None, replicas: int = 1) -> Iterator[None]:
    """Share statistics over all processes of `group` in training forwards of the block.

    All processes must have the same number of samples. `group=None` turns sharing off.
    `replicas` is the number of processes that train the network, whether they share
    statistics or not. The loss of the run is the mean of the losses of these processes.

    The losses of all processes in `group` depend on a shared statistic. So its gradient
    is the gradient of the sum of these losses. Then the mean of the parameter gradients
    over the processes is the gradient of the mean loss. The backward pass may run after
    the block.
    """
    global _group, _replicas
    previous = _group, _replicas
    _group, _replicas = group, replicas
    try:
        yield
    finally:
        _group, _replicas = previous


def shared_group() -> dist.ProcessGroup | None:
    """Return the processes that share statistics; None without sharing."""
    return _group


def process_count() -> int:
    """Return the number of processes that share statistics; 1 without sharing."""
    return 1 if _group is None else _group.size()


def replica_count() -> int:
    """Return the number of processes whose mean loss is the loss of the run."""
    return _replicas


def exchange_count() -> int:
    """Return the number of exchanges of statistics so far in this process."""
    return _exchange_count


def pooled(
    mean: Tensor, var: Tensor, count: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the mean and the biased variance over all processes that share statistics.

    `mean` and `var` are the statistics of this process and have the same shape. `count`
    is the number of values of this process: a scalar on the device, or None if all
    processes have the same number of values.
    The total variance is the variance within the processes plus the variance between
    them (Chan et al. 1979). E[x^2] - E[x]^2 would lose digits if the mean is large.
    """
    if _group is None:
        return mean, var
    if count is None:
        means, variances = _gather(torch.stack([mean, var]), _group).unbind(1)
        return means.mean(0), variances.mean(0) + means.var(0, correction=0)
    local_statistics = torch.stack([mean, var, count.to(mean.dtype).expand_as(mean)])
    # Dimension 0 is the process, dimension 1 the kind of statistic.
    means, variances, counts = _gather(local_statistics, _group).unbind(1)
    weights = counts / counts.sum(0).clamp(min=1)
    mean = (weights * means).sum(0)
    return mean, (weights * (variances + (means - mean).square())).sum(0)


@torch.no_grad()
def sum_over_processes(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Return the sum of `values` over the processes of `group`, without a gradient."""
    return values if group is None else _gather(values, group).sum(0)


# A collective operation breaks a compiled graph; `disable` avoids the warning.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _gather(values: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Return the values of all processes by rank: (processes, *values.shape)."""
    global _exchange_count
    _exchange_count += 1
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
        # The losses of all processes depend on the values of this process, so its
        # gradient is the sum of the gradients from all processes.
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad, group=ctx.group)
        return grad[ctx.group.rank()], None
