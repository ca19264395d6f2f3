"""Labelled texts as token ids. The tokeniser learns from the training part only."""

import os
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import islice
from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from normbench.data.base import Data, Splits, Tokens
from normbench.data.notes import Notes, class_notes
from normbench.data.reading import files
from normbench.data.reading.cache import Parsed, cached
from normbench.data.splits import grouped_split
from normbench.errors import RequestError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FORMAT = 2
PAD, UNKNOWN = "<pad>", "<unk>"
UNKNOWN_ID = 1

VocabSize = Annotated[int, Field(ge=1, le=1_000_000)]
"""Type of the option. With a larger value the tokeniser could run out of memory."""

MAX_TEXT_LENGTH = 1_000_000
"""Characters of a text that are used."""
MAX_WORD_LENGTH = 10_000
"""Byte pairs are learned only from this many first characters of a word, because the
time grows with the square of the length. Spaces and punctuation separate words."""
NON_WHITESPACE = re.compile(
    r"[^\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+"
)
"""Text without white space as the tokeniser defines it: Unicode's, unlike Python's."""


class Texts(NamedTuple):
    """Samples: for each a text, a label, and its row in `source` for messages."""

    texts: list[str]
    labels: list[str]
    rows: Sequence[int]
    source: str
    notes: Notes = Notes()

    def long_rows(self) -> list[str]:
        """Describe the samples of which only the beginning is used."""
        return [
            f"row {row} ({len(text)} characters)"
            for row, text in zip(self.rows, self.texts, strict=True)
            if len(text) > MAX_TEXT_LENGTH
        ]


class LabelledTexts(Data, name=None):
    """Base class of data sets that read texts and labels: splits and tokenises them.

    The split puts every label of the training samples that `read` returns into the
    training part. The classes are the labels of this part, sorted. Tokens are byte
    pairs learned from this part. Each text is cut to `max_length` tokens, and `tokens`
    is as wide as the longest text.
    """

    kind = Tokens
    packages = ("tokenizers",)

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        val_fraction: float,
        test_fraction: float,
        fingerprint: str | None,
    ) -> None:
        self.vocab_size, self.max_length = vocab_size, max_length
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.fingerprint = fingerprint

    @abstractmethod
    def read(self) -> Sequence[Texts]:
        """Return the training samples, and the test samples if the user names some.

        Raises RequestError if a sample has no text or no label.
        """

    def read_options(self) -> Sequence[str | int | None]:
        """Return the options that change what `read` makes of the same files."""
        return ()

    def load(self, seed: int) -> Tokens:
        """Return all texts as tokens.

        Raises RequestError if the texts cannot be read, if a label occurs only in the
        test part, or if `vocab_size` is smaller than the number of characters.
        """
        fingerprint = self.hash_files()
        files.require_unchanged(self.fingerprint, fingerprint)
        parts = self.read()
        texts = [text[:MAX_TEXT_LENGTH] for part in parts for text in part.texts]
        labels = [label for part in parts for label in part.labels]
        splits = grouped_split(
            labels,
            len(parts[1].texts) if len(parts) == 2 else None,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            generator=torch.Generator().manual_seed(seed),
        )
        classes = _classes(labels, splits)
        training = splits["train"].sort().values.tolist()

        def parse() -> Parsed:
            tokenizer = trained_tokenizer([texts[i] for i in training], self.vocab_size)
            return packed([encoded(tokenizer, text, self.max_length) for text in texts])

        identity = {
            "format": FORMAT,
            "tokenizers": version("tokenizers"),
            "fingerprint": fingerprint,
            "read": self.read_options(),
            "fractions": [self.val_fraction, self.test_fraction],
            "seed": seed,
            "vocab_size": self.vocab_size,
            "max_length": self.max_length,
            "training": len(training),
        }
        tokens, lengths = padded(cached("texts", identity, parse))
        class_index = {label: i for i, label in enumerate(classes)}
        cut_texts = sum(len(part.long_rows()) for part in parts)
        return Tokens(
            tokens=tokens,
            lengths=lengths,
            labels=torch.tensor([class_index[label] for label in labels]),
            classes=tuple(classes),
            vocab_size=self.vocab_size,
            pad=0,
            splits=splits,
            facts={"classes": float(len(classes)), "cut_texts": float(cut_texts)},
            notes=_notes(parts, splits, texts),
        )


def _classes(labels: Sequence[str], splits: Splits) -> list[str]:
    """Return the labels of the training part, sorted.

    Raises RequestError if another part has other labels, or if there is only one label.
    """
    classes = sorted({labels[i] for i in splits["train"].tolist()})
    unseen = sorted(set(labels) - set(classes))
    if unseen:
        raise RequestError(
            "some labels of the test part are in no training sample: "
            f"{files.shortened(map(repr, unseen))}; add training samples with these "
            "labels, or remove the test samples"
        )
    if len(classes) < 2:
        raise RequestError(
            f"every training sample has the label {classes[0]!r}; at least two labels "
            "are needed"
        )
    return classes


def _notes(parts: Sequence[Texts], splits: Splits, texts: Sequence[str]) -> Notes:
    """Describe the classes of each part; warn about long texts and leaked texts."""
    notes = Notes()
    for part in parts:
        notes = notes.plus(part.notes).plus(class_notes(part.labels, part.source))
        rows = part.long_rows()
        if rows:
            warning = (
                f"{part.source}: of texts with more than {MAX_TEXT_LENGTH} characters "
                f"only the beginning is used: {files.shortened(rows, 3)}"
            )
            notes = notes.plus(Notes(warnings=(warning,)))
    training_texts = {texts[i] for i in splits["train"].tolist()}
    leaked = sum(texts[i] in training_texts for i in splits["test"].tolist())
    if leaked:
        note = (
            f"{leaked} of {len(splits['test'])} test samples have the text of a "
            "training sample"
        )
        notes = notes.plus(Notes((note,)))
    return notes


def packed(rows: Sequence[Sequence[int]]) -> Parsed:
    """Return token ids for the cache: all rows joined in "ids", and their "lengths"."""
    return Parsed(
        {
            "ids": torch.tensor([i for row in rows for i in row]).int(),
            "lengths": torch.tensor([len(row) for row in rows]).int(),
        }
    )


def padded(parsed: Parsed) -> tuple[Tensor, Tensor]:
    """Return the rows of `packed` as tokens (N, L), padded with 0, and lengths (N,).

    L is the largest length. Both tensors are int64.
    """
    lengths = parsed.tensors["lengths"].long()
    width = int(lengths.max())
    tokens = torch.zeros(len(lengths), width, dtype=torch.int64)
    tokens[torch.arange(width) < lengths[:, None]] = parsed.tensors["ids"].long()
    return tokens, lengths


def encoded(tokenizer: "Tokenizer", text: str, max_length: int) -> list[int]:
    """Return the first `max_length` tokens of `text`, or UNKNOWN_ID if it has none.

    Each piece of text between white space has at least one token. Therefore only the
    first `max_length` pieces are tokenised.
    """
    pieces = NON_WHITESPACE.finditer(text)
    last_piece = next(islice(pieces, max_length - 1, None), None)
    beginning = text if last_piece is None else text[: last_piece.end()]
    ids: list[int] = tokenizer.encode(beginning).ids[:max_length]
    return ids or [UNKNOWN_ID]


def trained_tokenizer(texts: Sequence[str], vocab_size: int) -> "Tokenizer":
    """Return a byte-pair tokeniser that is trained on `texts`.

    Token 0 is the pad, and token 1 stands for characters that `texts` lack. Only the
    first MAX_WORD_LENGTH characters of a word are used. Raises RequestError if
    `vocab_size` is smaller than the number of characters.
    """
    # A run has one core, and many runs run at the same time.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    # A second object, because the tokenizer's own is locked during training.
    splitter = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[PAD, UNKNOWN], show_progress=False
    )

    def pieces() -> Iterator[str]:
        for text in texts:
            if len(text) <= MAX_WORD_LENGTH:
                yield text
            else:  # Passing single words gives the same byte pairs as the whole text.
                for word, _ in splitter.pre_tokenize_str(text):
                    yield word[:MAX_WORD_LENGTH]

    tokenizer.train_from_iterator(pieces(), trainer)
    if tokenizer.get_vocab_size() > vocab_size:
        raise RequestError(
            f"data.vocab_size={vocab_size} is too small: {PAD}, {UNKNOWN} and the "
            f"single characters need {tokenizer.get_vocab_size()} tokens"
        )
    return tokenizer
