"""Root-mean-square normalization of each position (Zhang & Sennrich 2019).

y = weight * x / sqrt(mean(x**2) + eps), with the mean over the channels of a position.
No mean is subtracted. With the option `bias`, + bias as in layer_position; the paper
has no bias. With the option `unit_offset`, the gain is 1 + weight, and weight starts at
0, as in Gemma (Gemma Team 2024): the same function, but weight decay draws the gain to
1 instead of 0.
weight, bias: (C,). Without a bias, equals torch.nn.RMSNorm(C) on channels-last input,
except that eps is 1e-5 as in the other norms (torch: the machine epsilon of the type).
"""

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.norms.base import Affine, require_several


class RMSNorm(Affine, name="rms"):
    source = "Zhang & Sennrich 2019"
    axes = "one sample, all channels, one position"
    honours_mask = True

    def __init__(
        self,
        channels: int,
        *,
        eps: PositiveFloat = 1e-5,
        affine: bool = True,
        bias: bool = False,
        unit_offset: bool = False,
    ) -> None:
        super().__init__(channels, eps=eps, affine=affine)
        self.unit_offset = unit_offset
        if unit_offset and self.weight is not None:
            nn.init.zeros_(self.weight)
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        require_several(x.shape[1], self, x, "use more channels")
        gain: Tensor | None = self.weight
        if self.unit_offset and gain is not None:
            gain = 1 + gain
        y = F.rms_norm(x.movedim(1, -1), (self.channels,), gain, self.eps)
        return (y if self.bias is None else y + self.bias).movedim(-1, 1)
