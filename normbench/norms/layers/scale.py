"""ScaleNorm: each position at one length (Nguyen & Salazar 2019).

y = g * x / max(|x|, eps), with |x| the Euclidean length of a position over its
channels; no mean is subtracted and there is no bias.
g: one scalar, sqrt(C) at first. As `rms` with one gain for all channels, but for eps.
"""

import math

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.norms.base import Norm, require_several


class ScaleNorm(Norm, name="scale"):
    source = "Nguyen & Salazar 2019"
    axes = "one sample, all channels, one position"
    honours_mask = True

    def __init__(self, channels: int, *, eps: PositiveFloat = 1e-5) -> None:
        super().__init__(channels)
        self.eps = eps
        self.g = nn.Parameter(torch.tensor(math.sqrt(channels)))

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        require_several(x.shape[1], self, x, "use more channels")
        return self.g * F.normalize(x, dim=1, eps=self.eps)
