"""EvoNorm-S0: normalization and activation in one layer, found by a search (Liu et al.
2020).

y = weight * x * sigmoid(v * x) / sqrt(var + eps) + bias, with the biased variance of
each sample and group of C / num_groups adjacent channels, over the channels of the
group and the positions, including masked positions. No mean is subtracted.
weight, bias, v: (C,); v starts at 1. Equals timm's EvoNorm2dS0. The default of
num_groups is 8 (paper: 32), because small networks have few channels.
"""

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from normbench.norms.base import Affine, per_channel, require_groups
from normbench.norms.groups import NUM_GROUPS, NumGroups, resolve_num_groups


class EvoNormS0(Affine, name="evonorm_s0"):
    source = "Liu et al. 2020"
    axes = "one sample, one group of channels, all positions"
    contains_activation = True

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(
        self,
        channels: int,
        *,
        num_groups: NumGroups = NUM_GROUPS,
        group_size: PositiveInt | None = None,
        eps: PositiveFloat = 1e-5,
    ) -> None:
        super().__init__(channels, eps=eps)
        self.num_groups = resolve_num_groups(self, num_groups, group_size)
        self.v = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        require_groups(self, x, self.num_groups)
        groups = x.unflatten(1, (self.num_groups, -1))
        var = groups.var(tuple(range(2, groups.dim())), correction=0)
        inverse = torch.rsqrt(var + self.eps)
        inverse = inverse.repeat_interleave(self.channels // self.num_groups, 1)
        scale = per_channel(inverse, x) * per_channel(self.weight, x)
        active = x * torch.sigmoid(per_channel(self.v, x) * x)
        return torch.addcmul(per_channel(self.bias, x), active, scale)
