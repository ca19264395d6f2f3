"""Batch normalization that leaves the pads out of its statistics (folklore; PowerNorm,
Shen et al. 2020, and RBN, Wang et al. 2022, have it in their code).

As `batch`, with the mean, the biased variance (unbiased in running_var) and the count
of values taken over the real positions of all samples. Every position goes through the
same affine map, pads too; an infinity or NaN at a pad counts as 0.
weight, bias, running_mean, running_var: (C,). Equals torch.nn.BatchNorm1d on x[mask].
"""

from pydantic import PositiveFloat
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


class MaskedBatchNorm(Norm, name="batch_masked"):
    source = "folklore; Shen et al. 2020"
    axes = "all samples, one channel, all positions"
    uses_other_samples = True
    differs_in_eval = True
    honours_mask = True

    def __init__(
        self,
        channels: int,
        *,
        eps: PositiveFloat = 1e-5,
        momentum: Momentum = 0.1,
        affine: bool = True,
    ) -> None:
        super().__init__(channels)
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = affine_parameters(channels, affine)
        register_running_statistics(self)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        if mask is None:
            return batch_norm(self, x, self.weight, self.bias)
        x = clean_pads(x, mask)
        if not self.training:
            return batch_norm(self, x, self.weight, self.bias)
        count = self._count(mask)
        mean, var = batch_moments(x, mask, count)
        update_running_statistics(self, mean, var, count)
        return standardise(self, x, mean, var, self.weight, self.bias)

    def _count(self, mask: Tensor) -> Tensor | int:
        return batch_count(self, mask, mask)
