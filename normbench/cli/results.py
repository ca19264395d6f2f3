"""The command over all runs of a folder: results."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normbench.cli.options import RESULTS, Json, Results, exit_codes, expanded
from normbench.cli.tables import number, print_table

if TYPE_CHECKING:
    from normbench.config.schema import RunRecord
    from normbench.records.query import Cell

COMPUTED = {*"=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"}
"""What a text begins with that a spreadsheet computes; the last are wide = + - @."""
MOST_ROWS = 200
"""Rows of a table for people; --csv, --json and --parquet have all."""

MAY_ROUND = frozenset({"device", "threads", "compile", "channels_last"})
"""Keys that are not hashed, and can still move a metric by rounding."""

By = Annotated[
    str | None,
    typer.Option(
        metavar="KEY,KEY",
        help="Rows are cells: the runs that agree in these keys of the config or "
        "record, such as norm,batch_size, with the mean over those that are ok.",
        show_default=False,
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        help="Such as test/error; repeatable. Default: each run's primary metric.",
        show_default=False,
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CONDITION",
        help="Only runs in which this holds: KEY=VALUE, or != < <= > >=, in quotes "
        "for the shell, such as 'test/error<0.05'; repeatable.",
        show_default=False,
    ),
]
Sort = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="Order of the rows; -KEY: from the greatest down.",
        show_default=False,
    ),
]
Parquet = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        callback=expanded,
        help="Write a Parquet file.",
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
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    parquet: Parquet = None,
) -> None:
    """Print a table of all runs, or of cells of runs with their means.

    A table of runs shows every key of their configs that differs among them, and the
    learning rate at its peak, peak_lr. A cell has the mean of its `n` runs that are ok,
    its 95 % t interval and their standard deviation; runs that diverged, failed or were
    skipped are counted as failures.
    """
    with exit_codes():
        from normbench.errors import RequestError
        from normbench.records import query

        if json + csv + (parquet is not None) > 1:
            raise RequestError("--json, --csv and --parquet exclude each other")
        records, everything = matching_records(results, where or ())
        metrics = list(dict.fromkeys(metric or ()))
        query.check_metrics(metrics, everything)
        keys = [key.strip() for key in by.split(",")] if by is not None else []
        cells = query.cells(records, keys, metrics) if by is not None else []
        if sort is not None and by is not None:
            cells = query.cells_in_order(cells, sort)
        elif sort is not None:
            records = query.in_order(records, sort)

        if json:
            typer.echo(_json(records if by is None else cells))
        elif csv or parquet is not None:
            rows = [cell.plain() for cell in cells]
            if by is None:
                rows = [query.row(record) for record in records]
            _export(rows, parquet)
        elif by is not None:
            title = f"{len(cells)} cells of {len(records)} runs in {results}; mean and "
            title += "95 % interval over the n runs that are ok"
            keep = {*keys, "n", "mean", "low", "high", "sd", "failures"}
            _print([_cell(cell) for cell in cells], title, keep)
        else:
            _print_runs(records, metrics, f"{len(records)} runs in {results}")

        if not metrics and len(primary := query.primary_metrics(records)) > 1:
            _note(
                f"these runs have different primary metrics ({', '.join(primary)}), "
                "which do not compare; --metric chooses one"
            )
        if by is not None:
            _warn_of_cells(cells, query.mixtures(records, keys))


def matching_records(
    results: Path, where: Sequence[str]
) -> "tuple[list[RunRecord], list[RunRecord]]":
    """The records in which `where` holds, and all records; names the damaged ones."""
    from normbench.errors import RequestError
    from normbench.records import query, store

    if not results.is_dir():
        raise RequestError(
            f"--results {results} is not a folder; `normbench train` makes it"
        )
    everything, damaged = store.all_records(results)
    for error in damaged:
        typer.echo(f"left out: {error}", err=True)
    return query.matching(everything, where), everything


def _json(items: "Sequence[RunRecord] | Sequence[Cell]") -> str:
    from pydantic_core import to_json

    from normbench.records.query import Cell

    cells = [item.plain() for item in items if isinstance(item, Cell)]
    return dumps(cells, indent=2) if cells else to_json(items, indent=2).decode()


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


def _warn_of_cells(cells: "Sequence[Cell]", mixed: Sequence[str]) -> None:
    if mixed:
        _note(
            f"there are cells whose runs differ in {', '.join(mixed)}; name them in "
            "--by, or choose with --where"
        )
    for metric in dict.fromkeys(cell.metric for cell in cells):
        without = sum(cell.without for cell in cells if cell.metric == metric)
        if without:
            _note(f"{without} ok runs have no {metric} and are in no mean")


def _print_runs(
    records: "Sequence[RunRecord]", metrics: Sequence[str], title: str
) -> None:
    """A row for each run: its id, peak learning rate, and every key that differs.

    The title has the options that only some runs have, and in which these agree.
    """
    from normbench.records import query

    configs = [query.flat(record.config) for record in records]
    differing, options = _varying(configs)
    shown = {"task", "data", "norm", "reparam", "batch_size", "norm_batch", "seed"}
    shown |= {*differing, "lr"}
    if all(
        r.config.norm_batch * r.config.accumulate == r.config.batch_size
        for r in records
    ):
        shown.discard("norm_batch")  # says nothing that batch_size does not
    columns = _in_config_order(key for config in configs for key in config)
    rows = []
    for record, config in zip(records, configs, strict=True):
        row: dict[str, str] = {"run_id": record.run_id, "status": record.status}
        for key in (column for column in columns if column in shown):
            if key != "lr" or key in differing:
                row[key] = _text(config[key]) if key in config else "-"
            if key == "lr":
                row["peak_lr"] = f"{record.peak_lr:.4g}"
        if not metrics:
            row["metric"] = primary = record.primary_metric
            row["value"] = number(record.metrics.get(primary))
        rows.append(row | {name: number(record.metrics.get(name)) for name in metrics})
    if options:
        pairs = (f"{key}={_text(item)}" for key, item in options.items())
        title += f"; options of some runs: {', '.join(pairs)}"
    _print(rows, title, keep={"run_id"})


def _varying(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], dict[str, Any]]:
    """The keys in which flat configs differ, and the options that only some have.

    The configs that have such an option, of one norm among several for example, agree
    in its value. Leaves out options that are null, and keys that can change no number.
    """
    from normbench.config.schema import NOT_HASHED

    differing, options = [], {}
    for key in _in_config_order(key for row in rows for key in row):
        if key.partition(".")[0] in NOT_HASHED - MAY_ROUND:
            continue
        present = [row[key] for row in rows if key in row]
        if any(value != present[0] for value in present):
            differing.append(key)
        elif len(present) < len(rows) and present[0] is not None:
            options[key] = present[0]
    return differing, options


def _in_config_order(keys: Iterable[str]) -> list[str]:
    """Distinct keys of flat configs, section by section as a config has them."""
    from normbench.config.schema import RunConfig

    sections = list(RunConfig.model_fields)
    return sorted(dict.fromkeys(keys), key=lambda k: sections.index(k.split(".")[0]))


def _text(value: Any) -> str:
    """A value of a config as a person would type it."""
    if value is None or isinstance(value, bool | list | dict):
        return dumps(value, ensure_ascii=False)
    return str(value)


def _cell(cell: "Cell") -> dict[str, str]:
    plain = cell.plain()
    by = {key: "-" if plain[key] is None else str(plain[key]) for key in cell.by}
    return {key: by.get(key, number(value)) for key, value in plain.items()}


def _print(rows: Sequence[dict[str, str]], title: str, keep: set[str]) -> None:
    """A table for a terminal.

    Columns with one value in all rows, except `keep`, move to the title.
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
    # Quotes keep a text whole in a spreadsheet with another delimiter.
    writer = csv.writer(sys.stdout, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    if rows:
        writer.writerow(_as_text(column) for column in columns)
    for row in rows:
        writer.writerow(_as_text(row.get(column)) for column in columns)


def _as_text(cell: Any) -> Any:
    """An apostrophe before a text that a spreadsheet would compute; numbers stay.

    Also after each semicolon, which starts a cell if it is the delimiter.
    """
    if not isinstance(cell, str):
        return cell
    parts = cell.split(";")
    return ";".join(f"'{part}" if part[:1] in COMPUTED else part for part in parts)
