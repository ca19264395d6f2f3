"""The command `show`, which prints one record."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from normbench.cli.options import RESULTS, Json, Results, RunId, exit_codes
from normbench.cli.tables import number, two_columns

if TYPE_CHECKING:
    from normbench.config.schema import RunRecord


def show(
    run: RunId,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Show the record of one run.

    The metrics come first, followed by the config and the environment.
    """
    with exit_codes():
        from normbench.records import store

        record, folder = store.find_record(results, run)
        if json:
            typer.echo(record.model_dump_json(indent=2))
        else:
            typer.echo("\n".join(_lines(record, folder)))


def _lines(record: "RunRecord", folder: Path) -> Iterator[str]:
    """Yield the result of a run, its metrics, its config and its environment."""
    from normbench.config.titles import title
    from normbench.records.query import flat

    yield f"run {record.run_id}: {title(record.config)}"
    yield f"{folder}\n"
    yield from two_columns(_result(record))
    yield from _metrics(record)
    yield "\nconfig"
    config = flat(record.config)
    yield from two_columns({key: _text(value) for key, value in config.items()})
    yield "\nenvironment"
    yield from two_columns(_environment(record))


def _result(record: "RunRecord") -> dict[str, str]:
    """Return how a run ended, and its counts and times."""
    shown = {"metrics", "primary_metric", "direction"}
    left_out = {"run_id", "format", "config", "environment"} | shown
    primary = number(record.metrics.get(record.primary_metric))
    fields = record.model_dump(mode="json", exclude=left_out, exclude_none=True)
    status = fields.pop("status")
    return {
        "status": status,
        record.primary_metric: f"{primary}, the primary metric ({record.direction})",
        **{key: _text(value) for key, value in fields.items() if value not in ([], {})},
    }


def _metrics(record: "RunRecord") -> Iterator[str]:
    """Yield a table of the metrics of each part of the data, and the other metrics."""
    names: dict[str, dict[str, str]] = {}
    for key, value in record.metrics.items():
        part, _, name = key.partition("/")
        names.setdefault(part, {})[name] = number(value)
    columns = names.get(record.primary_metric.partition("/")[0], {}).keys()
    tables = {part: row for part, row in names.items() if row.keys() <= columns}
    if tables:
        width = max(map(len, tables))
        head = "".join(f"  {name:>8}" for name in columns)
        yield f"\n{'metrics':<{width + 2}}{head}"
        for part, row in tables.items():
            cells = "".join(f"  {row.get(n, ''):>{max(8, len(n))}}" for n in columns)
            yield f"  {part:<{width}}{cells}"
    others = {
        f"{part}/{name}": value
        for part, row in names.items()
        if part not in tables
        for name, value in row.items()
    }
    if others:
        yield "\nother metrics"
        yield from two_columns(others)


def _environment(record: "RunRecord") -> dict[str, str]:
    """Return the environment, with a line per package and per module of the user."""
    rows: dict[str, str] = {}
    for key, value in record.environment.model_dump(mode="json").items():
        if isinstance(value, Mapping):
            rows |= {f"{key}.{name}": _text(item) for name, item in value.items()}
        else:
            rows[key] = _text(value)
    return rows


def _text(value: object) -> str:
    """Return a value of the config or of the record; numbers have six digits."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else str(value)
