"""Labelled texts in a CSV file of the user's."""

import codecs
import csv
from pathlib import Path

from pydantic import PositiveInt

from normbench.data import files
from normbench.data.base import Data, Fraction, Tokens
from normbench.data.texts import Texts, VocabSize, tokenised
from normbench.errors import RequestError

COLUMNS = ["text", "label"]


class TextCsv(Data, name="text_csv"):
    """Which label has this text? A CSV file of two columns, with a header.

    The header is `text,label`; fields are quoted as spreadsheets do, and those of a
    file `.tsv` are separated by tabs. Without `test_path`, the seed draws the test part
    too. Tokens are byte pairs learned from the training part.
    """

    kind = Tokens
    packages = ("tokenizers",)
    path_options = frozenset({"path", "test_path"})

    def __init__(
        self,
        *,
        path: str | None = None,
        test_path: str | None = None,
        encoding: str = "utf-8",
        vocab_size: VocabSize = 8000,
        max_length: PositiveInt = 512,
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.2,
        fingerprint: str | None = None,
    ) -> None:
        self.paths = [files.file("data.path", path)]
        if test_path is not None:
            self.paths.append(files.file("data.test_path", test_path))
            files.require_apart(*self.paths)
        self.encoding = encoding
        self.vocab_size, self.max_length = vocab_size, max_length
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.fingerprint = fingerprint

    def hash_files(self) -> str:
        return files.fingerprint(self.paths)

    def load(self, seed: int) -> Tokens:
        """All texts; RequestError, with the line, where the file is of another form."""
        files.require(self.fingerprint, self.hash_files())
        return tokenised(
            [read(path, self.encoding) for path in self.paths],
            vocab_size=self.vocab_size,
            max_length=self.max_length,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            seed=seed,
            fingerprint=f"{self.hash_files()} {self.encoding}",
        )


def read(path: Path, encoding: str) -> Texts:
    """The samples in a file. Raises RequestError, with the line that is wrong."""
    # A byte order mark, which spreadsheets write, is no part of the header.
    codec = "utf-8-sig" if encoding.lower() in {"utf-8", "utf8"} else encoding
    csv.field_size_limit(2**31 - 1)
    found = Texts([], [])
    try:
        with path.open(encoding=codec, newline="") as opened:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            reader = csv.reader(opened, delimiter=delimiter, strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            if header != COLUMNS:
                raise RequestError(
                    f"{path}: the first line must be {delimiter.join(COLUMNS)!r}, and "
                    f"names {len(header)} columns: {files.shortened(header)}"
                )
            for fields in reader:
                if fields:  # a line with nothing in it is none
                    text, label = _row(fields, f"{path}: line {reader.line_num}")
                    found.texts.append(text)
                    found.labels.append(label)
    except LookupError:
        raise RequestError(
            f"data.encoding={encoding} is unknown; utf-8, latin-1 and utf-16 are known"
        ) from None
    except UnicodeError as error:
        raise RequestError(
            f"{path} is not in data.encoding={encoding}: {error}; {_instead(encoding)}"
        ) from None
    except csv.Error as error:
        raise RequestError(
            f"{path}: line {reader.line_num}: {error}; is a quote never closed?"
        ) from None
    if not found.texts:
        raise RequestError(f"{path} has a header and no samples")
    return found


def _instead(encoding: str) -> str:
    if codecs.lookup(encoding).name in {"utf-16", "utf-32"}:
        return f"without a byte order mark it is {encoding}-le or {encoding}-be"
    return "latin-1 or cp1252 are what older programs write"


def _row(fields: list[str], where: str) -> list[str]:
    if len(fields) != len(COLUMNS):
        raise RequestError(
            f"{where} has {len(fields)} columns, not 2; a text with commas or line "
            'breaks stands in "..."'
        )
    row = [field.strip() for field in fields]
    for column, field in zip(COLUMNS, row, strict=True):
        if not field:
            raise RequestError(f"{where} has an empty {column}; fill it or remove it")
    return row
