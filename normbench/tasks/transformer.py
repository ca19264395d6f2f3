"""Classification of padded token sequences with a Transformer encoder.

Vaswani et al. 2017, "Attention Is All You Need" (post-norm); Xiong et al. 2020, "On
Layer Normalization in the Transformer Architecture" (pre-norm).
"""

import hashlib
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.data.base import Tokens
from normbench.errors import RequestError
from normbench.tasks.base import NormFactory, Task, classification_metrics


class Transformer(Task, name="transformer"):
    """Sequence classification with the cross-entropy loss.

    Attention and pooling ignore padding tokens. The norm ignores them only if it uses
    the mask. A batch means a micro-batch: the samples that one forward pass sees.

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
        norm_position: Literal["pre", "post"] = "post",
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
        self.width, self.depth, self.heads = width, depth, heads
        self.norm_position, self.zero_pads = norm_position, zero_pads
        self.padding_side = padding_side
        self.max_length, self.dropout = max_length, dropout
        self.fixed_spatial = padding == "max_length"
        self.long_batches = long_batches
        self.is_train_sample = torch.zeros(len(self.lengths), dtype=torch.bool)
        self.is_train_sample[self.splits["train"]] = True
        if batching == "length":
            self.batch_by = self.lengths

    def build(self, norm: NormFactory) -> nn.Module:
        return Encoder(
            norm,
            vocab_size=self.vocab_size,
            max_length=self.max_length,
            classes=self.classes,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            pre_norm=self.norm_position == "pre",
            zero_pads=self.zero_pads,
            dropout=self.dropout,
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

    def evaluate(
        self,
        model: nn.Module,
        index: Tensor,
        batch_size: int,
        *,
        few_pads: bool = False,
    ) -> dict[str, float]:
        def logits(batch: Tensor) -> Tensor:
            longest = int(self.lengths[batch].max())
            length = longest if few_pads else self._length(batch)
            output: Tensor = model(*self._padded(batch, length))
            return output

        if few_pads:  # the samples of a batch have similar lengths
            index = index[self.lengths[index].argsort(stable=True)]
        return classification_metrics(logits, self.labels, index, batch_size)


class Encoder(nn.Module):
    """Embedding, `depth` layers, mean over the real tokens, a linear classifier.

    (N, T) int64 tokens and (N, T) bool mask -> (N, classes). Position 0 is the first
    real token, so that padding on the left gives the same result as on the right.
    """

    def __init__(
        self,
        norm: NormFactory,
        *,
        vocab_size: int,
        max_length: int,
        classes: int,
        width: int,
        depth: int,
        heads: int,
        pre_norm: bool,
        zero_pads: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(vocab_size, width)
        self.position = nn.Embedding(max_length, width)
        nn.init.normal_(self.token.weight, std=0.02)
        nn.init.normal_(self.position.weight, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(norm, width, heads, pre_norm, zero_pads, dropout)
            for _ in range(depth)
        )
        # The last layer of a pre-norm network has an output that no norm has seen.
        self.norm = TokenNorm(norm, width, zero_pads) if pre_norm else None
        self.head = nn.Linear(width, classes)
        self.output_layers = [self.head]

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        h = self.dropout(self.token(tokens) + self.position(positions))
        for layer in self.layers:
            h = layer(h, mask)
        if self.norm is not None:
            h = self.norm(h, mask)
        weights = mask.to(h.dtype)[:, :, None]
        pooled = (h * weights).sum(1) / weights.sum(1)
        logits: Tensor = self.head(pooled)
        return logits


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, both with a residual connection."""

    def __init__(
        self,
        norm: NormFactory,
        width: int,
        heads: int,
        pre_norm: bool,
        zero_pads: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.heads, self.pre_norm = heads, pre_norm
        self.norm1 = TokenNorm(norm, width, zero_pads)
        self.attention_in = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.norm2 = TokenNorm(norm, width, zero_pads)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        if self.pre_norm:
            h = h + self.dropout(self.attend(self.norm1(h, mask), mask))
            h = h + self.dropout(self.feed_forward(self.norm2(h, mask)))
        else:
            h = self.norm1(h + self.dropout(self.attend(h, mask)), mask)
            h = self.norm2(h + self.dropout(self.feed_forward(h)), mask)
        return h

    def attend(self, h: Tensor, mask: Tensor) -> Tensor:
        n, length, width = h.shape
        q, k, v = (
            self.attention_in(h)
            .view(n, length, 3, self.heads, width // self.heads)
            .permute(2, 0, 3, 1, 4)
        )
        attended = F.scaled_dot_product_attention(q, k, v, mask[:, None, None, :])
        out: Tensor = self.attention_out(attended.transpose(1, 2).flatten(2))
        return out


class TokenNorm(nn.Module):
    """Applies a norm, which takes (N, C, T), to hidden states (N, T, C).

    `zero_pads` first sets the hidden states at padding tokens to zero, as many
    published implementations do.
    """

    def __init__(self, norm: NormFactory, width: int, zero_pads: bool) -> None:
        super().__init__()
        self.norm = norm(width)
        self.zero_pads = zero_pads

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        if self.zero_pads:
            h = h * mask[:, :, None]
        out: Tensor = self.norm(h.transpose(1, 2), mask)
        return out.transpose(1, 2)
