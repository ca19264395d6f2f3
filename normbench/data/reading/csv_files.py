"""Read a CSV file of the user's: find its delimiter and its columns."""

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

TABS = {".tsv", ".tab"}
"""Suffixes of files whose delimiter is a tab."""
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
"""What may separate columns, in the order in which it is tried."""
SEP = re.compile(r"sep=([,;\t|])[\r\n]*", re.IGNORECASE)
"""A first line of Excel's, which names the delimiter and is no part of the table."""
LONGEST_FIELD = 100_000_000
"""Characters of a field; more are a quote that is never closed."""
LOOKED_AT = 100
"""Rows that tell the delimiter of a file whose columns are named by numbers."""
MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""The byte order marks that a file may begin with, and the encoding that each is of."""


def _named(delimiter: Any) -> Any:
    names = {sign: name for name, sign in DELIMITERS.items()} | {r"\t": "tab"}
    return names.get(delimiter, delimiter) if isinstance(delimiter, str) else delimiter


Delimiter = Annotated[
    Literal["comma", "semicolon", "tab", "pipe"], BeforeValidator(_named)
]


def _column(column: Any) -> Any:
    if isinstance(column, str) or (type(column) is int and column >= 1):
        return column
    raise ValueError("write the name of a column, or its number, from 1")


Column = Annotated[str | int, BeforeValidator(_column)]
"""A column by its name in the header, or by its number, from 1."""


class Form(NamedTuple):
    """How a file is to be read; a delimiter of None is found, columns of None have the
    names "text" and "label", or, without a header, the numbers 1 and 2.
    """

    encoding: str = "utf-8"
    header: bool = True
    delimiter: Delimiter | None = None
    text_column: Column | None = None
    label_column: Column | None = None

    def columns(self) -> dict[str, Column]:
        """The column of each option."""
        usual: dict[str, tuple[Column, Column]] = {
            "text_column": ("text", 1),
            "label_column": ("label", 2),
        }
        given = {key: getattr(self, key) for key in usual}
        return {
            key: usual[key][not self.header] if column is None else column
            for key, column in given.items()
        }


def read(path: Path, form: Form) -> Texts:
    """The samples in a file. Raises RequestError, with the line that is wrong."""
    _require_encoding(path, form.encoding)
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        with path.open(encoding=form.encoding, newline="") as opened:
            return _read(path, opened, form)
    except LookupError:
        raise _unknown(form.encoding) from None
    except UnicodeError as error:
        raise RequestError(
            f"{path} is not in data.encoding={form.encoding}: {error}; "
            f"{_instead(form.encoding)}"
        ) from None
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from None
    finally:
        csv.field_size_limit(before)


def _read(path: Path, opened: TextIO, form: Form) -> Texts:
    delimiter = _delimiter(path, opened, form)
    rows = _rows(opened, delimiter)
    texts, labels, lines, blank = [], [], [], 0
    try:
        _, first = next(rows, (0, []))
        at = _places(path, first, delimiter, form)
        if not form.header:
            rows = _rows(opened, delimiter)
        for line, fields in rows:
            if not any(fields):
                blank += 1  # as spreadsheets write empty rows
                continue
            where = f"{path}: line {line}"
            if len(fields) != len(first):
                raise RequestError(
                    f"{where} has {len(fields)} columns, not {len(first)}; a text with "
                    f'{delimiter}s or line breaks stands in "..."'
                )
            text, label = (fields[place] for place in at)
            if not text or not label:
                raise RequestError(
                    f"{where} has an empty {'label' if text else 'text'}; fill it or "
                    "remove it"
                )
            texts.append(text)
            labels.append(label)
            lines.append(line)
    except csv.Error as error:
        raise RequestError(f"{path}: {error}; is a quote never closed?") from None
    if not texts:
        there = "a header and no samples" if form.header else "no samples"
        raise RequestError(f"{path} has {there}")
    names = [repr(first[k]) if form.header else str(k + 1) for k in at]
    told = f"{path.name}: separated by {delimiter}s; text is column {names[0]} and "
    told += f"label {names[1]} of {len(first)}"
    told += f"; {blank} empty rows are left out" if blank else ""
    return Texts(texts, labels, lines, path.name, Notes((told,)))


def _rows(opened: TextIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that has something in its line, with the number of its last line.

    Fields are stripped. Raises csv.Error, with the line.
    """
    before = int(_written_delimiter(opened) is not None)
    reader = csv.reader(opened, delimiter=DELIMITERS[delimiter], strict=True)
    try:
        for fields in reader:
            if fields:
                yield before + reader.line_num, [field.strip() for field in fields]
    except csv.Error as error:
        raise csv.Error(f"line {before + reader.line_num}: {error}") from None


def _written_delimiter(opened: TextIO) -> str | None:
    """The delimiter that a first line `sep=;` names; `opened` then stands after it.

    So it does after a byte order mark, which spreadsheets write.
    """
    _rewind(opened)
    found = SEP.fullmatch(opened.readline(8))
    if found is None:
        _rewind(opened)
        return None
    return str(_named(found[1]))


def _rewind(opened: TextIO) -> None:
    opened.seek(0)
    if opened.read(1) != "\ufeff":
        opened.seek(0)


def _by_name(form: Form) -> bool:
    return any(isinstance(column, str) for column in form.columns().values())


def suffix_decides(path: Path, form: Form) -> bool:
    """Whether a file of the same bytes and another suffix may be read otherwise."""
    return form.delimiter is None and not _by_name(form) and path.suffix.lower() in TABS


def _delimiter(path: Path, opened: TextIO, form: Form) -> str:
    """The delimiter that is given, or that the file names, or else the first that
    makes sense of the file.

    Where a column is named, one with which the header has it; where both are numbers,
    one with which all of the first rows have as many columns.
    """
    if form.delimiter is not None:
        return form.delimiter
    if written := _written_delimiter(opened):
        return written
    usual = "tab" if path.suffix.lower() in TABS else "comma"
    columns = form.columns().values()
    by_name = _by_name(form)
    width: dict[str, int] = {}
    for name in sorted(DELIMITERS, key=lambda name: name != usual):
        try:
            looked_at = islice(_rows(opened, name), 1 if by_name else LOOKED_AT)
            rows = [fields for _, fields in looked_at]
        except csv.Error:
            rows = []
        first = rows[0] if rows else []
        width[name] = len(first)
        alike = by_name or {len(row) for row in rows} == {max(2, len(first))}
        if alike and all(len(_find(first, column)) == 1 for column in columns):
            return name
    return max(width, key=lambda name: width[name])


def _find(header: Sequence[str], column: Column) -> list[int]:
    """The places of a column: of several, none is meant."""
    if isinstance(column, int):
        return [column - 1] if column <= len(header) else []
    exact = [k for k, name in enumerate(header) if name == column.strip()]
    alike = [k for k, name in enumerate(header) if _folded(name) == _folded(column)]
    return exact or alike


def _folded(name: str) -> str:
    return name.strip().casefold()


def _places(
    path: Path, header: Sequence[str], delimiter: str, form: Form
) -> tuple[int, int]:
    """Where texts and labels are in a row. Raises RequestError, with what is there."""
    if not header:
        raise RequestError(f"{path} has no line with anything in it")
    columns = form.columns()
    found = {key: _find(header, column) for key, column in columns.items()}
    for key, places in found.items():
        if len(places) == 1:
            continue
        has = f"{path}: the first line has {len(header)} columns, separated by "
        has += f"{delimiter}s: {files.shortened(map(_quoted, header), 8)}"
        what = f"no column {columns[key]!r}"
        if places:
            what = f"{len(places)} columns {columns[key]!r}"
        raise RequestError(
            f"{has}; there is {what}: name those of texts and labels, by "
            "data.text_column=NAME data.label_column=NAME or their numbers"
            + (", with data.header=false where there is no header" * form.header)
        )
    text, label = found["text_column"][0], found["label_column"][0]
    if text == label:
        raise RequestError(
            f"data.text_column={columns['text_column']} and data.label_column="
            f"{columns['label_column']} are the same column of {path}"
        )
    return text, label


def _quoted(name: str) -> str:
    return repr(name if len(name) <= 40 else f"{name[:40]}...")


def _require_encoding(path: Path, encoding: str) -> None:
    """Raise RequestError where the beginning of a file says that it is in another."""
    try:
        name = codecs.lookup(encoding).name
    except (LookupError, ValueError):  # the latter for a null character
        raise _unknown(encoding) from None
    try:
        with path.open("rb") as opened:
            head = opened.read(4)
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from None
    marks = (of for mark, of in MARKS.items() if head.startswith(mark))
    marked = next(marks, None)
    if marked is not None and not name.startswith(marked):
        raise RequestError(
            f"{path} begins with the byte order mark of {marked}, and data.encoding="
            f"{encoding} is another; write data.encoding={marked}"
        )


def _unknown(encoding: str) -> RequestError:
    return RequestError(
        f"data.encoding={encoding} is unknown; utf-8, latin-1 and utf-16 are known"
    )


def _instead(encoding: str) -> str:
    if codecs.lookup(encoding).name in {"utf-16", "utf-32"}:
        return f"without a byte order mark it is {encoding}-le or {encoding}-be"
    return "latin-1 or cp1252 are what older programs write"
