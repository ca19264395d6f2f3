"""Batch normalization (Ioffe & Szegedy 2015).

Training: y = weight * (x - mean) / sqrt(var + eps) + bias, with the mean and the biased
variance of each channel over samples and positions, including masked positions.
The running statistics are updated by running_mean += momentum * (mean - running_mean);
running_var likewise, with the unbiased variance. Evaluation normalizes with them.
weight, bias, running_mean, running_var: (C,). Equals torch.nn.BatchNorm1d/2d/3d, with
the same defaults.
"""

from torch import Tensor

from normbench.norms.statistics import BatchStatistics


class BatchNorm(BatchStatistics, name="batch"):
    source = "Ioffe & Szegedy 2015"
    fixed_map_in_eval = True
    one_call = True

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        return self.batch_norm(x, self.weight, self.bias)
