"""Switchable normalization (Luo et al. 2018, arXiv 1806.10779).

y = weight * (x - mean) / sqrt(var + eps) + bias, where mean is the sum of the means of
`instance`, `layer_sample` and `batch`, in this order, weighted by softmax(mean_logits),
and var that of their biased variances by softmax(var_logits); masked positions are
included. running_mean and running_var as in `batch`, and in place of the batch's in
evaluation.
weight, bias, running_mean, running_var: (C,); mean_logits, var_logits: (3,), zeros at
first (the authors' code: ones, the same). Defaults as torch.nn.BatchNorm1d; the
authors' code has momentum 0.003 and takes the unbiased variance of an instance.
"""

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from normbench.norms.base import Momentum, Norm, affine_parameters, require_several
from normbench.norms.statistics import (
    pooled,
    processes,
    register_running_statistics,
    update_running_statistics,
)


class SwitchableNorm(Norm, name="switchable"):
    source = "Luo et al. 2018"
    axes = (
        "all samples, one channel, all positions; "
        "one sample, all channels, all positions"
    )
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
        self.mean_logits = nn.Parameter(torch.zeros(3))
        self.var_logits = nn.Parameter(torch.zeros(3))
        register_running_statistics(self)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        require_several(
            x.shape[2:].numel(), self, x, "raise the resolution or the length"
        )
        mean, var = self._mix(x)
        scale = torch.rsqrt(var + self.eps)
        shift = -mean * scale
        if self.weight is not None and self.bias is not None:
            scale = scale * self.weight
            shift = shift * self.weight + self.bias
        ones = (1,) * (x.dim() - 2)
        scale, shift = (s.view(*s.shape, *ones) for s in (scale, shift))
        return torch.addcmul(shift, scale, x).to(x.dtype)

    def _mix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted mean and variance (N, C) of each sample and channel."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        # All moments follow from those of the instances.
        var, mean = torch.var_mean(wide.flatten(2), 2, correction=0)
        layer_var, layer_mean = _together(mean, var, 1)
        if self.training:
            batch_var, batch_mean = _together(mean, var, 0)
            batch_mean, batch_var = pooled(batch_mean, batch_var)
            update_running_statistics(
                self,
                batch_mean.detach().squeeze(0),
                batch_var.detach().squeeze(0),
                x.numel() // self.channels * processes(),
            )
        else:
            batch_mean, batch_var = self.running_mean, self.running_var
        of_mean, of_var = (p.softmax(0) for p in (self.mean_logits, self.var_logits))
        return (
            of_mean[0] * mean + of_mean[1] * layer_mean + of_mean[2] * batch_mean,
            of_var[0] * var + of_var[1] * layer_var + of_var[2] * batch_var,
        )


def _together(mean: Tensor, var: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Variance and mean of equally large parts taken together along `dim`."""
    between, whole_mean = torch.var_mean(mean, dim, correction=0, keepdim=True)
    return var.mean(dim, keepdim=True) + between, whole_mean
