"""Batch renormalization (Ioffe 2017, arXiv 1702.03275).

Training: y = weight * (r * (x - mean) / sqrt(var + eps) + d) + bias, with the mean and
the biased variance of each channel over samples and positions, masked ones included,
r = clip(sqrt(var + eps) / sqrt(running_var + eps), 1 / r_max, r_max) and
d = clip((mean - running_mean) / sqrt(running_var + eps), -d_max, d_max), with the
running statistics as they were before this forward; no gradient passes through r and d.
The limits are 1 and 0 (as `batch`) for the first `warmup_steps` training forwards, then
rise linearly and reach r_max at forward `r_max_steps` and d_max at `d_max_steps`.
Running statistics and evaluation as in `batch`, so running_var is the average of the
unbiased variance; the paper averages the biased standard deviation. At momentum 1 there
is no average to correct towards, and r = 1, d = 0.
weight, bias, running_mean, running_var: (C,). The paper's limits and schedule are r_max
3 at step 40,000, d_max 5 at 25,000, warm-up 5,000, momentum 0.01; the defaults are its
limits, its schedule divided by 100, torch's eps and momentum.
"""

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor

from normbench.norms.base import Momentum
from normbench.norms.statistics import BatchStatistics, batch_moments


class BatchRenorm(BatchStatistics, name="batch_renorm"):
    source = "Ioffe 2017"
    exact_gradient = False

    def __init__(
        self,
        channels: int,
        *,
        r_max: Annotated[float, Field(ge=1)] = 3.0,
        d_max: NonNegativeFloat = 5.0,
        warmup_steps: NonNegativeInt = 50,
        r_max_steps: NonNegativeInt = 400,
        d_max_steps: NonNegativeInt = 250,
        eps: PositiveFloat = 1e-5,
        momentum: Momentum = 0.1,
        affine: bool = True,
    ) -> None:
        super().__init__(channels, eps=eps, momentum=momentum, affine=affine)
        self.r_max, self.d_max = r_max, d_max
        self.warmup_steps = warmup_steps
        self.r_max_steps, self.d_max_steps = r_max_steps, d_max_steps

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        if not self.training or self.momentum == 1:
            return self.batch_norm(x, self.weight, self.bias)
        r, d = self._corrections(x)
        # r and d are constants of the backward pass: a further gain and bias.
        weight = r if self.weight is None else r * self.weight
        bias = d if self.weight is None else d * self.weight
        if self.bias is not None:
            bias = bias + self.bias
        return self.batch_norm(x, weight, bias)

    @torch.no_grad()
    def _corrections(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, var = batch_moments(x, None, x.numel() // self.channels)
        inverse = torch.rsqrt(self.running_var + self.eps)
        r_max = 1 + (self.r_max - 1) * self._progress(self.r_max_steps)
        d_max = self.d_max * self._progress(self.d_max_steps)
        r = (torch.sqrt(var + self.eps) * inverse).clamp(1 / r_max, r_max)
        d = ((mean - self.running_mean) * inverse).clamp(-d_max, d_max)
        dtype = self.running_var.dtype
        return r.to(dtype), d.to(dtype)

    def _progress(self, end: int) -> Tensor:
        """The progress of this training forward from the warm-up to `end`: 0 to 1."""
        after = self.num_batches_tracked + 1 - self.warmup_steps
        return (after / max(1, end - self.warmup_steps)).clamp(0, 1)
