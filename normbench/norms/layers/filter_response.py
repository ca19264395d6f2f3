"""Filter response normalization with a thresholded linear unit, TLU (Singh & Krishnan
2020).

y = max(weight * x / sqrt(mean(x**2) + eps) + bias, tau), with the mean of each sample
and channel over positions, including masked positions. No mean is subtracted from x.
With `learnable_eps`, eps + |eps_learned| replaces eps. The paper recommends this for
inputs with one position, where the result would otherwise be the sign of x.
weight, bias, tau: (C,); eps_learned: a scalar, which starts at 1e-4. Equals timm's
FilterResponseNormTlu2d, except that eps is 1e-6 as in the paper (timm: 1e-5).
"""

import math

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from normbench.norms.base import Affine, per_channel, require_several


class FilterResponseNorm(Affine, name="filter_response"):
    source = "Singh & Krishnan 2020"
    axes = "one sample, one channel, all positions"
    contains_activation = True

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(
        self, channels: int, *, eps: PositiveFloat = 1e-6, learnable_eps: bool = False
    ) -> None:
        super().__init__(channels, eps=eps)
        self.tau = nn.Parameter(torch.zeros(channels))
        self.eps_learned = nn.Parameter(torch.tensor(1e-4)) if learnable_eps else None

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        eps: Tensor | float = self.eps
        if self.eps_learned is None:
            advice = "raise the resolution or the length, or set norm.learnable_eps"
            require_several(math.prod(x.shape[2:]), self, x, advice)
        else:
            eps = eps + self.eps_learned.abs()
        positions = tuple(range(2, x.dim()))
        mean_square = x.square().mean(positions, keepdim=True) if positions else x * x
        scale = per_channel(self.weight, x) * torch.rsqrt(mean_square + eps)
        y = torch.addcmul(per_channel(self.bias, x), x, scale)
        return torch.maximum(y, per_channel(self.tau, x))
