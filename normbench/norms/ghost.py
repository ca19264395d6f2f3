"""Ghost batches (Hoffer et al. 2017): statistics over less than the whole batch."""

import torch
from torch import Tensor, nn

from normbench.errors import Incompatible, RequestError
from normbench.norms.base import Norm
from normbench.norms.statistics import exchanges, processes


class Ghost(nn.Module):
    """A norm, applied in training to `norm_batch` samples at a time.

    Called as the norm is. While the norm is in training mode, samples 0 .. norm_batch-1
    share statistics, then the next norm_batch, and so on: every chunk is one forward of
    `norm`, in order, and its `penalty` becomes the mean over the chunks. In evaluation
    mode it gets the whole batch. Where several processes share statistics, each has an
    equal part of one chunk. A batch of 0 samples passes through. Raises RequestError in
    training where norm_batch does not divide the batch, Incompatible where the norm
    does not share its statistics.
    """

    def __init__(self, norm: Norm, norm_batch: int) -> None:
        super().__init__()
        self.norm = norm
        self.norm_batch = norm_batch

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        if self.norm.training and len(x) * processes() == self.norm_batch > len(x):
            return self._shared(x, mask, condition)
        if not self.norm.training or len(x) in (0, self.norm_batch):
            whole: Tensor = self.norm(x, mask, condition)
            return whole
        if len(x) % self.norm_batch:
            raise RequestError(
                f"norm_batch={self.norm_batch} does not divide a batch of {len(x)}"
            )
        outputs, penalties = [], []
        for start in range(0, len(x), self.norm_batch):
            chunk = slice(start, start + self.norm_batch)
            rest = (t if t is None else t[chunk] for t in (mask, condition))
            outputs.append(self.norm(x[chunk], *rest))
            if self.norm.penalty is not None:
                penalties.append(self.norm.penalty)
        if penalties:
            self.norm.penalty = torch.stack(penalties).mean()
        return torch.cat(outputs)

    def _shared(
        self, x: Tensor, mask: Tensor | None, condition: Tensor | None
    ) -> Tensor:
        # A norm of the user's own could take its statistics in this process only. Not
        # checked in a compiled graph, which would depend on the number of exchanges.
        checked = not torch.compiler.is_compiling()
        before = exchanges() if checked else 0
        y: Tensor = self.norm(x, mask, condition)
        if checked and exchanges() == before and y.numel():
            raise Incompatible(
                f"norm={self.norm.name} takes its statistics in one process, and "
                f"norm_batch={self.norm_batch} is of {processes()}; take them with "
                "normbench.norms.statistics.batch_moments or pooled, or set "
                f"norm_batch={len(x)}"
            )
        return y
