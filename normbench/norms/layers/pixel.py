"""Pixelwise feature vector normalization, PixelNorm (Karras et al. 2018, arXiv
1710.10196).

y = x / sqrt(mean(x**2) + eps), with the mean over the channels of a position. No mean
is subtracted.
No parameters. As `rms` without a gain, with the paper's eps of 1e-8 (1e-5 in `rms`).
"""

from pydantic import PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from normbench.norms.base import Norm, require_several


class PixelNorm(Norm, name="pixel"):
    source = "Karras et al. 2018"
    axes = "one sample, all channels, one position"
    honours_mask = True

    def __init__(self, channels: int, *, eps: PositiveFloat = 1e-8) -> None:
        super().__init__(channels)
        self.eps = eps

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        require_several(x.shape[1], self, x, "use more channels")
        y = F.rms_norm(x.movedim(1, -1), (self.channels,), None, self.eps)
        return y.movedim(-1, 1)
