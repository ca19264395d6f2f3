"""Classification of padded token sequences with a Transformer encoder.

The network, with its sources and formulas, is in `networks/transformer.py`.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.data.base import Tokens
from normbench.errors import RequestError
from normbench.tasks.base import NormFactory, Scores, Task, classification_scores
from normbench.tasks.networks.transformer import (
    Encoder,
    NormPosition,
    QKNormKind,
    Shape,
)


class Transformer(Task, name="transformer"):
    """Sequence classification with the cross-entropy loss.

    Attention and pooling ignore padding tokens. The norm ignores them only if it uses
    the mask. A batch means a micro-batch: the samples that one forward pass sees.

    `norm_position` places the norms; the formulas of its values are in
    `networks/transformer.py`, with those of `qk_norm`, which normalizes the queries and
    keys of every head. `qk_norm` is the same whatever the norm of the network is. The
    learned scale of `qk_norm="l2"` starts at log2(L**2 - L) (Henry et al. 2020), where
    L is the 97.5th percentile of the lengths of the training samples, at least 2.

    `padding` pads every batch to its longest sequence or to `max_length`.
    `long_batches` is the share of training batches that are padded to `max_length`
    although `padding` is "longest", so that the share of padding tokens varies between
    batches. A hash of the samples in a batch decides, so that the choice depends on
    neither the network nor the order of the samples. Batches of training samples are
    padded in the same way during evaluation and when statistics are recomputed. Batches
    of validation and test samples are padded to their longest sequence.

    `batching="length"` makes training batches of samples of similar length. With
    `padding="longest"` such batches have few padding tokens. With
    `padding="max_length"` the share of padding tokens differs between batches.
    Validation and test batches are not sorted by length.
    """

    data_kind = Tokens
    primary_metric = "error"
    direction: ClassVar[Literal["minimize", "maximize"]] = "minimize"
    norm_aliases: ClassVar[dict[str, str]] = {"layer": "layer_position"}
    has_images = False

    def __init__(
        self,
        data: Tokens,
        device: torch.device,
        *,
        width: PositiveInt = 64,
        depth: PositiveInt = 2,
        heads: PositiveInt = 4,
        norm_position: NormPosition = "post",
        qk_norm: QKNormKind = "none",
        padding: Literal["longest", "max_length"] = "longest",
        max_length: PositiveInt = 64,
        long_batches: Annotated[float, Field(ge=0, le=1)] = 0.0,
        batching: Literal["random", "length"] = "random",
        padding_side: Literal["right", "left"] = "right",
        zero_pads: bool = False,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        if width % heads:
            raise RequestError(
                f"task.width={width} is not a multiple of task.heads={heads}"
            )
        if qk_norm == "layer" and width == heads:
            raise RequestError(
                f"task.qk_norm=layer needs heads of at least 2 values, but "
                f"task.heads={heads} and task.width={width} give 1, which minus its "
                "mean is 0; use fewer heads, or task.qk_norm=none"
            )
        if long_batches and padding == "max_length":
            raise RequestError(
                f"task.long_batches={long_batches} does not apply to "
                "task.padding=max_length, which pads every batch to max_length; "
                "set task.padding=longest"
            )
        self.tokens = data.tokens[:, :max_length].to(device)
        self.lengths = data.lengths.clamp(max=max_length)
        self.labels = data.labels.to(device)
        self.splits, self.notes = data.splits, data.notes
        self.data_facts = data.facts
        self.classes, self.vocab_size = len(data.classes), data.vocab_size
        self.pad = data.pad
        self.padding_side, self.max_length = padding_side, max_length
        self.fixed_spatial = padding == "max_length"
        self.long_batches = long_batches
        self.is_train_sample = torch.zeros(len(self.lengths), dtype=torch.bool)
        self.is_train_sample[self.splits["train"]] = True
        if batching == "length":
            self.batch_by = self.lengths
        train_lengths = self.lengths[self.splits["train"]]
        self.shape = Shape(
            width=width,
            depth=depth,
            heads=heads,
            norm_position=norm_position,
            qk_norm=qk_norm,
            qk_scale=cosine_scale(train_lengths) if qk_norm == "l2" else 1.0,
            zero_pads=zero_pads,
            dropout=dropout,
        )

    def build(self, norm: NormFactory) -> nn.Module:
        return Encoder(
            norm,
            self.shape,
            vocab_size=self.vocab_size,
            max_length=self.max_length,
            classes=self.classes,
        )

    def inputs(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens (B, T) int64 and mask (B, T) bool, True at real tokens."""
        return self._padded(index, self._length(index))

    def _length(self, index: Tensor) -> int:
        """Return the number of tokens to which the batch `index` is padded.

        The lengths are on the CPU, so that no step waits for the device.
        """
        if self.fixed_spatial or self._is_long(index):
            return self.max_length
        return int(self.lengths[index].max())

    def _padded(self, index: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Return tokens and mask of samples `index`, both (B, length)."""
        device = self.tokens.device
        tokens = self.tokens[index.to(device, non_blocking=True), :length]
        if tokens.shape[1] < length:
            tokens = F.pad(tokens, (0, length - tokens.shape[1]), value=self.pad)
        positions = torch.arange(length, device=device)
        real_counts = self.lengths[index].to(device, non_blocking=True)[:, None]
        if self.padding_side == "right":
            return tokens, positions < real_counts
        pad_counts = length - real_counts
        sources = (positions - pad_counts) % length
        return tokens.gather(1, sources), positions >= pad_counts

    def facts(self, batches: Sequence[Tensor]) -> dict[str, float]:
        """Return the base facts and "pad_share", the share of padding in `batches`."""
        positions = sum(len(index) * self._length(index) for index in batches)
        real = sum(int(self.lengths[index].sum()) for index in batches)
        return super().facts(batches) | {"pad_share": 1 - real / positions}

    def _is_long(self, index: Tensor) -> bool:
        """Return whether `long_batches` pads this batch to `max_length`.

        The answer does not depend on the order of the samples in the batch.
        """
        if not self.long_batches or not bool(self.is_train_sample[index].all()):
            return False
        samples = index.sort().values.numpy().tobytes()
        digest = hashlib.sha256(samples).digest()
        uniform = int.from_bytes(digest[:4], "big") / 2**32  # in [0, 1)
        return uniform < self.long_batches

    def loss(self, model: nn.Module, index: Tensor) -> Tensor:
        return self.loss_of_share(model, index, index)

    def loss_of_share(self, model: nn.Module, share: Tensor, index: Tensor) -> Tensor:
        labels = self.labels[share.to(self.labels.device, non_blocking=True)]
        # The share is padded to the length of the whole batch.
        inputs = self._padded(share, self._length(index))
        return F.cross_entropy(model(*inputs), labels)

    def score(
        self,
        model: nn.Module,
        index: Tensor,
        batch_size: int,
        *,
        few_pads: bool = False,
    ) -> Scores:
        def logits(batch: Tensor) -> Tensor:
            longest = int(self.lengths[batch].max())
            length = longest if few_pads else self._length(batch)
            output: Tensor = model(*self._padded(batch, length))
            return output

        if few_pads:  # the samples of a batch have similar lengths
            index = index[self.lengths[index].argsort(stable=True)]
        return classification_scores(logits, self.labels, index, batch_size)


def cosine_scale(lengths: Tensor) -> float:
    """Return log2(L**2 - L) (Henry et al. 2020): an initial scale of cosine attention.

    L is the 97.5th percentile of `lengths` (N,), by its nearest rank, at least 2.
    """
    rank = math.ceil(0.975 * len(lengths))
    longest = max(2, int(lengths.kthvalue(rank).values))
    return math.log2(longest**2 - longest)
