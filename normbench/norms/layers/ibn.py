"""Instance-batch normalization, IBN-a (Pan et al. 2018, arXiv 1807.09441).

The first half of the channels is normalized as in `instance`, the second half as in
`batch`, with running statistics. Masked positions are included.
weight, bias: (C,); running_mean, running_var: (C / 2,), of the second half. Equals
torch.nn.InstanceNorm1d(C / 2, affine=True) on the first half and
torch.nn.BatchNorm1d(C / 2) on the second, with the same defaults. C must be even (the
authors' code rounds the first half down).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from normbench.errors import Incompatible
from normbench.norms.base import require_positions
from normbench.norms.statistics import BatchStatistics


class InstanceBatchNorm(BatchStatistics, name="ibn"):
    also_called = ("InstanceBatchNorm",)
    source = "Pan et al. 2018"
    one_call = True
    axes = (
        "one sample, one channel, all positions; "
        "all samples, one channel, all positions"
    )

    def add_state(self) -> None:
        if self.channels % 2:
            raise Incompatible(
                f"norm={self.name} normalizes one half of the channels by instance and "
                f"the other by batch, so it cannot have {self.channels} channels; "
                "use an even number"
            )
        half = self.channels // 2
        mean, var = torch.zeros(half), torch.ones(half)
        self.add_statistics(running_mean=mean, running_var=var)

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        require_positions(self, x)
        half = self.channels // 2
        w1 = w2 = b1 = b2 = None
        if self.weight is not None and self.bias is not None:
            (w1, w2), (b1, b2) = self.weight.split(half), self.bias.split(half)
        x1, x2 = x.split(half, 1)
        # Instance normalization is group normalization with one channel per group.
        y1 = F.group_norm(x1, half, w1, b1, self.eps)
        return torch.cat([y1, self.batch_norm(x2, w2, b2)], 1)
