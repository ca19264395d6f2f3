"""Batch normalization with statistics of the real positions only (folklore; also in the
code of PowerNorm, Shen et al. 2020, and RBN, Wang et al. 2022).

As `batch`, but the mean, the variance and the count of values are over the real
positions of all samples. The same affine map is applied to all positions, real and
masked. An infinity or NaN at a masked position counts as 0.
weight, bias, running_mean, running_var: (C,). Equals torch.nn.BatchNorm1d on x[mask].
"""

from torch import Tensor

from normbench.norms.layers.batch import BatchNorm
from normbench.norms.statistics import batch_moments, clean_pads


class MaskedBatchNorm(BatchNorm, name="batch_masked"):
    also_called = ("MaskedBatchNorm",)
    source = "folklore; Shen et al. 2020"
    one_call = True
    honours_mask = True
    fixed_map_in_eval = False  # it may replace an infinity at a masked position

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *_: Tensor | None
    ) -> Tensor:
        x = clean_pads(x, mask)
        if mask is None or not self.of_batch:
            return self.batch_norm(x, self.weight, self.bias)
        count = self.count(x, mask)
        mean, var = batch_moments(x, mask, count, self.chunks)
        self.update(mean, var, count)
        return self.standardize(x, mean, var, self.weight, self.bias)
