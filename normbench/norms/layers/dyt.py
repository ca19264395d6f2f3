"""Dynamic tanh (Zhu et al. 2025).

y = weight * tanh(alpha * x) + bias, without statistics.
weight, bias: (C,); alpha: a scalar, which starts at `alpha_init`.
"""

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from normbench.norms.base import Norm, per_channel


class DynamicTanh(Norm, name="dyt"):
    also_called = ("DynamicTanh",)
    source = "Zhu et al. 2025"
    axes = "one sample, one channel, one position"
    honours_mask = True

    def __init__(self, channels: int, *, alpha_init: PositiveFloat = 0.5) -> None:
        super().__init__(channels)
        self.alpha = nn.Parameter(torch.tensor(alpha_init))
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        squashed = torch.tanh(self.alpha * x)
        weight, bias = per_channel(self.weight, x), per_channel(self.bias, x)
        return torch.addcmul(bias, weight, squashed)
