"""Group normalization over groups of channels that need not be adjacent (Wu & He 2018;
the permutations are folklore).

y = weight * (x - mean) / sqrt(var + eps) + bias, with the mean and the biased variance
of each sample and group of C / num_groups channels, over the channels of the group and
the positions, including masked positions. `order` chooses the channels of group g:
    contiguous           adjacent channels, which equals `group`
    strided              channels g, g + num_groups, g + 2 * num_groups, ...
    random_fixed         random channels, drawn from `permutation_seed`: the same in all
                         layers with the same number of channels
    random_each_layer    random channels, drawn for each layer from `permutation_seed`
                         and the global random state: the layers on a residual stream
                         group the same channels differently
    random_each_forward  random channels, drawn at each forward in training and in
                         evaluation; this order reproduces an error in a public
                         test of GroupNorm
weight, bias: (C,), in the order of the input channels. permutation: (C,) int64, a
buffer with the orders strided, random_fixed and random_each_layer. forwards: (2,)
int64, a buffer with the order random_each_forward. `forwards` has the number of
training forwards, and the number of evaluation forwards since the last training
forward. With two numbers, evaluation does not change the permutations of training.
"""

from typing import Literal

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from normbench.norms.base import Affine, require_groups
from normbench.norms.groups import NUM_GROUPS, NumGroups, resolve_num_groups


class PermutedGroupNorm(Affine, name="group_permuted"):
    also_called = ("PermutedGroupNorm",)
    source = "Wu & He 2018; permutations: folklore"
    axes = "one sample, one group of channels, all positions"

    permutation: Tensor
    forwards: Tensor

    def __init__(
        self,
        channels: int,
        *,
        num_groups: NumGroups = NUM_GROUPS,
        group_size: PositiveInt | None = None,
        order: Literal[
            "contiguous",
            "strided",
            "random_fixed",
            "random_each_layer",
            "random_each_forward",
        ] = "random_fixed",
        permutation_seed: NonNegativeInt = 0,
        eps: PositiveFloat = 1e-5,
        affine: bool = True,
    ) -> None:
        super().__init__(channels, eps=eps, affine=affine)
        self.num_groups = resolve_num_groups(self, num_groups, group_size)
        self.order = order
        self.permutation_seed = permutation_seed
        self.deterministic = order != "random_each_forward"
        if order == "random_each_forward":
            self.register_buffer("forwards", torch.zeros(2, dtype=torch.int64))
        elif order == "strided":
            strided = torch.arange(channels).view(-1, self.num_groups).t().flatten()
            self.register_buffer("permutation", strided)
        elif order != "contiguous":
            count = torch.tensor(0)
            if order == "random_each_layer":
                # The initial weights of the next layer are drawn from the same random
                # state. So `draw` hashes this number, to be independent of the weights.
                # It is drawn on the CPU, so that it is the same on all devices.
                count = torch.randint(1, 2**62, (), device="cpu")
            drawn = draw(channels, permutation_seed, count)
            drawn = drawn.to(torch.get_default_device())
            self.register_buffer("permutation", drawn)

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        require_groups(self, x, self.num_groups)
        if self.order == "contiguous":
            return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        if self.order == "random_each_forward":
            permutation = self._next_permutation()
        else:
            permutation = self.permutation
        weight = None if self.weight is None else self.weight[permutation]
        bias = None if self.bias is None else self.bias[permutation]
        permuted = x.index_select(1, permutation)
        y = F.group_norm(permuted, self.num_groups, weight, bias, self.eps)
        return y.index_select(1, permutation.argsort())

    def _next_permutation(self) -> Tensor:
        training, evaluation = self.forwards.unbind()
        if self.training:
            training.add_(1)
            evaluation.zero_()
        else:
            evaluation.add_(1)
        # Each pair of the two numbers gives another count.
        count = (training << 32) + evaluation
        return draw(self.channels, self.permutation_seed, count)


def draw(channels: int, seed: int, count: Tensor) -> Tensor:
    """Return permutation number `count` (int64 scalar) for `seed`: (C,) int64.

    The channels are sorted by their hashes (SplitMix64, Steele et al. 2014). The result
    is on the device of `count`, and it is the same on all devices.
    """
    channel = torch.arange(channels, device=count.device)
    return _mix(channel + _mix(count + _mix(count.new_full((), seed)))).argsort()


def _mix(z: Tensor) -> Tensor:
    """Return the SplitMix64 hash of an int64 tensor.

    int64 arithmetic wraps as in unsigned types. The bit masks turn the arithmetic
    shifts into logical shifts.
    """
    z = z + -0x61C8864680B583EB
    z = (z ^ ((z >> 30) & (1 << 34) - 1)) * -0x40A7B892E31B1A47
    z = (z ^ ((z >> 27) & (1 << 37) - 1)) * -0x6B2FB644ECCEEE15
    return z ^ ((z >> 31) & (1 << 33) - 1)
