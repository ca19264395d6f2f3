"""Evaluate a trained model with other statistics than the running statistics.

`modules` are the norms that a NormFactory created. The functions change only norms that
compute another function in evaluation than in training. Pass the norms of a deep copy
of the model in evaluation mode, because the functions change the running statistics.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import nn

from normbench.norms.base import Norm

Batch = TypeVar("Batch")


def use_batch_statistics(modules: Iterable[nn.Module]) -> None:
    """Make the norms normalize with the statistics of each batch, as in training.

    A Ghost uses the statistics of each `norm_batch` samples. Other layers, such as
    dropout, stay in evaluation mode.
    """
    for norm in _norms_that_differ(modules):
        norm.train()


@torch.no_grad()
def recompute_statistics(
    forward: Callable[[Batch], object],
    modules: Iterable[nn.Module],
    batches: Iterable[Batch],
) -> None:
    """Set the running statistics to their mean over all batches ("precise" statistics).

    `forward(batch)` is one forward of the model, in which the norms normalize with the
    batch. Each forward of a norm has the same weight; a Ghost has one forward per
    chunk. Only floating-point buffers are averaged. Afterwards the norms are in
    evaluation mode and have their original momentum.
    Source: Wu & Johnson 2021. For torch's BatchNorm, the result equals that of
    torch.optim.swa_utils.update_bn.
    """
    norms = _norms_that_differ(modules)
    momenta = [norm.momentum for norm in norms]
    averages = [_BufferAverage(norm) for norm in norms]
    try:
        for norm in norms:
            norm.train()
            norm.momentum = 1.0  # each forward replaces the running statistics
        for batch in batches:
            forward(batch)
    finally:
        for norm, momentum, average in zip(norms, momenta, averages, strict=True):
            norm.eval()
            norm.momentum = momentum
            average.hook.remove()
    for average in averages:
        average.write()


def _norms_that_differ(modules: Iterable[nn.Module]) -> list[Norm]:
    return [
        norm
        for module in modules
        for norm in module.modules()
        if isinstance(norm, Norm) and norm.differs_in_eval
    ]


class _BufferAverage:
    """Averages the floating-point buffers of a norm over its forwards."""

    def __init__(self, norm: Norm) -> None:
        self.buffers = [b for b in norm.buffers() if b.is_floating_point()]
        self.means = [torch.zeros_like(buffer) for buffer in self.buffers]
        self.count = 0
        self.hook = norm.register_forward_hook(self._add)

    def _add(self, module: nn.Module, args: object, output: object) -> None:
        self.count += 1
        for mean, buffer in zip(self.means, self.buffers, strict=True):
            mean.lerp_(buffer, 1 / self.count)

    def write(self) -> None:
        """Write the means to the buffers if there was a forward."""
        if self.count:
            for buffer, mean in zip(self.buffers, self.means, strict=True):
                buffer.copy_(mean)
