"""Group normalization (Wu & He 2018).

y = weight * (x - mean) / sqrt(var + eps) + bias, with the mean and the biased variance
of each sample and group of C / num_groups adjacent channels, over the channels of the
group and the positions, including masked positions. `group_size`, the number of
channels per group, can be given instead of num_groups.
weight, bias: (C,). Equals torch.nn.GroupNorm(num_groups, C). The default of num_groups
is 8 (paper: 32), because small networks have few channels.
"""

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from normbench.norms.base import Affine, require_groups
from normbench.norms.groups import NUM_GROUPS, NumGroups, resolve_num_groups


class GroupNorm(Affine, name="group"):
    source = "Wu & He 2018"
    axes = "one sample, one group of channels, all positions"

    def __init__(
        self,
        channels: int,
        *,
        num_groups: NumGroups = NUM_GROUPS,
        group_size: PositiveInt | None = None,
        eps: PositiveFloat = 1e-5,
        affine: bool = True,
    ) -> None:
        super().__init__(channels, eps=eps, affine=affine)
        self.num_groups = resolve_num_groups(self, num_groups, group_size)

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        require_groups(self, x, self.num_groups)
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
