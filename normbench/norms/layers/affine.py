"""A gain and a bias per channel without normalization: y = weight * x + bias.

The control for every norm with an affine map: it has the map and nothing else.
weight, bias: (C,).
"""

import torch
from torch import Tensor, nn

from normbench.norms.base import Norm, per_channel


class AffineMap(Norm, name="affine"):
    source = "folklore"
    axes = "one sample, one channel, one position"
    honours_mask = True

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        return torch.addcmul(per_channel(self.bias, x), per_channel(self.weight, x), x)
