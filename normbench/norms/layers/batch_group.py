"""Batch-channel normalization, BCN: batch, then group normalization (Qiao et al. 2019,
arXiv 1911.09738).

The first step is `batch`, including its running statistics. The second step normalizes
the output b of the first step:
y = group_weight * (b - group_mean) / sqrt(group_var + eps) + group_bias, with the mean
and the biased variance of each sample and group of C / num_groups adjacent channels,
over the channels of the group and the positions. Both steps include masked positions.
weight, bias, running_mean, running_var: (C,); group_weight, group_bias: (num_groups,),
as in the authors' code. Equals torch.nn.BatchNorm1d, then torch.nn.GroupNorm with a
gain and a bias per group. The paper's estimated statistics for micro-batches are not
implemented. The default of num_groups is 8 (paper: 32), because small networks have few
channels.
"""

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from normbench.norms.base import Momentum, affine_parameters, require_groups
from normbench.norms.groups import NUM_GROUPS, NumGroups, resolve_num_groups
from normbench.norms.statistics import BatchStatistics


class BatchGroupNorm(BatchStatistics, name="batch_group"):
    also_called = ("BCN", "BatchChannelNorm")
    source = "Qiao et al. 2019"
    one_call = True
    axes = "all samples, one group of channels, all positions"

    def __init__(
        self,
        channels: int,
        *,
        num_groups: NumGroups = NUM_GROUPS,
        group_size: PositiveInt | None = None,
        eps: PositiveFloat = 1e-5,
        momentum: Momentum | None = 0.1,
        affine: bool = True,
    ) -> None:
        super().__init__(channels, eps=eps, momentum=momentum, affine=affine)
        self.num_groups = resolve_num_groups(self, num_groups, group_size)
        self.group_weight, self.group_bias = affine_parameters(self.num_groups, affine)

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        require_groups(self, x, self.num_groups)
        y = self.batch_norm(x, self.weight, self.bias)
        weight = bias = None
        if self.group_weight is not None and self.group_bias is not None:
            size = self.channels // self.num_groups
            weight = self.group_weight.repeat_interleave(size)
            bias = self.group_bias.repeat_interleave(size)
        return F.group_norm(y, self.num_groups, weight, bias, self.eps)
