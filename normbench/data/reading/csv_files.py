"""Read the user's CSV files: detect the delimiter, and find the columns."""

import codecs
import csv
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TextIO

from pydantic import BeforeValidator

from normbench.data.notes import Notes
from normbench.data.reading import files
from normbench.data.reading.texts import Texts
from normbench.errors import RequestError

TAB_SUFFIXES = {".tsv", ".tab"}
"""Suffixes of files whose delimiter is a tab."""
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
"""Names and characters of the delimiters, in the order in which they are tried."""
SEP_LINE = re.compile(r"sep=([,;\t|])[\r\n]*", re.IGNORECASE)
"""A first line that Excel writes: it names the delimiter, and is not a table row."""
MAX_FIELD_LENGTH = 100_000_000
"""Maximum number of characters of a field. A longer field may lack its last quote."""
SNIFF_ROWS = 100
"""Rows that are read to detect the delimiter if the columns are given as numbers."""
BOM_ENCODINGS = {
    codecs.BOM_UTF8: "utf-8",
    # UTF-32 is before UTF-16, because UTF-32's mark begins with UTF-16's mark.
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks at the beginning of a file, and the encodings that they mean."""


def _delimiter_name(delimiter: Any) -> Any:
    # A user may write a tab as a backslash and a t.
    names = {sign: name for name, sign in DELIMITERS.items()} | {r"\t": "tab"}
    return names.get(delimiter, delimiter) if isinstance(delimiter, str) else delimiter


Delimiter = Annotated[
    Literal["comma", "semicolon", "tab", "pipe"], BeforeValidator(_delimiter_name)
]


def _column(column: Any) -> Any:
    if isinstance(column, str) or (type(column) is int and column >= 1):
        return column
    raise ValueError("give the name of a column, or its number, from 1")


Column = Annotated[str | int, BeforeValidator(_column)]
"""A column: its name in the header, or its number, from 1."""


class Form(NamedTuple):
    """The options for reading a file.

    If `delimiter` is None, it is detected. If `text_column` is None, it is "text", or 1
    if there is no header. If `label_column` is None, it is "label", or 2 if there is no
    header.
    """

    encoding: str = "utf-8"
    header: bool = True
    delimiter: Delimiter | None = None
    text_column: Column | None = None
    label_column: Column | None = None

    def columns(self) -> dict[str, Column]:
        """Return the text column and the label column, by the name of their option."""
        text: Column = "text" if self.header else 1
        label: Column = "label" if self.header else 2
        return {
            "text_column": text if self.text_column is None else self.text_column,
            "label_column": label if self.label_column is None else self.label_column,
        }

    def has_named_column(self) -> bool:
        """Return whether a column is given by its name."""
        return any(isinstance(column, str) for column in self.columns().values())


def read(path: Path, form: Form) -> Texts:
    """Return the samples in a file. Raises RequestError, which names the wrong line."""
    _require_encoding(path, form.encoding)
    previous_limit = csv.field_size_limit(MAX_FIELD_LENGTH)
    try:
        with path.open(encoding=form.encoding, newline="") as opened:
            return _read(path, opened, form)
    except UnicodeError as error:
        raise RequestError(
            f"{path} is not in data.encoding={form.encoding}: {error}; "
            f"{_other_encodings(form.encoding)}"
        ) from None
    except LookupError:  # base64 and the like are no encodings of text
        raise _unknown_encoding(form.encoding) from None
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from None
    finally:
        csv.field_size_limit(previous_limit)


def _read(path: Path, opened: TextIO, form: Form) -> Texts:
    delimiter = _delimiter(path, opened, form)
    rows = _rows(opened, delimiter)
    texts, labels, lines = [], [], []
    empty_rows = 0
    try:
        _, first = next(rows, (0, []))
        columns = _column_indices(path, first, delimiter, form)
        if not form.header:
            rows = _rows(opened, delimiter)  # again from the first row, a sample
        for line, fields in rows:
            if not any(fields):
                empty_rows += 1  # only delimiters, as spreadsheets write empty rows
                continue
            position = f"{path}: line {line}"
            if len(fields) != len(first):
                raise RequestError(
                    f"{position} has {len(fields)} columns, not {len(first)}; "
                    f"quote texts that contain {delimiter}s or line breaks"
                )
            text, label = (fields[column] for column in columns)
            if not text or not label:
                raise RequestError(
                    f"{position} has an empty {'label' if text else 'text'}; fill it "
                    "in, or remove the line"
                )
            texts.append(text)
            labels.append(label)
            lines.append(line)
    except csv.Error as error:
        raise RequestError(f"{path}: {error}; is a quote never closed?") from None
    if not texts:
        content = "a header but no samples" if form.header else "no samples"
        raise RequestError(f"{path} has {content}")
    names = [repr(first[k]) if form.header else str(k + 1) for k in columns]
    summary = (
        f"{path.name}: {len(first)} columns, separated by {delimiter}s; texts are in "
        f"column {names[0]} and labels in column {names[1]}"
    )
    if empty_rows:
        summary += f"; {empty_rows} empty rows are left out"
    return Texts(texts, labels, lines, path.name, Notes((summary,)))


def _rows(opened: TextIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the stripped fields of each non-empty line, with the line number.

    If a row has several lines, the line number is the number of its last line. Raises
    csv.Error, which names the line.
    """
    skipped_lines = 0 if _written_delimiter(opened) is None else 1
    reader = csv.reader(opened, delimiter=DELIMITERS[delimiter], strict=True)
    try:
        for fields in reader:
            if fields:
                line = skipped_lines + reader.line_num
                yield line, [field.strip() for field in fields]
    except csv.Error as error:
        line = skipped_lines + reader.line_num
        raise csv.Error(f"line {line}: {error}") from None


def _written_delimiter(opened: TextIO) -> str | None:
    """Return the delimiter that a first line such as `sep=;` names, or None.

    Afterwards the position in `opened` is the beginning of the table. The table begins
    after a byte order mark and after a line such as `sep=;`, if they exist.
    """
    _rewind(opened)
    match = SEP_LINE.fullmatch(opened.readline(8))
    if match is None:
        _rewind(opened)
        return None
    return str(_delimiter_name(match[1]))


def _rewind(opened: TextIO) -> None:
    """Go to the beginning of the file, after a byte order mark."""
    opened.seek(0)
    if opened.read(1) != "\ufeff":
        opened.seek(0)


def suffix_decides(path: Path, form: Form) -> bool:
    """Return whether the suffix of the file may decide which delimiter is used."""
    is_detected = form.delimiter is None and not form.has_named_column()
    return is_detected and path.suffix.lower() in TAB_SUFFIXES


def _delimiter(path: Path, opened: TextIO, form: Form) -> str:
    """Return the delimiter that the option or a `sep=;` line names, or detect it.

    The delimiters are tried in order. If a column is given by name, the result is the
    first delimiter with which the header has both columns. If both columns are given as
    numbers, the first row must have both columns. In this case, the first rows must
    also have the same number of columns, at least 2.
    """
    if form.delimiter is not None:
        return form.delimiter
    if written := _written_delimiter(opened):
        return written
    likely = "tab" if path.suffix.lower() in TAB_SUFFIXES else "comma"
    columns = form.columns().values()
    by_name = form.has_named_column()
    widths: dict[str, int] = {}
    for name in sorted(DELIMITERS, key=lambda name: name != likely):
        try:
            head = islice(_rows(opened, name), 1 if by_name else SNIFF_ROWS)
            rows = [fields for _, fields in head]
        except csv.Error:
            rows = []
        first = rows[0] if rows else []
        widths[name] = len(first)
        is_table = len(first) >= 2 and all(len(row) == len(first) for row in rows)
        has_columns = all(len(_find(first, column)) == 1 for column in columns)
        if has_columns and (by_name or is_table):
            return name
    # No delimiter fits. The delimiter with the most columns is the best guess.
    return max(widths, key=lambda name: widths[name])


def _find(header: Sequence[str], column: Column) -> list[int]:
    """Return the indices of the columns with this number or name.

    Case is ignored if no name matches exactly.
    """
    if isinstance(column, int):
        return [column - 1] if column <= len(header) else []
    name = column.strip()
    exact = [k for k, other in enumerate(header) if other == name]
    folded = [
        k for k, other in enumerate(header) if other.casefold() == name.casefold()
    ]
    return exact or folded


def _column_indices(
    path: Path, header: Sequence[str], delimiter: str, form: Form
) -> tuple[int, int]:
    """Return the indices of the text column and the label column.

    Raises RequestError, with the columns that exist.
    """
    if not header:
        raise RequestError(f"{path} has no line with content")
    columns = form.columns()
    indices = {key: _find(header, column) for key, column in columns.items()}
    for key, matches in indices.items():
        if len(matches) == 1:
            continue
        count = f"{len(matches)} columns" if matches else "no column"
        problem = (
            f"{path}: the first line has {len(header)} columns, separated by "
            f"{delimiter}s: {files.shortened(map(_quoted, header), 8)}; it has {count} "
            f"{columns[key]!r}"
        )
        advice = "set data.text_column and data.label_column to column names or numbers"
        if form.header:
            advice += ", and data.header=false if there is no header"
        raise RequestError(f"{problem}; {advice}")
    text, label = indices["text_column"][0], indices["label_column"][0]
    if text == label:
        raise RequestError(
            f"data.text_column={columns['text_column']} and data.label_column="
            f"{columns['label_column']} are the same column of {path}"
        )
    return text, label


def _quoted(name: str) -> str:
    return repr(name if len(name) <= 40 else f"{name[:40]}...")


def _require_encoding(path: Path, encoding: str) -> None:
    """Raise RequestError if the file starts with the mark of another encoding."""
    try:
        name = codecs.lookup(encoding).name
    except (LookupError, ValueError):  # a null character raises ValueError
        raise _unknown_encoding(encoding) from None
    try:
        with path.open("rb") as opened:
            head = opened.read(4)
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from None
    for mark, mark_encoding in BOM_ENCODINGS.items():
        if head.startswith(mark):
            if not name.startswith(mark_encoding):
                raise RequestError(
                    f"{path} starts with the byte order mark of {mark_encoding}, but "
                    f"data.encoding={encoding}; set data.encoding={mark_encoding}"
                )
            return


def _unknown_encoding(encoding: str) -> RequestError:
    return RequestError(
        f"data.encoding={encoding} is unknown; try utf-8, latin-1 or utf-16"
    )


def _other_encodings(encoding: str) -> str:
    if codecs.lookup(encoding).name in {"utf-16", "utf-32"}:
        return f"without a byte order mark, try {encoding}-le or {encoding}-be"
    return "older programs often write latin-1 or cp1252"
