"""ScaleNorm: each position is scaled to the same length (Nguyen & Salazar 2019).

y = g * x / max(|x|, eps), with the Euclidean length |x| of a position over its
channels. No mean is subtracted, and there is no bias.
g: a scalar, which starts at sqrt(C). As `rms` with a single gain for all channels,
except for the role of eps.
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
