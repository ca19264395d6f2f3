"""The command `results`, which prints a table of the runs in a folder."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normbench.cli.cells import (
    cell_rows,
    config_text,
    differing,
    in_config_order,
    norm_batch_follows,
)
from normbench.cli.options import RESULTS, Json, Results, Where, exit_codes, path_option
from normbench.cli.runs import Tuning, matching_records
from normbench.cli.tables import number, print_json, print_table

if TYPE_CHECKING:
    from normbench.config.schema import RunRecord
    from normbench.records.query import Cell

FORMULA_STARTS = {*"=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"}
"""Characters that begin a formula in a spreadsheet; the last four are wide = + - @."""
MAX_TABLE_ROWS = 200
"""Rows of a printed table; --csv, --json and --parquet have all rows."""

By = Annotated[
    str | None,
    typer.Option(
        metavar="KEYS",
        help="Group the runs by these keys of the config or record, such as "
        "norm,batch_size, and print the mean of each group (a cell).",
        show_default=False,
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY",
        help="Metric to print, such as test/error. Repeatable.",
        show_default="the primary metric of each run",
    ),
]
Sort = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="Sort the rows by this key; with -KEY, in descending order.",
        show_default=False,
    ),
]
Csv = Annotated[bool, typer.Option("--csv", help="Print the output as CSV.")]
Parquet = Annotated[
    Path | None,
    path_option(
        "--parquet",
        "Write the output to this file, as Parquet.",
        metavar="FILE",
        show_default=False,
    ),
]


def results(
    results: Results = RESULTS,
    by: By = None,
    metric: Metrics = None,
    where: Where = None,
    sort: Sort = None,
    json: Json = False,
    csv: Csv = False,
    parquet: Parquet = None,
    tuning: Tuning = False,
) -> None:
    """Print a table of runs, or of means over runs.

    A table of runs has a column for each config key whose value differs between runs,
    and the peak learning rate, peak_lr.

    With --by, each row is a cell: all runs with equal values of the given keys. `mean`
    and `sd` are the mean and the standard deviation of the metric over the `n` ok runs.
    `low` and `high` are the 95% t interval of the mean. `failures` counts the runs that
    diverged, failed or were skipped. Runs of tuning seeds are in no cell.
    """
    with exit_codes():
        from pydantic_core import to_json

        from normbench.errors import RequestError
        from normbench.records import query

        if json + csv + (parquet is not None) > 1:
            raise RequestError("--json, --csv and --parquet exclude each other")
        records, all_records = matching_records(results, where, tuning or by is None)
        metrics = list(dict.fromkeys(metric or ()))
        query.check_metrics(metrics, all_records)
        keys = [key.strip() for key in by.split(",")] if by is not None else []
        cells: list[Cell] = []
        if by is not None:
            cells = query.cells(records, keys, metrics)
            if sort is not None:
                cells = query.cells_in_order(cells, sort)
        elif sort is not None:
            records = query.in_order(records, sort)

        if json and by is not None:
            print_json([cell.plain() for cell in cells])
        elif json:
            typer.echo(to_json(records, indent=2).decode())
        elif csv or parquet is not None:
            rows = [cell.plain() for cell in cells]
            if by is None:
                rows = [query.row(record) for record in records]
            _export(rows, parquet)
        elif by is not None:
            _print_cells(cells, keys, f"{len(records)} runs in {results}")
        else:
            _print_runs(records, metrics, f"{len(records)} runs in {results}")

        if not metrics:
            _note_primary_metrics(query.primary_metrics(records))
        if by is not None:
            _note_mixtures(query.mixtures(records, keys))
            _note_missing_metrics(cells)


def _export(rows: Sequence[Mapping[str, Any]], parquet: Path | None) -> None:
    """Write a Parquet file, or print CSV if `parquet` is None."""
    if parquet is None:
        _print_csv(rows)
        return
    from normbench.records.export import write_parquet

    write_parquet(rows, parquet)
    typer.echo(f"wrote {len(rows)} rows to {parquet}", err=True)


def _note(text: str) -> None:
    typer.echo(f"note: {text}", err=True)


def _note_primary_metrics(primary: Sequence[str]) -> None:
    """Print a note if the runs have several primary metrics."""
    if len(primary) > 1:
        _note(
            f"these runs have different primary metrics ({', '.join(primary)}), which "
            "cannot be compared; choose a metric with --metric"
        )


def _note_mixtures(mixed: Sequence[str]) -> None:
    """Print a note about means over runs that differ in the config keys `mixed`."""
    if mixed:
        _note(
            f"there are cells whose runs differ in {', '.join(mixed)}; add these keys "
            "to --by, or choose runs with --where"
        )


def _note_missing_metrics(cells: "Sequence[Cell]") -> None:
    """Print a note for each metric that ok runs lack."""
    for metric in dict.fromkeys(cell.metric for cell in cells):
        without = sum(cell.without for cell in cells if cell.metric == metric)
        if without:
            _note(f"{without} ok runs have no {metric} and are not in the means")


def _print_cells(cells: "Sequence[Cell]", keys: Sequence[str], runs: str) -> None:
    rows = [*cell_rows(cells)]
    title = f"{len(cells)} cells of {runs}; mean and 95% interval over the n ok runs"
    _print(rows, title, keep={*keys, "n", "mean", "low", "high", "sd", "failures"})


def _print_runs(
    records: "Sequence[RunRecord]", metrics: Sequence[str], title: str
) -> None:
    """Print a row for each run: id, status, differing keys, peak learning rate, metric.

    The title lists options that only some runs have, if these runs agree in the value.
    """
    from normbench.records import query

    run_configs = [record.config for record in records]
    configs = [query.flat(config) for config in run_configs]
    varying, options = differing(configs)
    shown = {"task", "data", "norm", "reparam", "batch_size", "norm_batch", "seed"}
    shown |= set(varying)
    if norm_batch_follows(run_configs):
        shown.discard("norm_batch")  # follows from batch_size
    columns = in_config_order(key for config in configs for key in config)
    rows = []
    for record, config in zip(records, configs, strict=True):
        row: dict[str, str] = {"run_id": record.run_id, "status": record.status}
        for key in columns:
            if key in shown:
                row[key] = config_text(config[key]) if key in config else "-"
            if key == "lr":  # peak_lr is shown in any case
                row["peak_lr"] = f"{record.peak_lr:.4g}"
        if not metrics:
            row["metric"] = record.primary_metric
            row["value"] = number(record.metrics.get(record.primary_metric))
        row |= {name: number(record.metrics.get(name)) for name in metrics}
        rows.append(row)
    if options:
        pairs = (f"{key}={config_text(value)}" for key, value in options.items())
        title += f"; options of some runs: {', '.join(pairs)}"
    _print(rows, title, keep={"run_id"})


def _print(rows: Sequence[dict[str, str]], title: str, keep: set[str]) -> None:
    """Print a table of at most MAX_TABLE_ROWS rows.

    Columns that have the same value in all rows are moved to the title, except the
    columns in `keep`.
    """
    constant = {}
    if len(rows) > 1:
        for column in rows[0]:
            if column not in keep and len({row[column] for row in rows}) == 1:
                constant[column] = rows[0][column]
    if constant:
        pairs = (f"{key}={value}" for key, value in constant.items())
        title += f"; all with {', '.join(pairs)}"
    print_table(
        [
            {column: text for column, text in row.items() if column not in constant}
            for row in rows[:MAX_TABLE_ROWS]
        ],
        title=title,
    )
    if len(rows) > MAX_TABLE_ROWS:
        typer.echo(
            f"these are the first {MAX_TABLE_ROWS} of {len(rows)} rows; choose runs "
            "with --where, print means with --by norm,batch_size, or print all rows "
            "with --csv",
            err=True,
        )


def _print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    import csv

    columns = list(dict.fromkeys(key for row in rows for key in row))
    # Quotes keep text in one cell even if a spreadsheet uses another delimiter.
    writer = csv.writer(sys.stdout, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    if rows:
        writer.writerow(_escape_formulas(column) for column in columns)
    for row in rows:
        writer.writerow(_escape_formulas(row.get(column)) for column in columns)


def _escape_formulas(cell: Any) -> Any:
    """Put an apostrophe before text that a spreadsheet would compute as a formula.

    A formula can also follow a semicolon, which a spreadsheet may use as delimiter.
    Numbers are returned unchanged.
    """
    if not isinstance(cell, str):
        return cell
    parts = cell.split(";")
    return ";".join(
        f"'{part}" if part[:1] in FORMULA_STARTS else part for part in parts
    )
