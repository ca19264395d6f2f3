"""Batch normalization (Ioffe & Szegedy 2015).

Training: y = weight * (x - mean) / sqrt(var + eps) + bias, with the mean and the biased
variance of each channel over samples and positions, masked ones included.
running_mean += momentum * (mean - running_mean), and running_var likewise with the
unbiased variance; evaluation normalises with these two.
weight, bias, running_mean, running_var: (C,). As torch.nn.BatchNorm1d/2d/3d, defaults
too.
"""

from pydantic import PositiveFloat
from torch import Tensor

from normbench.norms.base import Momentum, Norm, affine_parameters
from normbench.norms.statistics import batch_norm, register_running_statistics


class BatchNorm(Norm, name="batch"):
    source = "Ioffe & Szegedy 2015"
    axes = "all samples, one channel, all positions"
    uses_other_samples = True
    differs_in_eval = True

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
        return batch_norm(self, x, self.weight, self.bias)
