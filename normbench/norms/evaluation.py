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
    dropout, stay in evaluation mode. These forwards do not count as training forwards,
    so the end of a warm-up does not come closer.
    """
    for norm in _norms_that_differ(modules):
        norm.train()
        norm.counting = False


@torch.no_grad()
def recompute_statistics(
    forward: Callable[[Batch], object],
    modules: Iterable[nn.Module],
    batches: Iterable[Batch],
) -> None:
    """Set the running statistics to their mean over all batches ("precise" statistics).

    `forward(batch)` is one forward of the model, in which the norms normalize with the
    batch. Each batch of a norm has the same weight; each chunk of a Ghost is a batch.
    Only floating-point buffers are averaged. Afterwards the norms are in evaluation
    mode and have their original momentum.
    Source: Wu & Johnson 2021. For torch's BatchNorm, the result equals that of
    torch.optim.swa_utils.update_bn.
    """
    norms = _norms_that_differ(modules)
    momenta = [norm.momentum for norm in norms]
    averages = [_BufferAverage(norm) for norm in norms]
    try:
        for norm in norms:
            norm.train()
            norm.momentum = 1.0  # each call replaces the running statistics,
            norm.equal_weights = True  # with the mean over its chunks
        for batch in batches:
            forward(batch)
    finally:
        for norm, momentum, average in zip(norms, momenta, averages, strict=True):
            norm.eval()
            norm.momentum, norm.equal_weights = momentum, False
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
    """Averages the floating-point buffers of a norm over the chunks of its calls."""

    def __init__(self, norm: Norm) -> None:
        self.buffers = [b for b in norm.buffers() if b.is_floating_point()]
        self.means = [torch.zeros_like(buffer) for buffer in self.buffers]
        self.count = 0
        self.hook = norm.register_forward_hook(self._add)

    def _add(self, norm: Norm, args: object, output: object) -> None:
        self.count += norm.chunks
        for mean, buffer in zip(self.means, self.buffers, strict=True):
            mean.lerp_(buffer, norm.chunks / self.count)

    def write(self) -> None:
        """Write the means to the buffers if there was a forward."""
        if self.count:
            for buffer, mean in zip(self.buffers, self.means, strict=True):
                buffer.copy_(mean)
