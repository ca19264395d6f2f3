"""Labelled texts that the `datasets` library reads, from the Hub or from a folder.

The extra `text` of this package installs the library. A data set in the cache of the
library needs no internet connection. The environment variables HF_HOME and
HF_HUB_OFFLINE of the library control the cache and the use of the Hub. The library runs
no code of a data set.
"""

import hashlib
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import PositiveInt

from normbench.data.base import Fraction
from normbench.data.reading import files
from normbench.data.reading.texts import LabelledTexts, Texts, VocabSize
from normbench.errors import RequestError


class Source(NamedTuple):
    """The data set, splits and columns that are read."""

    dataset: str
    subset: str | None
    revision: str | None
    splits: tuple[str, ...]
    text_column: str
    label_column: str


class HuggingFace(LabelledTexts, name="hf"):
    """A data set of the Hugging Face Hub, or a folder that `save_to_disk` wrote.

    The seed draws the validation part from `train_split`, and the test part too if
    `test_split` is None.
    """

    path_options = frozenset({"dataset"})
    not_hashed = frozenset({"subset", "revision"})

    def __init__(
        self,
        *,
        dataset: str | None = None,
        subset: str | None = None,
        revision: str | None = None,
        train_split: str = "train",
        test_split: str | None = "test",
        text_column: str = "text",
        label_column: str = "label",
        vocab_size: VocabSize = 8000,
        max_length: PositiveInt = 512,
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.2,
        fingerprint: str | None = None,
    ) -> None:
        super().__init__(
            vocab_size, max_length, val_fraction, test_fraction, fingerprint
        )
        if not dataset:
            raise RequestError(
                "data.dataset is not set; give the name of a data set on the Hub, such "
                "as data.dataset=imdb, or a folder"
            )
        if train_split == test_split:
            raise RequestError(
                f"data.train_split and data.test_split are both {test_split}, so the "
                "network would be trained on the test part; data.test_split=null draws "
                "a test part from data.train_split"
            )
        splits = (train_split,) if test_split is None else (train_split, test_split)
        self.source = Source(
            dataset, subset, revision, splits, text_column, label_column
        )

    def hash_files(self) -> str:
        hash = hashlib.sha256()
        for part in self.read():
            for text, label in zip(part.texts, part.labels, strict=True):
                hash.update(f"{len(text)} {text}\0{label}\n".encode())
            hash.update(b"\n")
        return hash.hexdigest()[:32]

    def read(self) -> tuple[Texts, ...]:
        return _read(self.source)


@lru_cache(maxsize=2)
def _read(source: Source) -> tuple[Texts, ...]:
    """Return the texts and labels of each split, with class names for numbers."""
    parts = _load(source)
    return tuple(_columns(_split(parts, s, source), s, source) for s in source.splits)


def _load(source: Source) -> Any:
    try:
        import datasets
    except ImportError:
        raise RequestError(
            "data=hf needs the package datasets, which is not installed; run "
            "pip install 'normbench[text]'"
        ) from None
    folder = files.expanded(source.dataset)
    try:
        if folder.is_dir():
            return datasets.load_from_disk(str(folder))
        return datasets.load_dataset(
            source.dataset, source.subset, revision=source.revision
        )
    except Exception as error:  # many types: from datasets, its Hub client, the network
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RequestError(
            f"data.dataset={source.dataset} is neither a folder that `save_to_disk` "
            f"wrote, nor in the cache, nor on the Hub: {reason[:300]}"
        ) from None


def _split(parts: Any, split: str, source: Source) -> Any:
    if not isinstance(parts, dict) or split not in parts:
        existing = ", ".join(parts) if isinstance(parts, dict) else "no splits"
        key = "train_split" if split == source.splits[0] else "test_split"
        raise RequestError(
            f"data.{key}={split} is not a split of data.dataset={source.dataset}, "
            f"which has {existing}"
        )
    return parts[split]


def _columns(table: Any, split: str, source: Source) -> Texts:
    origin = f"data.dataset={source.dataset}, split {split}"
    for key in ("text_column", "label_column"):
        column = getattr(source, key)
        if column not in table.column_names:
            raise RequestError(
                f"data.{key}={column} is not a column of {origin}, which has "
                f"{', '.join(table.column_names)}"
            )
    texts, labels = list(table[source.text_column]), list(table[source.label_column])
    # The names of the classes, or None if the column has no ClassLabel feature.
    names = getattr(table.features[source.label_column], "names", None)
    for row, (text, label) in enumerate(zip(texts, labels, strict=True)):
        if not isinstance(text, str) or not text.strip():
            raise RequestError(f"{origin}: row {row} has {text!r} instead of a text")
        if label is None or (names and not 0 <= label < len(names)):
            raise RequestError(f"{origin}: row {row} has {label!r} instead of a label")
    label_names = [names[label] if names else str(label) for label in labels]
    return Texts(texts, label_names, range(len(texts)), origin)
