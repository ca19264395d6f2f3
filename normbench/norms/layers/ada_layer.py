"""Adaptive layer normalization, adaLN (Peebles & Xie 2023, DiT, arXiv 2212.09748).

y = (1 + scale[c]) * (x - mean) / sqrt(var + eps) + shift[c], where c is the condition
of the sample, or 0 if no conditions are given. The mean and the biased variance of each
position are over its channels. The paper computes scale and shift from an embedding
with a linear layer; here the condition is an index, so both are rows of a table.
scale, shift: (conditions, C), which start at 0 as in adaLN-Zero. The gate of
adaLN-Zero belongs to the residual branch and is not part of this layer. The default of
eps is DiT's (1e-5 in the other norms).
"""

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.norms.base import Norm, of_condition, require_several


class AdaptiveLayerNorm(Norm, name="ada_layer"):
    also_called = ("AdaLN", "AdaptiveLayerNorm")
    source = "Peebles & Xie 2023"
    axes = "one sample, all channels, one position"
    honours_mask = True
    conditions: int

    def __init__(
        self, channels: int, *, conditions: PositiveInt = 4, eps: PositiveFloat = 1e-6
    ) -> None:
        super().__init__(channels)
        self.conditions = conditions
        self.eps = eps
        self.scale = nn.Parameter(torch.zeros(conditions, channels))
        self.shift = nn.Parameter(torch.zeros(conditions, channels))

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        require_several(x.shape[1], self, x, "use more channels")
        last = x.movedim(1, -1)
        z = F.layer_norm(last, (self.channels,), eps=self.eps).movedim(-1, 1)
        gain = 1 + of_condition(self.scale, condition, x)
        return torch.addcmul(of_condition(self.shift, condition, x), gain, z)
