"""The command `show`, which prints one record."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from normbench.cli.options import RESULTS, Json, Results, RunId, exit_codes
from normbench.cli.tables import number

if TYPE_CHECKING:
    from normbench.config.schema import RunRecord


def show(
    run: RunId,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Show the record of one run."""
    with exit_codes():
        from normbench.records import store

        record, folder = store.find_record(results, run)
        if json:
            typer.echo(record.model_dump_json(indent=2))
        else:
            _print_record(record, folder)


def _print_record(record: "RunRecord", folder: Path) -> None:
    from normbench.records.query import flat

    plain = record.model_dump(mode="json", exclude={"config", "metrics"})
    for key, value in plain.items():
        typer.echo(f"{key:<20} {_text(value)}")
    typer.echo("\nconfig")
    for key, value in flat(record.config).items():
        typer.echo(f"  {key:<26} {value}")
    typer.echo("\nmetrics")
    for key, value in record.metrics.items():
        typer.echo(f"  {key:<26} {number(value)}")
    typer.echo(f"\n{folder}")


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "  ".join(f"{key} {number(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return number(value)
