"""Ghost batches: statistics of a part of the batch (Hoffer et al. 2017)."""

import torch
from torch import Tensor, nn

from normbench.errors import Incompatible, RequestError
from normbench.norms.base import Norm
from normbench.norms.sharing import exchange_count, process_count


class Ghost(nn.Module):
    """Applies a norm to `norm_batch` samples at a time in training.

    A Ghost is called with the arguments of the norm. In training, each chunk of
    norm_batch consecutive samples is normalized as a batch of its own, one after
    another, and `norm.penalty` becomes the mean over the chunks. The batch counts as
    one forward. A norm with `one_call` gets all chunks in one call, and any other norm
    is called once per chunk. In evaluation, the whole batch is one batch of the norm,
    and in both modes a batch of 0 samples is one.
    If several processes share statistics, each process holds an equal part of a single
    chunk.
    In training, a call raises RequestError if norm_batch does not divide the batch, and
    Incompatible if processes must share statistics but the norm exchanges none.
    """

    def __init__(self, norm: Norm, norm_batch: int) -> None:
        super().__init__()
        self.norm = norm
        self.norm_batch = norm_batch

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        samples, norm = len(x), self.norm
        if not norm.training or samples in (0, self.norm_batch):
            y: Tensor = norm(x, mask, condition)
            return y
        if process_count() > 1 and samples * process_count() == self.norm_batch:
            return self._shared_forward(x, mask, condition)
        if samples % self.norm_batch:
            raise RequestError(
                f"norm_batch={self.norm_batch} does not divide a batch of {samples}"
            )
        if not norm.one_call:
            return self._call_in_a_loop(x, mask, condition)
        norm.chunks = samples // self.norm_batch
        try:
            y = norm(x, mask, condition)
        finally:
            norm.chunks = 1
        return y

    def _call_in_a_loop(
        self, x: Tensor, mask: Tensor | None, condition: Tensor | None
    ) -> Tensor:
        norm, counting = self.norm, self.norm.counting
        outputs, penalties = [], []
        try:
            for start in range(0, len(x), self.norm_batch):
                chunk = slice(start, start + self.norm_batch)
                chunk_mask = None if mask is None else mask[chunk]
                chunk_condition = None if condition is None else condition[chunk]
                # Only the last call counts, so that all chunks see the same count. A
                # cumulative average (momentum None) counts every chunk.
                last = chunk.stop == len(x) or getattr(norm, "momentum", 0.0) is None
                norm.counting = counting and last
                outputs.append(norm(x[chunk], chunk_mask, chunk_condition))
                if norm.penalty is not None:
                    penalties.append(norm.penalty)
        finally:
            norm.counting = counting
        if penalties:
            norm.penalty = torch.stack(penalties).mean()
        return torch.cat(outputs)

    def _shared_forward(
        self, x: Tensor, mask: Tensor | None, condition: Tensor | None
    ) -> Tensor:
        """Apply the norm; raise Incompatible if it exchanged no statistics."""
        # A user's norm may compute its statistics in this process only. A compiled
        # graph skips the check, because the graph would depend on the count.
        check = not torch.compiler.is_compiling()
        count_before = exchange_count() if check else 0
        y: Tensor = self.norm(x, mask, condition)
        if check and exchange_count() == count_before and y.numel():
            raise Incompatible(
                f"norm={self.norm.name} takes its statistics in one process, but the "
                f"norm_batch={self.norm_batch} samples are in {process_count()} "
                "processes; use batch_moments or pooled of normbench.norms.statistics "
                f"in the norm, or set norm_batch={len(x)}"
            )
        return y
