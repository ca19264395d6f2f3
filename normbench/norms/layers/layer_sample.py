"""Layer normalization over a whole sample (Ba et al. 2016; on images as in Wu & He
2018).

y = weight * (x - mean) / sqrt(var + eps) + bias, with the mean and the biased variance
of each sample over channels and positions, including masked positions.
weight, bias: (C,). Equals torch.nn.GroupNorm(1, C), with the same defaults. With
`bias=False` there is a gain, but no bias.
"""

import math

from torch import Tensor
from torch.nn import functional as F

from normbench.norms.base import AffineWithOptionalBias, require_several


class LayerNormSample(AffineWithOptionalBias, name="layer_sample"):
    source = "Ba et al. 2016"
    axes = "one sample, all channels, all positions"

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        require_several(math.prod(x.shape[1:]), self, x, "use more channels")
        return F.group_norm(x, 1, self.weight, self.bias, self.eps)
