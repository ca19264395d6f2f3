"""Labelled texts in a CSV file of the user's."""

import hashlib

from pydantic import PositiveInt

from normbench.data.base import Data, Fraction, Tokens
from normbench.data.reading import files
from normbench.data.reading.csv_files import (
    Column,
    Delimiter,
    Form,
    read,
    suffix_decides,
)
from normbench.data.reading.texts import VocabSize, tokenised
from normbench.errors import RequestError


class TextCsv(Data, name="text_csv"):
    """Which label has this text? A CSV file with a column of texts and one of labels.

    Fields are quoted as spreadsheets do. The delimiter is found, unless it is given;
    columns are named by the header, or by their numbers. Without `test_path`, the seed
    draws the test part too. Tokens are byte pairs learned from the training part.
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
        header: bool = True,
        delimiter: Delimiter | None = None,
        text_column: Column | None = None,
        label_column: Column | None = None,
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
        self.form = Form(encoding, header, delimiter, text_column, label_column)
        for key, column in self.form.columns().items():
            if isinstance(column, str) and not header:
                raise RequestError(
                    f"data.{key}={column} is a name, and data.header=false says that "
                    "columns have none; give its number, from 1"
                )
        self.vocab_size, self.max_length = vocab_size, max_length
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.fingerprint = fingerprint

    def hash_files(self) -> str:
        found = files.fingerprint(self.paths)
        if any(suffix_decides(path, self.form) for path in self.paths):
            found = hashlib.sha256(f"{found} tab".encode()).hexdigest()[:32]
        return found

    def load(self, seed: int) -> Tokens:
        """All texts; RequestError, with the line, where the file is of another form."""
        files.require(self.fingerprint, self.hash_files())
        return tokenised(
            [read(path, self.form) for path in self.paths],
            vocab_size=self.vocab_size,
            max_length=self.max_length,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            seed=seed,
            fingerprint=f"{self.hash_files()} {tuple(self.form)}",
        )
