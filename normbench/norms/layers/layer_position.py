"""Layer normalization of each position (Ba et al. 2016, as in Transformers; on images
as in ConvNeXt, Liu et al. 2022).

y = weight * (x - mean) / sqrt(var + eps) + bias, with the mean and the biased variance
of each position over its channels.
weight, bias: (C,). As torch.nn.LayerNorm(C) with the channels last, defaults too.
"""

from pydantic import PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from normbench.norms.base import Norm, affine_parameters, require_several


class LayerNormPosition(Norm, name="layer_position"):
    source = "Ba et al. 2016"
    axes = "one sample, all channels, one position"
    honours_mask = True

    def __init__(
        self, channels: int, *, eps: PositiveFloat = 1e-5, affine: bool = True
    ) -> None:
        super().__init__(channels)
        self.eps = eps
        self.weight, self.bias = affine_parameters(channels, affine)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        require_several(x.shape[1], self, x, "use more channels")
        y = F.layer_norm(
            x.movedim(1, -1), (self.channels,), self.weight, self.bias, self.eps
        )
        return y.movedim(-1, 1)
