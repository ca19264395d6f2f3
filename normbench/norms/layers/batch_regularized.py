"""Regularized batch normalization, RBN (Wang et al. 2022, arXiv 2210.05153).

The output is that of `batch_masked`. Each training forward also sets a penalty, which
is added to the loss: penalty_mean * sum((mean - running_mean)**2)
+ penalty_std * sum((std - running_std)**2). The sums are over the channels.
std = sqrt(var + eps) is the divisor of x - mean. mean and var are the statistics of the
batch over its real positions. The running statistics are constants with the values
before this forward. The authors' code uses the values after this forward. The only
effect on the first term is a factor of (1 - momentum)**2.
weight, bias, running_mean, running_var: (C,). The defaults are those of
torch.nn.BatchNorm1d. The default penalties are those of the authors' pre-norm
translation models, which have momentum 0.05 and average the biased variance.
"""

from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from normbench.norms.base import Momentum
from normbench.norms.statistics import (
    BatchStatistics,
    batch_moments,
    clean_pads,
    unbiased,
)


class RegularizedBatchNorm(BatchStatistics, name="batch_regularized"):
    also_called = ("RBN",)
    source = "Wang et al. 2022"
    one_call = True
    honours_mask = True

    def __init__(
        self,
        channels: int,
        *,
        penalty_mean: NonNegativeFloat = 0.1,
        penalty_std: NonNegativeFloat = 0.01,
        eps: PositiveFloat = 1e-5,
        momentum: Momentum = 0.1,
        affine: bool = True,
    ) -> None:
        super().__init__(channels, eps=eps, momentum=momentum, affine=affine)
        self.penalty_mean, self.penalty_std = penalty_mean, penalty_std

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *_: Tensor | None
    ) -> Tensor:
        x = clean_pads(x, mask)
        if not self.training:
            return self.batch_norm(x, self.weight, self.bias)
        count = self.count(x, mask)
        mean, var = batch_moments(x, mask, count, self.chunks)
        self.penalty = self._discrepancy(mean, var, count)
        self.update(mean, var, count)
        return self.standardize(x, mean, var, self.weight, self.bias)

    def _discrepancy(self, mean: Tensor, var: Tensor, count: Tensor | int) -> Tensor:
        # In eager mode, the subtraction makes new tensors, so the update of the running
        # statistics before the backward pass is harmless. Compiled code needs copies.
        running_mean, running_var = self.running_mean, self.running_var
        if torch.compiler.is_compiling():
            running_mean, running_var = _copy(running_mean), _copy(running_var)
        running_mean = self.before_chunks(running_mean, mean, count)
        running_var = self.before_chunks(running_var, unbiased(var, count), count)
        std, running_std = (torch.sqrt(v + self.eps) for v in (var, running_var))
        mean_term = (mean - running_mean).square().sum(-1).mean()
        std_term = (std - running_std).square().sum(-1).mean()
        return self.penalty_mean * mean_term + self.penalty_std * std_term

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the penalty, which holds an autograd graph."""
        return {**self.__dict__, "penalty": None}


# In the backward pass, compiled code recomputes cheap operations such as `clone`, from
# the updated running statistics. Compiled code keeps the result of a custom
# operation.
@torch.library.custom_op("normbench::copy", mutates_args=())
def _copy(x: Tensor) -> Tensor:
    return x.clone()


@_copy.register_fake
def _copy_on_meta(x: Tensor) -> Tensor:
    return torch.empty_like(x)
