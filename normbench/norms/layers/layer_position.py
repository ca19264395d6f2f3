"""Layer normalization of each position (Ba et al. 2016, as in Transformers; on images
as in ConvNeXt, Liu et al. 2022).

y = weight * (x - mean) / sqrt(var + eps) + bias, with the mean and the biased variance
of each position over its channels.
weight, bias: (C,). Equals torch.nn.LayerNorm(C) on channels-last input, with the same
defaults. With `bias=False` there is a gain, but no bias, as in torch.
"""

from torch import Tensor
from torch.nn import functional as F

from normbench.norms.base import AffineWithOptionalBias, require_several


class LayerNormPosition(AffineWithOptionalBias, name="layer_position"):
    also_called = ("LayerNorm2d",)
    source = "Ba et al. 2016"
    axes = "one sample, all channels, one position"
    honours_mask = True

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        require_several(x.shape[1], self, x, "use more channels")
        last = x.movedim(1, -1)
        y = F.layer_norm(last, (self.channels,), self.weight, self.bias, self.eps)
        return y.movedim(-1, 1)
