"""Labelled texts by the `datasets` library: from the Hugging Face Hub, or a folder.

The library is the extra `text`. What it keeps in its cache is used without a network,
as its own variables say (HF_HOME, HF_HUB_OFFLINE); it runs no code of a data set.
"""

import hashlib
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import PositiveInt

from normbench.data.base import Data, Fraction, Tokens
from normbench.data.reading import files
from normbench.data.reading.texts import Texts, VocabSize, tokenised
from normbench.errors import RequestError


class Place(NamedTuple):
    """What is read: of which data set, which splits and columns."""

    dataset: str
    subset: str | None
    revision: str | None
    splits: tuple[str, ...]
    text_column: str
    label_column: str


class HuggingFace(Data, name="hf"):
    """Which label has this text? A data set of the Hub, such as imdb, by its name.

    Or of a folder, as `save_to_disk` writes it. The seed draws the validation part from
    `train_split`, and the test part too where `test_split` is none. Tokens are byte
    pairs learned from the training part.
    """

    kind = Tokens
    packages = ("tokenizers",)
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
        if not dataset:
            raise RequestError(
                "data.dataset is not set; name a data set of the Hub, such as "
                "data.dataset=imdb, or a folder"
            )
        if train_split == test_split:
            raise RequestError(
                f"data.train_split and data.test_split are both {test_split}: the test "
                "part would be trained on; data.test_split=null draws one"
            )
        splits = (train_split,) if test_split is None else (train_split, test_split)
        columns = (text_column, label_column)
        self.place = Place(dataset, subset, revision, splits, *columns)
        self.vocab_size, self.max_length = vocab_size, max_length
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.fingerprint = fingerprint

    def hash_files(self) -> str:
        hash = hashlib.sha256()
        for part in _read(self.place):
            for text, label in zip(part.texts, part.labels, strict=True):
                hash.update(f"{len(text)} {text}\0{label}\n".encode())
            hash.update(b"\n")
        return hash.hexdigest()[:32]

    def load(self, seed: int) -> Tokens:
        """All texts; RequestError where they are neither here nor to be had."""
        found = self.hash_files()
        files.require(self.fingerprint, found)
        return tokenised(
            _read(self.place),
            vocab_size=self.vocab_size,
            max_length=self.max_length,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            seed=seed,
            fingerprint=found,
        )


@lru_cache(maxsize=2)
def _read(place: Place) -> tuple[Texts, ...]:
    """Texts and labels of each split; labels by their names, where they have some."""
    parts = _load(place)
    return tuple(
        _columns(_split(parts, split, place), split, place) for split in place.splits
    )


def _load(place: Place) -> Any:
    try:
        import datasets
    except ImportError:
        raise RequestError(
            "data=hf needs the package datasets, which is not installed; "
            "pip install 'normbench[text]'"
        ) from None
    folder = files.expanded(place.dataset)
    try:
        if folder.is_dir():
            return datasets.load_from_disk(str(folder))
        return datasets.load_dataset(
            place.dataset, place.subset, revision=place.revision
        )
    except Exception as error:  # of datasets, its Hub client and the network
        told = " ".join(str(error).split()) or type(error).__name__
        raise RequestError(
            f"data.dataset={place.dataset} is neither a folder of `save_to_disk`, nor "
            f"in the cache, nor to be had from the Hub: {told[:300]}"
        ) from None


def _split(parts: Any, split: str, place: Place) -> Any:
    if not isinstance(parts, dict) or split not in parts:
        known = ", ".join(parts) if isinstance(parts, dict) else "a table without any"
        key = "train_split" if split == place.splits[0] else "test_split"
        raise RequestError(
            f"data.{key}={split} is not a split of data.dataset={place.dataset}, which "
            f"has {known}"
        )
    return parts[split]


def _columns(table: Any, split: str, place: Place) -> Texts:
    where = f"data.dataset={place.dataset}, split {split}"
    for key in ("text_column", "label_column"):
        column = getattr(place, key)
        if column not in table.column_names:
            raise RequestError(
                f"data.{key}={column} is not a column of {where}, which has "
                f"{', '.join(table.column_names)}"
            )
    texts, labels = list(table[place.text_column]), list(table[place.label_column])
    names = getattr(table.features[place.label_column], "names", None)
    for row, (text, label) in enumerate(zip(texts, labels, strict=True)):
        if not isinstance(text, str) or not text.strip():
            raise RequestError(f"{where}: row {row} has no text but {text!r}")
        if label is None or (names and not 0 <= label < len(names)):
            raise RequestError(f"{where}: row {row} has no label but {label!r}")
    named = [names[label] if names else str(label) for label in labels]
    return Texts(texts, named, range(len(texts)), where)
