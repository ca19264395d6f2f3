"""Batch-instance normalization (Nam & Kim 2018, arXiv 1805.07925).

y = weight * (gate * batch + (1 - gate) * instance) + bias. Here batch is x normalized
as in `batch`, with its running statistics, and instance is x normalized as in
`instance`, both without gain and bias. Masked positions are included. Each channel has
a learned gate in [0, 1], which starts at 1. The paper clips the gate after each
optimizer step; this norm clips the parameter at the start of each training forward,
which has the same effect.
weight, bias, gate, running_mean, running_var: (C,). The other defaults are those of
torch.nn.BatchNorm1d.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.norms.base import require_positions
from normbench.norms.statistics import BatchStatistics


class BatchInstanceNorm(BatchStatistics, name="batch_instance"):
    source = "Nam & Kim 2018"
    one_call = True

    def add_state(self) -> None:
        super().add_state()
        self.gate = nn.Parameter(torch.ones(self.channels))

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        require_positions(self, x)
        gate: Tensor = self.gate
        if self.training:
            # The clamp changes the parameter in place. As a step of the graph it would
            # have no gradient outside [0, 1], and such a gate would never return.
            # It changes `data`, because earlier ghost batches of the same step have
            # saved the gate for their backward pass: autograd would refuse a change.
            gate.data.clamp_(0, 1)
        else:
            gate = gate.clamp(0, 1)
        batch_weight, instance_weight = gate, 1 - gate
        if self.weight is not None:
            batch_weight = self.weight * batch_weight
            instance_weight = self.weight * instance_weight
        y = self.batch_norm(x, batch_weight, self.bias)
        # Instance normalization is group normalization with one channel per group.
        return y + F.group_norm(x, self.channels, instance_weight, None, self.eps)
