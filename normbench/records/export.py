"""Exports rows to a Parquet file. Needs the extra `parquet`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from normbench.errors import RequestError
from normbench.system.atomic import write_atomically


def write_parquet(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write `rows` to a Parquet file with one column for each key.

    A missing key is null. A column with values of several types, or with lists, is
    text: each value as JSON. The file is written atomically. Raises RequestError if
    pyarrow is not installed or `path` cannot be written.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise RequestError(
            "--parquet needs pyarrow; install it with: pip install 'normbench[parquet]'"
        ) from None
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    buffer = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(columns), buffer)
    try:
        write_atomically(path, buffer.getvalue().to_pybytes())
    except OSError as error:
        raise RequestError(
            f"--parquet {path} cannot be written: {error.strerror}"
        ) from None


def _column(values: Sequence[Any]) -> Sequence[Any]:
    """Convert `values` to a single type that a Parquet column can have."""
    types = {type(value) for value in values if value is not None}
    if types == {int, float}:
        return [None if value is None else float(value) for value in values]
    if len(types) < 2 and not types & {list, dict}:
        return values
    return [None if value is None else json.dumps(value) for value in values]
