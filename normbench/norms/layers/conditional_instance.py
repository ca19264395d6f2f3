"""Conditional instance normalization: one affine map per style (Dumoulin et al. 2017).

y = weight[c] * (x - mean) / sqrt(var + eps) + bias[c], where c is the condition of the
sample, or 0 if no conditions are given. The mean and the biased variance of each sample
and channel are over positions, including masked positions.
weight, bias: (conditions, C). Equals `instance` with a gain and a bias per condition.
"""

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.norms.base import Norm, of_condition, require_positions


class ConditionalInstanceNorm(Norm, name="conditional_instance"):
    source = "Dumoulin et al. 2017"
    axes = "one sample, one channel, all positions"
    conditions: int

    def __init__(
        self, channels: int, *, conditions: PositiveInt = 4, eps: PositiveFloat = 1e-5
    ) -> None:
        super().__init__(channels)
        self.conditions = conditions
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(conditions, channels))
        self.bias = nn.Parameter(torch.zeros(conditions, channels))

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        require_positions(self, x)
        if condition is None:  # one kernel
            weight, bias = self.weight[0], self.bias[0]
            return F.group_norm(x, self.channels, weight, bias, self.eps)
        normalized = F.group_norm(x, self.channels, eps=self.eps)
        weight = of_condition(self.weight, condition, x)
        return torch.addcmul(of_condition(self.bias, condition, x), weight, normalized)
