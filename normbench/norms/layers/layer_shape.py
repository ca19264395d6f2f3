"""Layer normalization over a whole sample, with a gain and a bias per element (Ba et
al. 2016).

y = weight * (x - mean) / sqrt(var + eps) + bias, with the mean and the biased variance
of each sample over channels and positions, including masked positions.
weight, bias: (C, *spatial); the first forward or a state dict sets the shape. Equals
torch.nn.LayerNorm([C, *spatial]), with the same defaults.
"""

import math
from typing import Any

from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import UninitializedParameter

from normbench.errors import Incompatible
from normbench.norms.base import Norm, require_several


class LayerNormShape(Norm, name="layer_shape"):
    source = "Ba et al. 2016"
    axes = "one sample, all channels, all positions"
    fixed_spatial = True

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int, *, eps: PositiveFloat = 1e-5) -> None:
        super().__init__(channels)
        self.eps = eps
        self.weight = UninitializedParameter()
        self.bias = UninitializedParameter()

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        require_several(math.prod(x.shape[1:]), self, x, "use more channels")
        self._materialize(tuple(x.shape[1:]))
        if self.weight.shape != x.shape[1:]:
            raise Incompatible(
                f"norm={self.name} has an affine map of shape "
                f"{tuple(self.weight.shape)}, which does not fit samples of shape "
                f"{tuple(x.shape[1:])}; all inputs must have the same size"
            )
        return F.layer_norm(x, x.shape[1:], self.weight, self.bias, self.eps)

    def _materialize(self, shape: tuple[int, ...]) -> None:
        """Initialize parameters without a shape: weight to ones, bias to zeros."""
        for parameter, fill in ((self.weight, 1.0), (self.bias, 0.0)):
            if isinstance(parameter, UninitializedParameter):
                parameter.materialize(shape)
                nn.init.constant_(parameter, fill)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        weight = state_dict.get(prefix + "weight")
        if weight is not None:
            self._materialize(tuple(weight.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)
