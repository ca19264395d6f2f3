"""Labelled texts in the user's CSV file."""

import hashlib

from pydantic import PositiveInt

from normbench.data.base import Fraction
from normbench.data.reading import files
from normbench.data.reading.csv_files import (
    Column,
    Delimiter,
    Form,
    read,
    suffix_decides,
)
from normbench.data.reading.texts import LabelledTexts, Texts, VocabSize
from normbench.errors import RequestError


class TextCsv(LabelledTexts, name="text_csv"):
    """A CSV file with a column of texts and a column of labels.

    Fields may be in double quotes, as spreadsheets write them. The delimiter is
    detected unless it is given. A column is named by its header or its number. Without
    `test_path`, the seed also chooses the test part.
    """

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
        super().__init__(
            vocab_size, max_length, val_fraction, test_fraction, fingerprint
        )
        self.paths = [files.file("data.path", path)]
        if test_path is not None:
            self.paths.append(files.file("data.test_path", test_path))
            files.require_apart(*self.paths)
        self.form = Form(encoding, header, delimiter, text_column, label_column)
        for key, column in self.form.columns().items():
            if isinstance(column, str) and not header:
                raise RequestError(
                    f"data.{key}={column} is a column name, but with data.header=false "
                    "columns have no names; use the number of the column, from 1"
                )

    def hash_files(self) -> str:
        fingerprint = files.contents(self.paths).fingerprint
        if any(suffix_decides(path, self.form) for path in self.paths):
            # A suffix that decides the delimiter changes how the same bytes are read.
            return hashlib.sha256(f"{fingerprint} tab".encode()).hexdigest()[:32]
        return fingerprint

    def read_options(self) -> Form:
        return self.form

    def read(self) -> list[Texts]:
        return [read(path, self.form) for path in self.paths]
