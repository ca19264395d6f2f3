"""Batch normalization that leaves the pads out of its statistics (folklore; PowerNorm,
Shen et al. 2020, and RBN, Wang et al. 2022, have it in their code).

As `batch`, with the mean, the biased variance (unbiased in running_var) and the count
of values taken over the real positions of all samples. Every position goes through the
same affine map, pads too; an infinity or NaN at a pad counts as 0.
weight, bias, running_mean, running_var: (C,). Equals torch.nn.BatchNorm1d on x[mask].
"""

from torch import Tensor

from normbench.norms.statistics import BatchStatistics, batch_moments, clean_pads


class MaskedBatchNorm(BatchStatistics, name="batch_masked"):
    source = "folklore; Shen et al. 2020"
    honours_mask = True

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *_: Tensor | None
    ) -> Tensor:
        x = clean_pads(x, mask)
        if mask is None or not self.training:
            return self.batch_norm(x, self.weight, self.bias)
        count = self.count(x, mask)
        mean, var = batch_moments(x, mask, count)
        self.update(mean, var, count)
        return self.standardize(x, mean, var, self.weight, self.bias)
