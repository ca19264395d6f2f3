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
from torch import Tensor, nn

from normbench.norms.base import per_channel, require_positions
from normbench.norms.statistics import BatchStatistics, pooled, widened


class SwitchableNorm(BatchStatistics, name="switchable"):
    source = "Luo et al. 2018"
    axes = (
        "all samples, one channel, all positions; "
        "one sample, all channels, all positions"
    )

    def add_state(self) -> None:
        super().add_state()
        self.mean_logits = nn.Parameter(torch.zeros(3))
        self.var_logits = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        require_positions(self, x)
        mean, var = self._mix(x)
        scale = torch.rsqrt(var + self.eps)
        shift = -mean * scale
        if self.weight is not None and self.bias is not None:
            scale = scale * self.weight
            shift = shift * self.weight + self.bias
        return torch.addcmul(per_channel(shift, x), per_channel(scale, x), x).to(
            x.dtype
        )

    def _mix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted mean and variance (N, C) of each sample and channel."""
        # All moments follow from those of the instances.
        var, mean = torch.var_mean(widened(x).flatten(2), 2, correction=0)
        layer_var, layer_mean = _together(mean, var, 1)
        if self.training:
            batch_var, batch_mean = _together(mean, var, 0)
            batch_mean, batch_var = pooled(batch_mean, batch_var)
            self.update(batch_mean.squeeze(0), batch_var.squeeze(0), self.count(x))
        else:
            batch_mean, batch_var = self.running_mean, self.running_var
        a, b = self.mean_logits.softmax(0), self.var_logits.softmax(0)
        return (
            a[0] * mean + a[1] * layer_mean + a[2] * batch_mean,
            b[0] * var + b[1] * layer_var + b[2] * batch_var,
        )


def _together(mean: Tensor, var: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Variance and mean of equally large parts taken together along `dim`."""
    between, whole_mean = torch.var_mean(mean, dim, correction=0, keepdim=True)
    return var.mean(dim, keepdim=True) + between, whole_mean
