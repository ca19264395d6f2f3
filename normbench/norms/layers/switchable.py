"""Switchable normalization (Luo et al. 2018, arXiv 1806.10779).

y = weight * (x - mean) / sqrt(var + eps) + bias. mean is the weighted sum of the means
of `instance`, `layer_sample` and `batch`, with the weights softmax(mean_logits) in this
order. var is the weighted sum of their biased variances, with softmax(var_logits).
Masked positions are included. running_mean and running_var are updated as in `batch`
and replace the batch statistics in evaluation.
weight, bias, running_mean, running_var: (C,); mean_logits, var_logits: (3,), which
start at 0 (authors' code: 1, with the same effect). The defaults are those of
torch.nn.BatchNorm1d. The authors' code has momentum 0.003 and uses the unbiased
variance of an instance.
"""

import torch
from torch import Tensor, nn

from normbench.norms.base import per_channel, require_positions
from normbench.norms.sharing import pooled
from normbench.norms.statistics import BatchStatistics, at_least_float32


class SwitchableNorm(BatchStatistics, name="switchable"):
    also_called = ("SwitchNorm",)
    source = "Luo et al. 2018"
    one_call = True
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
        y = torch.addcmul(per_channel(shift, x), per_channel(scale, x), x)
        return y.to(x.dtype)

    def _mix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weighted mean and variance of each sample and channel: (N, C)."""
        # The layer and batch statistics are computed from the instance statistics.
        var, mean = torch.var_mean(at_least_float32(x).flatten(2), 2, correction=0)
        # The first dimension is the chunk, the second the sample in the chunk.
        var, mean = (values.unflatten(0, (self.chunks, -1)) for values in (var, mean))
        layer_var, layer_mean = _merge(mean, var, 2)
        if self.training:
            batch_var, batch_mean = _merge(mean, var, 1)
            batch_mean, batch_var = pooled(batch_mean, batch_var)
            self.update(batch_mean.squeeze(1), batch_var.squeeze(1), self.count(x))
        else:
            batch_mean, batch_var = self.running_mean, self.running_var
        w_mean, w_var = self.mean_logits.softmax(0), self.var_logits.softmax(0)
        mean = w_mean[0] * mean + w_mean[1] * layer_mean + w_mean[2] * batch_mean
        var = w_var[0] * var + w_var[1] * layer_var + w_var[2] * batch_var
        return mean.flatten(0, 1), var.flatten(0, 1)


def _merge(mean: Tensor, var: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return the variance and the mean of the whole that equal parts form along `dim`.

    `mean` and `var` are the statistics of the parts.
    """
    between, whole_mean = torch.var_mean(mean, dim, correction=0, keepdim=True)
    return var.mean(dim, keepdim=True) + between, whole_mean
