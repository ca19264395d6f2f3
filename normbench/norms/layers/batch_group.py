"""Batch, then group normalization: batch-channel normalization, BCN (Qiao et al. 2019,
arXiv 1911.09738).

b = weight * (x - mean) / sqrt(var + eps) + bias as in `batch`, running statistics too;
y = group_weight * (b - group_mean) / sqrt(group_var + eps) + group_bias, with the mean
and the biased variance of each sample and group of C / num_groups adjacent channels of
b over the group's channels and positions. Both include masked positions.
weight, bias, running_mean, running_var: (C,); group_weight, group_bias: (num_groups,),
as in the authors' code. Equals torch.nn.BatchNorm1d, then torch.nn.GroupNorm with a
gain and a bias per group; the paper's estimated batch statistics for micro-batches are
not part of it. num_groups is 8 here (32 in the paper), because small networks have few
channels.
"""

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from normbench.norms.base import (
    NUM_GROUPS,
    Momentum,
    affine_parameters,
    groups_of,
    require_groups,
)
from normbench.norms.statistics import BatchStatistics


class BatchGroupNorm(BatchStatistics, name="batch_group"):
    source = "Qiao et al. 2019"
    axes = "all samples, one group of channels, all positions"

    def __init__(
        self,
        channels: int,
        *,
        num_groups: PositiveInt = NUM_GROUPS,
        group_size: PositiveInt | None = None,
        eps: PositiveFloat = 1e-5,
        momentum: Momentum = 0.1,
        affine: bool = True,
    ) -> None:
        super().__init__(channels, eps=eps, momentum=momentum, affine=affine)
        self.num_groups = groups_of(self, num_groups, group_size)
        self.group_weight, self.group_bias = affine_parameters(self.num_groups, affine)

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        require_groups(self, x, self.num_groups)
        y = self.batch_norm(x, self.weight, self.bias)
        weight, bias = (
            None if g is None else g.repeat_interleave(self.channels // self.num_groups)
            for g in (self.group_weight, self.group_bias)
        )
        return F.group_norm(y, self.num_groups, weight, bias, self.eps)
