"""Batch-instance normalization (Nam & Kim 2018, arXiv 1805.07925).

y = weight * (gate * batch + (1 - gate) * instance) + bias, where batch is x normalised
as in `batch`, with its running statistics, and instance as in `instance`, both without
gain and bias; masked positions are included. The gate of each channel is learned,
clipped to [0, 1] and 1 at first: in training the parameter itself is clipped before it
is used, which is the paper's clipping after each update.
weight, bias, gate, running_mean, running_var: (C,). Other defaults as
torch.nn.BatchNorm1d.
"""

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.norms.base import Momentum, Norm, affine_parameters, require_several
from normbench.norms.statistics import batch_norm, register_running_statistics


class BatchInstanceNorm(Norm, name="batch_instance"):
    source = "Nam & Kim 2018"
    axes = "all samples, one channel, all positions"
    uses_other_samples = True
    differs_in_eval = True

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
        self.gate = nn.Parameter(torch.ones(channels))
        register_running_statistics(self)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        require_several(
            x.shape[2:].numel(), self, x, "raise the resolution or the length"
        )
        gate: Tensor = self.gate
        if self.training:
            # The parameter itself: through a clamp one at an end has no gradient, and
            # stays there. `data`: the chunks of a ghost batch have saved the gate.
            gate.data.clamp_(0, 1)
        else:
            gate = gate.clamp(0, 1)
        of_batch, of_instance = gate, 1 - gate
        if self.weight is not None:
            of_batch, of_instance = self.weight * of_batch, self.weight * of_instance
        y = batch_norm(self, x, of_batch, self.bias)
        # Group normalization with a group per channel, as in `instance`.
        return y + F.group_norm(x, self.channels, of_instance, None, self.eps)
