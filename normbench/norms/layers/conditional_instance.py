"""Conditional instance normalization: one affine map per style (Dumoulin et al. 2017).

y = weight[c] * (x - mean) / sqrt(var + eps) + bias[c], with the mean and the biased
variance of each sample and channel over positions, masked ones included, and c the
sample's condition; without conditions, c is 0 for every sample.
weight, bias: (conditions, C). As `instance` followed by a row of a table.
"""

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.norms.base import Norm, require_several


class ConditionalInstanceNorm(Norm, name="conditional_instance"):
    source = "Dumoulin et al. 2017"
    axes = "one sample, one channel, all positions"
    conditions: int

    def __init__(
        self,
        channels: int,
        *,
        conditions: PositiveInt = 4,
        eps: PositiveFloat = 1e-5,
    ) -> None:
        super().__init__(channels)
        self.conditions = conditions
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(conditions, channels))
        self.bias = nn.Parameter(torch.zeros(conditions, channels))

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        require_several(
            x.shape[2:].numel(), self, x, "raise the resolution or the length"
        )
        if condition is None:
            weight, bias = self.weight[0], self.bias[0]
            return F.group_norm(x, self.channels, weight, bias, self.eps)
        normalised = F.group_norm(x, self.channels, eps=self.eps)
        per_sample = (*x.shape[:2], *(1,) * (x.dim() - 2))
        weight = F.embedding(condition, self.weight).view(per_sample)
        bias = F.embedding(condition, self.bias).view(per_sample)
        return torch.addcmul(bias, weight, normalised)
