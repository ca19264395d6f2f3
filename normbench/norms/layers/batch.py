"""Batch normalization (Ioffe & Szegedy 2015).

Training: y = weight * (x - mean) / sqrt(var + eps) + bias, with the mean and the biased
variance of each channel over samples and positions, including masked positions.
The running statistics are updated by running_mean += momentum * (mean - running_mean);
running_var likewise, with the unbiased variance. Evaluation normalizes with them. At
momentum None, they are the mean over all norm batches so far. Without
`track_running_stats` there are none, and evaluation normalizes as training does, with
all samples of its batch (`norm_batch` divides a batch in training only).
weight, bias, running_mean, running_var: (C,). Equals torch.nn.BatchNorm1d/2d/3d, with
the same defaults.
"""

from pydantic import PositiveFloat
from torch import Tensor

from normbench.norms.base import Momentum
from normbench.norms.statistics import BatchStatistics


class BatchNorm(BatchStatistics, name="batch"):
    also_called = ("SyncBatchNorm",)
    source = "Ioffe & Szegedy 2015"
    fixed_map_in_eval = True
    one_call = True

    def __init__(
        self,
        channels: int,
        *,
        eps: PositiveFloat = 1e-5,
        momentum: Momentum | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__(channels, eps=eps, momentum=momentum, affine=affine)
        if not track_running_stats:
            self.tracks = self.differs_in_eval = self.fixed_map_in_eval = False
            for name, _ in list(self.named_buffers()):
                self.register_buffer(name, None)

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        return self.batch_norm(x, self.weight, self.bias)
