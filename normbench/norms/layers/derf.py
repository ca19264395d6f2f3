"""Dynamic erf (Chen et al. 2025).

y = weight * erf(alpha * x + shift) + bias, without statistics.
weight, bias: (C,); alpha, shift: scalars, which start at `alpha_init` and 0.
"""

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from normbench.norms.base import Norm, per_channel


class DynamicErf(Norm, name="derf"):
    also_called = ("DynamicErf",)
    source = "Chen et al. 2025"
    axes = "one sample, one channel, one position"
    honours_mask = True

    def __init__(self, channels: int, *, alpha_init: PositiveFloat = 0.5) -> None:
        super().__init__(channels)
        self.alpha = nn.Parameter(torch.tensor(alpha_init))
        self.shift = nn.Parameter(torch.tensor(0.0))
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        squashed = torch.erf(torch.addcmul(self.shift, self.alpha, x))
        weight, bias = per_channel(self.weight, x), per_channel(self.bias, x)
        return torch.addcmul(bias, weight, squashed)
