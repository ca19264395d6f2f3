"""Regularized batch normalization, RBN (Wang et al. 2022, arXiv 2210.05153).

As `batch_masked`, and each training forward leaves a penalty for the loss:
penalty_mean * sum((mean - running_mean)**2)
+ penalty_std * sum((std - running_std)**2), summed over the channels, with
std = sqrt(var + eps), what training and evaluation divide by. The batch's statistics
are those that y is normalised with; the running ones are as they were before this
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

from normbench.norms.base import Momentum, Norm, affine_parameters
from normbench.norms.statistics import (
    batch_count,
    batch_moments,
    batch_norm,
    clean_pads,
    register_running_statistics,
    standardise,
    update_running_statistics,
)


class RegularizedBatchNorm(Norm, name="batch_regularized"):
    source = "Wang et al. 2022"
    axes = "all samples, one channel, all positions"
    uses_other_samples = True
    differs_in_eval = True
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
        super().__init__(channels)
        self.penalty_mean, self.penalty_std = penalty_mean, penalty_std
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = affine_parameters(channels, affine)
        register_running_statistics(self)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        if mask is not None:
            x = clean_pads(x, mask)
        if not self.training:
            return batch_norm(self, x, self.weight, self.bias)
        count = batch_count(self, x, mask)
        mean, var = batch_moments(x, mask, count)
        self.penalty = self._discrepancy(mean, var)
        update_running_statistics(self, mean.detach(), var.detach(), count)
        return standardise(self, x, mean, var, self.weight, self.bias)

    def _discrepancy(self, mean: Tensor, var: Tensor) -> Tensor:
        # New tensors: the running statistics move before the backward pass.
        running_mean, running_var = self.running_mean, self.running_var
        if torch.compiler.is_compiling():
            running_mean, running_var = _kept(running_mean), _kept(running_var)
        std, running_std = (torch.sqrt(v + self.eps) for v in (var, running_var))
        of_mean = (mean - running_mean).square().sum()
        of_std = (std - running_std).square().sum()
        return self.penalty_mean * of_mean + self.penalty_std * of_std

    def __getstate__(self) -> dict[str, Any]:
        """Copies start without the penalty: it holds the graph of one forward."""
        return {**self.__dict__, "penalty": None}


# A compiled graph computes again for the backward pass what is cheap, from the running
# statistics as they are then; what an operation of unknown cost gives, it keeps.
@torch.library.custom_op("normbench::kept", mutates_args=())
def _kept(x: Tensor) -> Tensor:
    return x.clone()


@_kept.register_fake
def _kept_shape(x: Tensor) -> Tensor:
    return torch.empty_like(x)
