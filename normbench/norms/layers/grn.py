"""Global response normalization, GRN (Woo et al. 2023, ConvNeXt V2, arXiv 2301.00808).

y = x + weight * x * g / (mean(g) + eps) + bias, with the Euclidean length g of each
sample and channel over positions, including masked positions, and the mean of g over
the channels of the sample. No mean is subtracted.
weight, bias: (C,), which start at 0, so that a new layer is the identity. Channels come
first here; equals the authors' GRN, whose input is (N, H, W, C), and timm's
GlobalResponseNorm(C, channels_last=False). In ConvNeXt V2 the layer follows the
activation inside a block, beside LayerNorm; it does not replace another norm.
"""

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from normbench.norms.base import Norm, per_channel


class GlobalResponseNorm(Norm, name="grn"):
    also_called = ("GlobalResponseNorm",)
    source = "Woo et al. 2023"
    axes = "one sample, all channels, all positions"

    def __init__(self, channels: int, *, eps: PositiveFloat = 1e-6) -> None:
        super().__init__(channels)
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        positions = tuple(range(2, x.dim()))
        if positions:
            length = torch.linalg.vector_norm(x, dim=positions, keepdim=True)
        else:  # vector_norm reads no dimensions as all of them
            length = x.abs()
        response = length / (length.mean(1, keepdim=True) + self.eps)
        gain = 1 + per_channel(self.weight, x) * response
        return torch.addcmul(per_channel(self.bias, x), gain, x)
