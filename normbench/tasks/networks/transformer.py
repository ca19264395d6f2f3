"""A Transformer encoder: the places of its norms, and the norms of queries and keys.

A layer has two sublayers f: self-attention and a feed-forward network. `norm_position`
places the norms N of a sublayer, whose input is h:

    post       N(h + f(h))       Vaswani et al. 2017, "Attention Is All You Need"
    pre        h + f(N(h))       Xiong et al. 2020, "On Layer Normalization in the
                                 Transformer Architecture"
    peri       h + N2(f(N1(h)))  Kim et al. 2025, "Peri-LN"; Gemma 2 (Gemma Team 2024)
    res_post   h + N(f(h))       Liu et al. 2022, "Swin Transformer V2", who call it
                                 res-post-norm; OLMo 2 (OLMo Team 2025)

With pre, peri and res_post, a norm also follows the last layer, as in these papers. A
norm of the embeddings, which Peri-LN may have, is left out, as in Gemma 2. Dropout
applies to the term that is added to h.

`qk_norm` normalizes the query q and the key k of every token and head, both of size D:

    none       logit = q.k / sqrt(D)              Vaswani et al. 2017
    layer      logit = LN(q).LN(k) / sqrt(D)      Dehghani et al. 2023, "Scaling Vision
                                                  Transformers to 22 Billion Parameters"
    rms        logit = RMS(q).RMS(k) / sqrt(D)    Gemma 3 (Gemma Team 2025)
    l2         logit = g * q.k / (|q| |k|)        Henry et al. 2020, "Query-Key
                                                  Normalization for Transformers"

LN(x) = w * (x - mean(x)) / sqrt(var(x) + eps) and RMS(x) = w * x / sqrt(mean(x**2) +
eps), over the D values of a head. There are no biases, and eps is 1e-5. A layer has one
gain w (D,) for queries and one for keys, which its heads share. In l2, a layer has one
learned number g.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.tasks.base import NormFactory

NormPosition = Literal["post", "pre", "peri", "res_post"]
QKNormKind = Literal["none", "layer", "rms", "l2"]

QK_EPS = 1e-5


class Shape(NamedTuple):
    """Options of an encoder. The docstring of the task `Transformer` explains them.

    `qk_scale` is the initial value of g in `qk_norm="l2"`.
    """

    width: int = 64
    depth: int = 2
    heads: int = 4
    norm_position: NormPosition = "post"
    qk_norm: QKNormKind = "none"
    qk_scale: float = 1.0
    zero_pads: bool = False
    dropout: float = 0.0


class Encoder(nn.Module):
    """Embedding, `depth` layers, mean over the real tokens, a linear classifier.

    (N, T) int64 tokens and (N, T) bool mask -> (N, classes). Position 0 is the first
    real token, so that padding on the left gives the same result as on the right.
    """

    def __init__(
        self,
        norm: NormFactory,
        shape: Shape,
        *,
        vocab_size: int,
        max_length: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(vocab_size, shape.width)
        self.position = nn.Embedding(max_length, shape.width)
        nn.init.normal_(self.token.weight, std=0.02)
        nn.init.normal_(self.position.weight, std=0.02)
        self.dropout = nn.Dropout(shape.dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(norm, shape) for _ in range(shape.depth)
        )
        # Without post-norm, no norm has seen the sum that the last layer returns.
        self.norm = TokenNorm(norm, shape) if shape.norm_position != "post" else None
        self.head = nn.Linear(shape.width, classes)
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

    def __init__(self, norm: NormFactory, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        peri = shape.norm_position == "peri"
        self.heads, self.norm_position = shape.heads, shape.norm_position
        self.norm1 = TokenNorm(norm, shape)
        self.norm1_after = TokenNorm(norm, shape) if peri else None
        self.attention_in = nn.Linear(width, 3 * width)
        self.qk_norm = (
            QKNorm(shape.qk_norm, width // shape.heads, shape.qk_scale)
            if shape.qk_norm != "none"
            else None
        )
        self.attention_out = nn.Linear(width, width)
        self.norm2 = TokenNorm(norm, shape)
        self.norm2_after = TokenNorm(norm, shape) if peri else None
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        def attend(x: Tensor) -> Tensor:
            return self.attend(x, mask)

        h = self.add(h, mask, attend, self.norm1, self.norm1_after)
        return self.add(h, mask, self.feed_forward, self.norm2, self.norm2_after)

    def add(
        self,
        h: Tensor,
        mask: Tensor,
        sublayer: Callable[[Tensor], Tensor],
        norm: Callable[[Tensor, Tensor], Tensor],
        norm_after: Callable[[Tensor, Tensor], Tensor] | None,
    ) -> Tensor:
        """Add the output of `sublayer` to `h`. `norm_after` is None except in peri."""
        if self.norm_position == "post":
            return norm(h + self.dropout(sublayer(h)), mask)
        if self.norm_position == "res_post":
            branch = norm(sublayer(h), mask)
        else:
            branch = sublayer(norm(h, mask))
        if norm_after is not None:
            branch = norm_after(branch, mask)
        total: Tensor = h + self.dropout(branch)
        return total

    def attend(self, h: Tensor, mask: Tensor) -> Tensor:
        n, length, width = h.shape
        q, k, v = (
            self.attention_in(h)
            .view(n, length, 3, self.heads, width // self.heads)
            .permute(2, 0, 3, 1, 4)
        )
        if self.qk_norm is not None:
            q, k = self.qk_norm(q, k)
        attended = F.scaled_dot_product_attention(q, k, v, mask[:, None, None, :])
        out: Tensor = self.attention_out(attended.transpose(1, 2).flatten(2))
        return out


class QKNorm(nn.Module):
    """Normalizes queries and keys (N, heads, T, size) over `size`, by "layer" to "l2".

    The norm is computed in float32 at least; the results have the dtype of the inputs.
    The attention that follows divides the products by sqrt(size).
    """

    def __init__(self, kind: QKNormKind, size: int, scale: float) -> None:
        super().__init__()
        self.kind, self.size = kind, size
        if kind == "l2":
            self.scale = nn.Parameter(torch.tensor(scale))
        else:
            self.query_gain = nn.Parameter(torch.ones(size))
            self.key_gain = nn.Parameter(torch.ones(size))

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        given = q.dtype
        wide = torch.promote_types(given, torch.float32)
        q, k = self.normalized(q.to(wide)), self.normalized(k.to(wide))
        if self.kind == "l2":
            q = q * (self.scale * self.size**0.5)  # undoes the division by sqrt(size)
        else:
            q, k = q * self.query_gain, k * self.key_gain
        return q.to(given), k.to(given)

    def normalized(self, x: Tensor) -> Tensor:
        if self.kind == "layer":
            return F.layer_norm(x, (self.size,), eps=QK_EPS)
        if self.kind == "rms":
            return F.rms_norm(x, (self.size,), eps=QK_EPS)
        return F.normalize(x, dim=-1)


class TokenNorm(nn.Module):
    """Applies a norm, which takes (N, C, T), to hidden states (N, T, C).

    `zero_pads` first sets the hidden states at padding tokens to zero, as many
    published implementations do.
    """

    def __init__(self, norm: NormFactory, shape: Shape) -> None:
        super().__init__()
        self.norm = norm(shape.width)
        self.zero_pads = shape.zero_pads

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        if self.zero_pads:
            h = h * mask[:, :, None]
        out: Tensor = self.norm(h.transpose(1, 2), mask)
        return out.transpose(1, 2)
