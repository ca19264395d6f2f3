"""Evaluation with other statistics than the running ones of training.

The functions change the norms in `modules`, those that a NormFactory made; norms that
compute the same in training and evaluation stay as they are. Use them on a model in
evaluation mode, and on a deep copy, because running statistics change.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import nn

from normbench.norms.base import Norm

B = TypeVar("B")


def use_batch_statistics(modules: Iterable[nn.Module]) -> None:
    """Let norms normalize with the statistics of the batch, as in training.

    In a Ghost, with those of each `norm_batch` samples. Dropout elsewhere stays off.
    """
    for norm in _norms_that_differ(modules):
        norm.train()


@torch.no_grad()
def recompute_statistics(
    forward: Callable[[B], object], modules: Iterable[nn.Module], batches: Iterable[B]
) -> None:
    """Set running statistics to their plain mean over one pass ("precise" statistics).

    `forward(batch)` is one forward of the model. Each forward of a norm, and so each
    chunk of a Ghost, counts equally; meanwhile the layers before it normalize with the
    batch. Only floating-point buffers are averaged. Leaves the norms in evaluation
    mode, with their momentum. Source: Wu & Johnson 2021; equals
    torch.optim.swa_utils.update_bn for torch's BatchNorm.
    """
    norms = _norms_that_differ(modules)
    momenta = [norm.momentum for norm in norms]
    means = [_MeanOfBuffers(norm) for norm in norms]
    try:
        for norm in norms:
            norm.train()
            norm.momentum = 1.0
        for batch in batches:
            forward(batch)
    finally:
        for norm, momentum, mean in zip(norms, momenta, means, strict=True):
            norm.eval()
            norm.momentum = momentum
            mean.hook.remove()
    for mean in means:
        mean.write()


def _norms_that_differ(modules: Iterable[nn.Module]) -> list[Norm]:
    return [
        norm
        for module in modules
        for norm in module.modules()
        if isinstance(norm, Norm) and norm.differs_in_eval
    ]


class _MeanOfBuffers:
    """The mean of a norm's floating-point buffers over its forwards from now on."""

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
        """Put the mean in the buffers, if there was a forward."""
        if self.count:
            for buffer, mean in zip(self.buffers, self.means, strict=True):
                buffer.copy_(mean)
