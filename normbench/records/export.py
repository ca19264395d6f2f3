"""Rows as a Parquet file, for data frames and databases. Needs the extra `parquet`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from normbench.errors import RequestError
from normbench.system.atomic import write_atomically


def write_parquet(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write `rows`, a column a key, whole or not at all; where a key is missing, null.

    A column that mixes kinds of values, or holds lists, is text: each value as JSON.
    Raises RequestError without pyarrow, or where `path` cannot be written.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise RequestError(
            "--parquet needs pyarrow; install it with: pip install 'normbench[parquet]'"
        ) from None
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _one_kind([row.get(name) for row in rows]) for name in names}
    buffer = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(columns), buffer)
    try:
        write_atomically(path, buffer.getvalue().to_pybytes())
    except OSError as error:
        raise RequestError(
            f"--parquet {path} cannot be written: {error.strerror}"
        ) from None


def _one_kind(values: Sequence[Any]) -> Sequence[Any]:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    if len(kinds) < 2 and not kinds & {list, dict}:
        return values
    return [None if value is None else json.dumps(value) for value in values]
