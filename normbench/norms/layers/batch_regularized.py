"""Regularized batch normalization, RBN (Wang et al. 2022, arXiv 2210.05153).

As `batch_masked`, and each training forward leaves a penalty for the loss:
penalty_mean * sum((mean - running_mean)**2)
+ penalty_std * sum((std - running_std)**2), summed over the channels, with
std = sqrt(var + eps), what training and evaluation divide by. The batch's statistics
are those that y is normalized with; the running ones are as they were before this
forward and constant (the authors' code: after it, which only scales the first term by
(1 - momentum)**2). Pads are left out of both.
weight, bias, running_mean, running_var: (C,). Defaults as torch.nn.BatchNorm1d; the
penalties are those of the authors' pre-norm translation models, where momentum is 0.05
and running_var the average of the biased variance.
"""

from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from normbench.norms.base import Momentum
from normbench.norms.statistics import BatchStatistics, batch_moments, clean_pads


class RegularizedBatchNorm(BatchStatistics, name="batch_regularized"):
    source = "Wang et al. 2022"
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
        mean, var = batch_moments(x, mask, count)
        self.penalty = self._discrepancy(mean, var)
        self.update(mean, var, count)
        return self.standardize(x, mean, var, self.weight, self.bias)

    def _discrepancy(self, mean: Tensor, var: Tensor) -> Tensor:
        # New tensors: the running statistics move before the backward pass.
        running_mean, running_var = self.running_mean, self.running_var
        if torch.compiler.is_compiling():
            running_mean, running_var = _kept(running_mean), _kept(running_var)
        std, running_std = (torch.sqrt(v + self.eps) for v in (var, running_var))
        mean_term = (mean - running_mean).square().sum()
        std_term = (std - running_std).square().sum()
        return self.penalty_mean * mean_term + self.penalty_std * std_term

    def __getstate__(self) -> dict[str, Any]:
        """A copy starts without the penalty, which holds the graph of one forward."""
        return {**self.__dict__, "penalty": None}


# In the backward pass, a compiled graph computes cheap operations again, from the
# running statistics as they are then; it keeps the result of one of unknown cost.
@torch.library.custom_op("normbench::kept", mutates_args=())
def _kept(x: Tensor) -> Tensor:
    return x.clone()


@_kept.register_fake
def _kept_shape(x: Tensor) -> Tensor:
    return torch.empty_like(x)
