"""Group normalization (Wu & He 2018).

y = weight * (x - mean) / sqrt(var + eps) + bias, with the mean and the biased variance
of each sample and group of C / num_groups adjacent channels over the group's channels
and positions, masked ones included. `group_size` gives the channels of a group instead
of their number.
weight, bias: (C,). As torch.nn.GroupNorm(num_groups, C); num_groups is 8 here (32 in
the paper), because small networks have few channels.
"""

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from normbench.norms.base import NUM_GROUPS, Affine, groups_of, require_groups


class GroupNorm(Affine, name="group"):
    source = "Wu & He 2018"
    axes = "one sample, one group of channels, all positions"

    def __init__(
        self,
        channels: int,
        *,
        num_groups: PositiveInt = NUM_GROUPS,
        group_size: PositiveInt | None = None,
        eps: PositiveFloat = 1e-5,
        affine: bool = True,
    ) -> None:
        super().__init__(channels, eps=eps, affine=affine)
        self.num_groups = groups_of(self, num_groups, group_size)

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        require_groups(self, x, self.num_groups)
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
