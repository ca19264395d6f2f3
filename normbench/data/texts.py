"""Texts with labels -> tokens, by a tokeniser that is trained on the training part."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
from pydantic import Field

from normbench.data.base import Tokens, given_split, package_version
from normbench.data.cache import Parsed, cached
from normbench.data.files import shortened
from normbench.errors import RequestError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FORMAT = 1
PAD, UNKNOWN = "<pad>", "<unk>"
UNKNOWN_ID = 1

VocabSize = Annotated[int, Field(ge=1, le=1_000_000)]
"""The type of the option: for more, the tokeniser may ask for memory that is not there.
"""


class Texts(NamedTuple):
    """Samples: a text and a label of each."""

    texts: list[str]
    labels: list[str]


def tokenised(
    parts: Sequence[Texts],
    *,
    vocab_size: int,
    max_length: int,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    fingerprint: str,
) -> Tokens:
    """Texts, of which the first `max_length` tokens are kept, as wide as the longest.

    `parts` are the training samples and, where they are given, those of the test part;
    the seed draws the others. Classes are the labels of the training part, sorted.
    `fingerprint` identifies texts and labels: what is tokenised is kept in the cache.
    Raises RequestError for a label that the training part lacks, and where `vocab_size`
    is below the number of characters.
    """
    texts = [text for part in parts for text in part.texts]
    labels = [label for part in parts for label in part.labels]
    training = len(parts[0].texts)
    splits = given_split(
        training,
        len(texts) - training if len(parts) == 2 else None,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        generator=torch.Generator().manual_seed(seed),
    )
    classes = sorted({labels[i] for i in splits["train"].tolist()})
    for part in ("val", "test"):
        unseen = {labels[i] for i in splits[part].tolist()} - set(classes)
        if unseen:
            raise RequestError(
                f"labels of the {part} part that are in no training sample: "
                f"{shortened(repr(label) for label in sorted(unseen))}; add training "
                "samples of them, or remove theirs"
            )
    if len(classes) < 2:
        raise RequestError(
            f"every training sample has the label {classes[0]!r}; there must be two"
        )

    def parse() -> Parsed:
        seen = [texts[i] for i in splits["train"].sort().values.tolist()]
        tokenizer = trained_tokenizer(seen, vocab_size)
        unknown = [UNKNOWN_ID]
        encoded = tokenizer.encode_batch(texts)
        rows = [encoding.ids[:max_length] or unknown for encoding in encoded]
        return Parsed(
            {
                "ids": torch.tensor([i for row in rows for i in row]).int(),
                "lengths": torch.tensor([len(row) for row in rows]).int(),
            }
        )

    identity = {
        "format": FORMAT,
        "tokenizers": package_version("tokenizers"),
        "fingerprint": fingerprint,
        "fractions": [val_fraction, test_fraction],
        "seed": seed,
        "vocab_size": vocab_size,
        "max_length": max_length,
        "training": len(splits["train"]),
    }
    parsed = cached("texts", identity, parse).tensors
    number = {label: i for i, label in enumerate(classes)}
    lengths = parsed["lengths"].long()
    return Tokens(
        tokens=padded(parsed["ids"], lengths),
        lengths=lengths,
        labels=torch.tensor([number[label] for label in labels]),
        classes=tuple(classes),
        vocab_size=vocab_size,
        pad=0,
        splits=splits,
    )


def padded(ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Rows of `lengths` (N,), one after the other in `ids` -> (N, longest), pads 0."""
    width = int(lengths.max())
    tokens = torch.zeros(len(lengths), width, dtype=torch.int64)
    tokens[torch.arange(width) < lengths[:, None]] = ids.long()
    return tokens


def trained_tokenizer(texts: Sequence[str], vocab_size: int) -> "Tokenizer":
    """Byte pairs learned from `texts`: 0 is the pad, 1 a character that they lack.

    Raises RequestError if `vocab_size` is below the number of characters.
    """
    # A run has one core, and many runs go side by side.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[PAD, UNKNOWN], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() > vocab_size:
        raise RequestError(
            f"data.vocab_size={vocab_size} is too small: {PAD}, {UNKNOWN} and "
            f"the characters alone are {tokenizer.get_vocab_size()} tokens"
        )
    return tokenizer
