"""The command that shows one record: show."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from normbench.cli.options import RESULTS, Json, Results, exit_codes
from normbench.cli.tables import number

if TYPE_CHECKING:
    from normbench.config.schema import RunRecord


def show(
    run: Annotated[str, typer.Argument(metavar="RUN_ID", help="Or its beginning.")],
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
    for key, item in plain.items():
        if isinstance(item, Mapping):
            item = "  ".join(f"{k} {number(v)}" for k, v in item.items())
        if isinstance(item, list):
            item = "; ".join(map(str, item))
        typer.echo(f"{key:<20} {number(item)}")
    typer.echo("\nconfig")
    for key, item in flat(record.config).items():
        typer.echo(f"  {key:<26} {item}")
    typer.echo("\nmetrics")
    for key, item in record.metrics.items():
        typer.echo(f"  {key:<26} {number(item)}")
    typer.echo(f"\n{folder}")
