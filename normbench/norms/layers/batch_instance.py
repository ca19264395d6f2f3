"""Batch-instance normalization (Nam & Kim 2018, arXiv 1805.07925).

y = weight * (gate * batch + (1 - gate) * instance) + bias, where batch is x normalized
as in `batch`, with its running statistics, and instance as in `instance`, both without
gain and bias; masked positions are included. The gate of each channel is learned,
clipped to [0, 1] and 1 at first: in training the parameter itself is clipped before it
is used, which is the paper's clipping after each update.
weight, bias, gate, running_mean, running_var: (C,). Other defaults as
torch.nn.BatchNorm1d.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.norms.base import require_positions
from normbench.norms.statistics import BatchStatistics


class BatchInstanceNorm(BatchStatistics, name="batch_instance"):
    source = "Nam & Kim 2018"

    def add_state(self) -> None:
        super().add_state()
        self.gate = nn.Parameter(torch.ones(self.channels))

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        require_positions(self, x)
        gate: Tensor = self.gate
        if self.training:
            # The parameter itself: through a clamp, a gate at an end has no gradient
            # and stays there. `data`: the chunks of a ghost batch have saved the gate.
            gate.data.clamp_(0, 1)
        else:
            gate = gate.clamp(0, 1)
        batch_weight, instance_weight = gate, 1 - gate
        if self.weight is not None:
            batch_weight = self.weight * batch_weight
            instance_weight = self.weight * instance_weight
        y = self.batch_norm(x, batch_weight, self.bias)
        # Group normalization with a group per channel, as in `instance`.
        return y + F.group_norm(x, self.channels, instance_weight, None, self.eps)
