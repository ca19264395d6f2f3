"""Instance-batch normalization, IBN-a (Pan et al. 2018, arXiv 1807.09441).

The first half of the channels are normalised as in `instance`, the others as in
`batch`, with its running statistics; masked positions are included.
weight, bias: (C,); running_mean, running_var: (C / 2,), of the second half. Equals
torch.nn.InstanceNorm1d(C / 2, affine=True) beside torch.nn.BatchNorm1d(C / 2), defaults
too. C is even (the authors' code rounds the first half down).
"""

import torch
from pydantic import PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from normbench.errors import Incompatible
from normbench.norms.base import Momentum, Norm, affine_parameters, require_several
from normbench.norms.statistics import batch_norm, register_running_statistics


class InstanceBatchNorm(Norm, name="ibn"):
    source = "Pan et al. 2018"
    axes = (
        "one sample, one channel, all positions; "
        "all samples, one channel, all positions"
    )
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
        if channels % 2:
            raise Incompatible(
                f"norm={self.name} normalises one half of the channels by instance and "
                f"the other by batch, and {channels} channels have no half"
            )
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = affine_parameters(channels, affine)
        register_running_statistics(self, channels // 2)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        require_several(
            x.shape[2:].numel(), self, x, "raise the resolution or the length"
        )
        half = self.channels // 2
        (w1, w2), (b1, b2) = (
            (None, None) if p is None else p.split(half)
            for p in (self.weight, self.bias)
        )
        x1, x2 = x.split(half, 1)
        # Group normalization with a group per channel, as in `instance`.
        y1 = F.group_norm(x1, half, w1, b1, self.eps)
        return torch.cat([y1, batch_norm(self, x2, w2, b2)], 1)
