"""EvoNorm-S0, a normalization and activation found by search (Liu et al. 2020).

y = weight * x * sigmoid(v * x) / sqrt(var + eps) + bias, with the biased variance of
each sample and group of C / num_groups adjacent channels over the group's channels and
positions, masked ones included; no mean is subtracted.
weight, bias, v: (C,), v is 1 at first. As timm's EvoNorm2dS0; num_groups is 8 here (32
in the paper), because small networks have few channels.
"""

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from normbench.norms.base import (
    NUM_GROUPS,
    Norm,
    groups_of,
    per_channel,
    require_several,
)


class EvoNormS0(Norm, name="evonorm_s0"):
    source = "Liu et al. 2020"
    axes = "one sample, one group of channels, all positions"
    contains_activation = True

    def __init__(
        self,
        channels: int,
        *,
        num_groups: PositiveInt = NUM_GROUPS,
        group_size: PositiveInt | None = None,
        eps: PositiveFloat = 1e-5,
    ) -> None:
        super().__init__(channels)
        self.num_groups = groups_of(self, num_groups, group_size)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.v = nn.Parameter(torch.ones(channels))

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        count = x.shape[1:].numel() // self.num_groups
        require_several(count, self, x, "use fewer groups or a higher resolution")
        per_group = self.channels // self.num_groups
        groups = x.view(len(x), self.num_groups, per_group, *x.shape[2:])
        over = tuple(range(2, groups.dim()))
        inverse = torch.rsqrt(groups.var(over, correction=0) + self.eps)
        inverse = inverse.repeat_interleave(per_group, 1)
        scale = inverse.view(*inverse.shape, *(1,) * (x.dim() - 2))
        scale = scale * per_channel(self.weight, x)
        active = x * torch.sigmoid(per_channel(self.v, x) * x)
        return torch.addcmul(per_channel(self.bias, x), active, scale)
