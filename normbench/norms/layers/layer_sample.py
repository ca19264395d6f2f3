"""Layer normalization over a whole sample (Ba et al. 2016; on images as in Wu & He
2018).

y = weight * (x - mean) / sqrt(var + eps) + bias, with the mean and the biased variance
of each sample over channels and positions, masked ones included.
weight, bias: (C,). As torch.nn.GroupNorm(1, C), defaults too.
"""

from pydantic import PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from normbench.norms.base import Norm, affine_parameters, require_several


class LayerNormSample(Norm, name="layer_sample"):
    source = "Ba et al. 2016"
    axes = "one sample, all channels, all positions"

    def __init__(
        self, channels: int, *, eps: PositiveFloat = 1e-5, affine: bool = True
    ) -> None:
        super().__init__(channels)
        self.eps = eps
        self.weight, self.bias = affine_parameters(channels, affine)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        require_several(x.shape[1:].numel(), self, x, "use more channels")
        return F.group_norm(x, 1, self.weight, self.bias, self.eps)
