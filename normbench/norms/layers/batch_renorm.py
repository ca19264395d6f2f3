"""Batch renormalization (Ioffe 2017, arXiv 1702.03275).

Training: y = weight * (r * (x - mean) / sqrt(var + eps) + d) + bias, with the mean and
the biased variance of each channel over samples and positions, including masked
positions, and
    r = clip(sqrt(var + eps) / sqrt(running_var + eps), 1 / r_max, r_max)
    d = clip((mean - running_mean) / sqrt(running_var + eps), -d_max, d_max).
The running statistics in r and d have their values from before this norm batch. No
gradient passes through r and d.
In the first `warmup_steps` optimizer steps, the limits of r and d are 1 and 0, so the
norm equals `batch`. Then the limits rise linearly: the limit of r reaches r_max at
step `r_max_steps`, and the limit of d reaches d_max at step `d_max_steps`. At
momentum 1, r is 1 and d is 0, because there is no running average.
Running statistics and evaluation are those of `batch`. So running_var averages the
unbiased variance, while the paper averages the biased standard deviation.
weight, bias, running_mean, running_var: (C,). In the paper, r_max is 3 at step 40,000,
d_max is 5 at step 25,000, the warm-up has 5,000 steps, and momentum is 0.01. The
defaults are the paper's limits, the paper's steps divided by 100, and torch's eps and
momentum.
"""

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor

from normbench.norms.base import Momentum
from normbench.norms.statistics import BatchStatistics, batch_moments, unbiased


class BatchRenorm(BatchStatistics, name="batch_renorm"):
    source = "Ioffe 2017"
    fixed_map_in_eval = True
    one_call = True
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
        # In the backward pass, r and d are constants, like a second gain and bias.
        weight = r if self.weight is None else r * self.weight
        bias = d if self.weight is None else d * self.weight
        if self.bias is not None:
            bias = bias + self.bias
        return self.batch_norm(x, weight, bias)

    @torch.no_grad()
    def _corrections(self, x: Tensor) -> tuple[Tensor, Tensor]:
        count = self.count(x)
        mean, var = batch_moments(x, None, count, self.chunks)
        running_mean = self.before_chunks(self.running_mean, mean, count)
        running_var = self.before_chunks(self.running_var, unbiased(var, count), count)
        inverse_running_std = torch.rsqrt(running_var + self.eps)
        r_max = 1 + (self.r_max - 1) * self._progress(self.r_max_steps)
        d_max = self.d_max * self._progress(self.d_max_steps)
        r = (torch.sqrt(var + self.eps) * inverse_running_std).clamp(1 / r_max, r_max)
        d = ((mean - running_mean) * inverse_running_std).clamp(-d_max, d_max)
        dtype = self.running_var.dtype
        return r.to(dtype), d.to(dtype)

    def _progress(self, end: int) -> Tensor:
        """Return the progress from the end of the warm-up to step `end`, 0 to 1."""
        after_warmup = self.past_steps() + 1 - self.warmup_steps
        return (after_warmup / max(1, end - self.warmup_steps)).clamp(0, 1)
