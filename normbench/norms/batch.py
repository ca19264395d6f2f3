"""Batch normalization (Ioffe & Szegedy 2015).

Training: y = weight * (x - mean) / sqrt(var + eps) + bias, with the mean and the biased
variance of each channel over samples and positions, masked ones included.
running_mean += momentum * (mean - running_mean), and running_var likewise with the
unbiased variance; evaluation normalises with these two.
weight, bias, running_mean, running_var: (C,). As torch.nn.BatchNorm1d/2d/3d, defaults
too.
"""

from typing import Annotated

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from normbench.norms.base import Norm, affine_parameters, require_several


class BatchNorm(Norm, name="batch"):
    uses_other_samples = True
    differs_in_eval = True

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        channels: int,
        *,
        eps: PositiveFloat = 1e-5,
        momentum: Annotated[float, Field(gt=0, le=1)] = 0.1,
        affine: bool = True,
    ) -> None:
        super().__init__(channels)
        self.eps = eps
        self.momentum = momentum
        self.weight, self.bias = affine_parameters(channels, affine)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        if self.training:
            count = x.numel() // x.shape[1]
            require_several(count, self, x, "raise norm_batch or the resolution")
            self.num_batches_tracked.add_(1)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
        )
