"""The command over all runs of a folder: results."""

import json as jsonlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normbench.cli.options import RESULTS, Json, Results, exit_codes, expanded
from normbench.cli.tables import number, print_json, print_table

if TYPE_CHECKING:
    from normbench.config.schema import RunRecord
    from normbench.records.query import Cell

COMPUTED = {*"=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"}
"""What a text begins with that a spreadsheet computes; the last are wide = + - @."""
MOST_ROWS = 200
"""Rows of a table for people; --csv, --json and --parquet have all."""


def results(
    results: Results = RESULTS,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="KEY,KEY",
            help="Rows are cells: the runs that agree in these keys of the config or "
            "record, such as norm,batch_size, with the mean over those that are ok.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Such as test/error; repeatable. Default: each run's primary metric.",
            show_default=False,
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="Only runs in which this holds: KEY=VALUE, or != < <= > >=, in quotes "
            "for the shell, such as 'test/error<0.05'; repeatable.",
            show_default=False,
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Order of the rows; -KEY: from the greatest down.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    parquet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=expanded,
            help="Write a Parquet file.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print a table of all runs, or of cells of runs with their means.

    A table of runs shows every key of their configs that differs among them, and the
    learning rate at its peak, peak_lr. A cell has the mean of its `n` runs that are ok,
    its 95 % t interval and their standard deviation; runs that diverged, failed or were
    skipped are counted as failures.
    """
    with exit_codes():
        from normbench.errors import RequestError
        from normbench.records import query, store

        if json + csv + (parquet is not None) > 1:
            raise RequestError("--json, --csv and --parquet exclude each other")
        if not results.is_dir():
            raise RequestError(
                f"--results {results} is not a folder; `normbench train` makes it"
            )
        everything, damaged = store.all_records(results)
        for each in damaged:
            typer.echo(f"left out: {each}", err=True)
        records = query.matching(everything, where or ())
        metrics = list(dict.fromkeys(metric or ()))
        query.check_metrics(metrics, everything)
        if by is not None:
            keys = [key.strip() for key in by.split(",")]
            cells = query.cells(records, keys, metrics)
            if sort is not None:
                cells = query.cells_in_order(cells, sort)
            rows = [cell.plain() for cell in cells]
        else:
            if sort is not None:
                records = query.in_order(records, sort)
            rows = [query.row(finished) for finished in records] if not json else []

        if json and by is None:
            from pydantic_core import to_json

            typer.echo(to_json(records, indent=2).decode())
        elif json:
            print_json(rows)
        elif csv:
            _print_csv(rows)
        elif parquet is not None:
            from normbench.records.export import write_parquet

            write_parquet(rows, parquet)
            typer.echo(f"wrote {len(rows)} rows to {parquet}", err=True)
        elif by is not None:
            _print(
                [_cell(cell) for cell in cells],
                f"{len(cells)} cells of {len(records)} runs in {results}; mean and "
                "95 % interval over the n runs that are ok",
                keep={*keys, "n", "mean", "low", "high", "sd", "failures"},
            )
        else:
            summaries, options = _summaries(records, metrics)
            title = f"{len(records)} runs in {results}"
            if options:
                pairs = (f"{key}={_text(item)}" for key, item in options.items())
                title += f"; options of some runs: {', '.join(pairs)}"
            _print(summaries, title, keep={"run_id"})

        if not metrics and len(primary := query.primary_metrics(records)) > 1:
            typer.echo(
                f"note: these runs have different primary metrics "
                f"({', '.join(primary)}), which do not compare; --metric chooses one",
                err=True,
            )
        if by is not None:
            _warn_of_cells(cells, query.mixtures(records, keys))


def _warn_of_cells(cells: "Sequence[Cell]", mixed: Sequence[str]) -> None:
    if mixed:
        typer.echo(
            f"note: there are cells whose runs differ in {', '.join(mixed)}; "
            "name them in --by, or choose with --where",
            err=True,
        )
    for metric in dict.fromkeys(cell.metric for cell in cells):
        without = sum(cell.without for cell in cells if cell.metric == metric)
        if without:
            typer.echo(
                f"note: {without} ok runs have no {metric} and are in no mean",
                err=True,
            )


def _summaries(
    records: "Sequence[RunRecord]", metrics: Sequence[str]
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """A row of text for each run, and the options that have one value where they are.

    Columns are what names a run, its peak learning rate, and every key that differs.
    """
    from normbench.records import query

    configs = [query.flat(finished.config) for finished in records]
    differing, options = query.varying(configs)
    shown = {"task", "data", "norm", "reparam", "batch_size", "norm_batch", "seed"}
    shown |= {*differing, "lr"}
    if all(
        r.config.norm_batch * r.config.accumulate == r.config.batch_size
        for r in records
    ):
        shown.discard("norm_batch")  # says nothing that batch_size does not
    columns = query.in_config_order(key for config in configs for key in config)
    rows = []
    for finished, config in zip(records, configs, strict=True):
        row: dict[str, Any] = {"run_id": finished.run_id, "status": finished.status}
        for key in (column for column in columns if column in shown):
            if key != "lr" or key in differing:
                row[key] = _text(config[key]) if key in config else "-"
            if key == "lr":
                row["peak_lr"] = f"{finished.peak_lr:.4g}"
        primary = finished.primary_metric
        if metrics:
            row |= {name: number(finished.metrics.get(name)) for name in metrics}
        else:
            row |= {"metric": primary, "value": number(finished.metrics.get(primary))}
        rows.append({key: str(item) for key, item in row.items()})
    return rows, options


def _text(value: Any) -> str:
    """A value of a config as a person would type it."""
    if value is None or isinstance(value, bool | list | dict):
        return jsonlib.dumps(value, ensure_ascii=False)
    return str(value)


def _cell(cell: "Cell") -> dict[str, str]:
    by = {key: "-" if item is None else str(item) for key, item in cell.by.items()}
    return by | {
        "metric": cell.metric,
        "n": str(cell.n),
        "mean": number(cell.mean),
        "low": number(cell.low),
        "high": number(cell.high),
        "sd": number(cell.sd),
        "failures": str(cell.failures),
    }


def _print(rows: Sequence[dict[str, str]], title: str, keep: set[str]) -> None:
    """A table; columns that are the same in all rows, but for `keep`, are in its title.

    So it fits a terminal.
    """
    constant = {}
    if len(rows) > 1:
        for column in rows[0].keys() - keep:
            values = {row[column] for row in rows}
            if len(values) == 1:
                constant[column] = values.pop()
    if constant:
        told = (f"{key}={constant[key]}" for key in rows[0] if key in constant)
        title += f"; all with {', '.join(told)}"
    print_table(
        [
            {key: item for key, item in row.items() if key not in constant}
            for row in rows[:MOST_ROWS]
        ],
        title=title,
    )
    if len(rows) > MOST_ROWS:
        typer.echo(
            f"the first {MOST_ROWS} of {len(rows)} rows; choose with --where, sum up "
            "with --by norm,batch_size, or print all with --csv",
            err=True,
        )


def _print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    import csv

    columns = list(dict.fromkeys(key for row in rows for key in row))
    # Else a spreadsheet whose delimiter is another would split a text at that.
    writer = csv.writer(sys.stdout, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    if rows:
        writer.writerow(_as_text(column) for column in columns)
    for row in rows:
        writer.writerow(_as_text(row.get(column)) for column in columns)


def _as_text(cell: Any) -> Any:
    """A text that a spreadsheet would compute, after an apostrophe; numbers stay.

    So is what follows a semicolon: where that is the delimiter, a cell may begin there.
    """
    if not isinstance(cell, str):
        return cell
    parts = cell.split(";")
    return ";".join(f"'{each}" if each[:1] in COMPUTED else each for each in parts)
