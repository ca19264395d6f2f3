"""Texts with labels -> tokens, by a tokeniser that is trained on the training part."""

import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
from pydantic import Field

from normbench.data.base import Splits, Tokens, package_version
from normbench.data.notes import Notes, class_notes
from normbench.data.reading.cache import Parsed, cached
from normbench.data.reading.files import shortened
from normbench.data.splits import grouped_split
from normbench.errors import RequestError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FORMAT = 2
PAD, UNKNOWN = "<pad>", "<unk>"
UNKNOWN_ID = 1

VocabSize = Annotated[int, Field(ge=1, le=1_000_000)]
"""The type of the option: for more, the tokeniser may ask for memory that is not there.
"""

LONGEST_TEXT = 1_000_000
"""Characters of a text that are used."""
LONGEST_WORD = 10_000
"""Characters of a word, between spaces and punctuation, that byte pairs are learned
from: the time that this takes grows with the square of a word's length."""
BETWEEN_WHITE = re.compile(
    r"[^\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+"
)
"""What is between white space, as the tokeniser has it: Unicode's, unlike Python's."""


class Texts(NamedTuple):
    """Samples: a text and a label of each, and for messages its row in `where`."""

    texts: list[str]
    labels: list[str]
    rows: Sequence[int]
    where: str
    notes: Notes = Notes()


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
    the seed draws the others. Classes are the labels of the training part, sorted:
    it has each label of the first part. Of a text longer than LONGEST_TEXT characters,
    the beginning is used. `fingerprint` identifies texts and labels: what is tokenised
    is kept in the cache. Raises RequestError for a label that the training part lacks,
    and where `vocab_size` is below the number of characters.
    """
    texts = [text[:LONGEST_TEXT] for part in parts for text in part.texts]
    labels = [label for part in parts for label in part.labels]
    training = len(parts[0].texts)
    splits = grouped_split(
        labels,
        len(texts) - training if len(parts) == 2 else None,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        generator=torch.Generator().manual_seed(seed),
    )
    classes = sorted({labels[i] for i in splits["train"].tolist()})
    unseen = set(labels) - set(classes)
    if unseen:
        raise RequestError(
            "labels of the test part that are in no training sample: "
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
        rows = [encoded(tokenizer, text, max_length) for text in texts]
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
        facts={"classes": float(len(classes)), "cut_texts": float(_too_long(parts))},
        notes=_notes(parts, splits, texts),
    )


def _too_long(parts: Sequence[Texts]) -> int:
    return sum(len(text) > LONGEST_TEXT for part in parts for text in part.texts)


def _notes(parts: Sequence[Texts], splits: Splits, texts: Sequence[str]) -> Notes:
    """The classes of each part, what is cut, and what is both trained and tested on."""
    notes = Notes()
    for part in parts:
        notes = notes.plus(part.notes).plus(class_notes(part.labels, part.where))
        rows = [
            f"row {row} ({len(text)} characters)"
            for row, text in zip(part.rows, part.texts, strict=True)
            if len(text) > LONGEST_TEXT
        ]
        if rows:
            cut = f"{part.where}: of texts with more than {LONGEST_TEXT} characters "
            told = f"{cut}only the beginning is used: {shortened(rows, 3)}"
            notes = notes.plus(Notes((), (told,)))
    trained = {texts[i] for i in splits["train"].tolist()}
    again = sum(texts[i] in trained for i in splits["test"].tolist())
    if again:
        told = f"{again} of {len(splits['test'])} test samples have the text of a "
        notes = notes.plus(Notes((told + "training sample",)))
    return notes


def padded(ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Rows of `lengths` (N,), one after the other in `ids` -> (N, longest), pads 0."""
    width = int(lengths.max())
    tokens = torch.zeros(len(lengths), width, dtype=torch.int64)
    tokens[torch.arange(width) < lengths[:, None]] = ids.long()
    return tokens


def encoded(tokenizer: "Tokenizer", text: str, most: int) -> list[int]:
    """The first `most` tokens of `text`; the unknown one where it has none.

    What is between white space has one token or more, so that what comes after `most`
    such pieces need not be looked at.
    """
    last = next(islice(BETWEEN_WHITE.finditer(text), most - 1, None), None)
    beginning = text if last is None else text[: last.end()]
    ids: list[int] = tokenizer.encode(beginning).ids[:most]
    return ids or [UNKNOWN_ID]


def trained_tokenizer(texts: Sequence[str], vocab_size: int) -> "Tokenizer":
    """Byte pairs learned from `texts`: 0 is the pad, 1 a character that they lack.

    Of a word with more than LONGEST_WORD characters, the beginning counts. Raises
    RequestError if `vocab_size` is below the number of characters.
    """
    # A run has one core, and many runs go side by side.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    alone = pre_tokenizers.Whitespace()  # the other is locked while it is in training
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[PAD, UNKNOWN], show_progress=False
    )

    def pieces() -> Iterator[str]:
        for text in texts:
            if len(text) <= LONGEST_WORD:
                yield text
            else:  # word by word, which is the same, but for the longest
                for word, _ in alone.pre_tokenize_str(text):
                    yield word[:LONGEST_WORD]

    tokenizer.train_from_iterator(pieces(), trainer)
    if tokenizer.get_vocab_size() > vocab_size:
        raise RequestError(
            f"data.vocab_size={vocab_size} is too small: {PAD}, {UNKNOWN} and "
            f"the characters alone are {tokenizer.get_vocab_size()} tokens"
        )
    return tokenizer
