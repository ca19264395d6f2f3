"""Feature-wise linear modulation, FiLM, without normalization (Perez et al. 2018, arXiv
1709.07871).

y = weight[c] * x + bias[c], where c is the condition of the sample, or 0 if no
conditions are given. The paper computes both from a text with a network; here the
condition is an index, so both are rows of a table.
weight (ones), bias (zeros): (conditions, C). As `affine` with a map per condition: the
control for every norm with such maps.
"""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from normbench.norms.base import Norm, of_condition


class FeatureWiseLinearModulation(Norm, name="film"):
    also_called = ("FeatureWiseLinearModulation",)
    source = "Perez et al. 2018"
    axes = "one sample, one channel, one position"
    honours_mask = True
    conditions: int

    def __init__(self, channels: int, *, conditions: PositiveInt = 4) -> None:
        super().__init__(channels)
        self.conditions = conditions
        self.weight = nn.Parameter(torch.ones(conditions, channels))
        self.bias = nn.Parameter(torch.zeros(conditions, channels))

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        weight = of_condition(self.weight, condition, x)
        return torch.addcmul(of_condition(self.bias, condition, x), weight, x)
