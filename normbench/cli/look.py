"""Commands that look: list, show, results."""

import json as jsonlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normbench.cli.options import (
    RESULTS,
    ConfigDir,
    Json,
    Modules,
    Results,
    exit_codes,
)
from normbench.cli.tables import number, print_table

if TYPE_CHECKING:
    from normbench.catalogue import Facts
    from normbench.schema import RunRecord


class Listed(StrEnum):
    """What `list` lists: the plural of a config group."""

    norms = "norms"
    tasks = "tasks"
    data = "data"
    budgets = "budgets"
    optimizers = "optimizers"
    trackers = "trackers"


def list_(
    what: Annotated[Listed, typer.Argument(help="What to list.", show_default=False)],
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """List what a config can name, with what it is.

    Of norms: the source, which inputs share a statistic in training, the parameters on
    C channels, and the tasks whose default network it works in.
    """
    with exit_codes():
        from normbench.choices import choices, description

        rows: list[dict[str, Any]]
        if what is Listed.norms:
            from normbench.catalogue import catalogue
            from normbench.provenance import import_modules

            import_modules(module or ())
            facts = catalogue(config_dir)
            rows = [asdict(norm) for norm in facts]
            shown = [_norm_row(norm) for norm in facts]
        else:
            rows = shown = [
                {"name": name, "description": description(file)}
                for name, file in choices(what.removesuffix("s"), config_dir).items()
            ]
        if json:
            typer.echo(jsonlib.dumps(rows, indent=2))
        else:
            print_table(shown, title=what)


def _norm_row(norm: "Facts") -> dict[str, str]:
    yes_no = {True: "yes", False: "-", None: ""}
    return {
        "name": norm.name,
        "source": norm.source or norm.description,
        "axes": norm.axes or "",
        "parameters": norm.parameters or "",
        "uses other samples": yes_no[norm.uses_other_samples],
        "differs in eval": yes_no[norm.differs_in_eval],
        "honours mask": yes_no[norm.honours_mask],
        "tasks": " ".join(norm.tasks),
    }


def show(
    run: Annotated[str, typer.Argument(metavar="RUN_ID", help="Or its beginning.")],
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Show the record of one run."""
    with exit_codes():
        from normbench import record
        from normbench.errors import RequestError

        folder = record.find(results, run)
        finished = record.read(folder)
        if finished is None:
            raise RequestError(
                f"{folder} has no valid {record.RESULT}: the run did not finish; "
                "`normbench train` with its overrides runs it again"
            )
        if json:
            typer.echo(finished.model_dump_json(indent=2))
        else:
            _print_record(finished, folder)


def results_(
    results: Results = RESULTS,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            metavar="KEY=VALUE",
            help="Only runs whose config or record has this value; repeatable.",
        ),
    ] = None,
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV, a row a run.")] = False,
) -> None:
    """Print a table of all runs."""
    with exit_codes():
        from normbench import record
        from normbench.errors import RequestError

        if json and csv:
            raise RequestError("--json and --csv exclude each other")
        if not results.is_dir():
            raise RequestError(
                f"--results {results} is not a folder; `normbench train` makes it"
            )
        everything, damaged = record.all_records(results)
        for path in damaged:
            typer.echo(f"left out, not a valid record: {path}", err=True)
        records = record.matching(everything, where or ())
        if json:
            typer.echo(
                jsonlib.dumps([r.model_dump(mode="json") for r in records], indent=2)
            )
        elif csv:
            _print_csv(records)
        else:
            rows = [_summary(finished) for finished in records]
            print_table(rows, title=f"{len(rows)} runs in {results}")


def _summary(finished: "RunRecord") -> dict[str, Any]:
    config, metric = finished.config, finished.primary_metric
    value = finished.metrics.get(metric)
    return {
        "run_id": finished.run_id,
        "status": finished.status,
        "task": config.task["name"],
        "data": config.data["name"],
        "norm": config.norm["name"],
        "reparam": config.reparam,
        "batch_size": config.batch_size,
        "norm_batch": config.norm_batch,
        "lr": config.lr,
        "seed": config.seed,
        "metric": metric,
        "value": "-" if value is None else f"{value:.4f}",
    }


def _print_record(finished: "RunRecord", folder: Path) -> None:
    from normbench.record import flat

    plain = finished.model_dump(mode="json", exclude={"config", "metrics"})
    for key, item in plain.items():
        if isinstance(item, Mapping):
            item = "  ".join(f"{k} {number(v)}" for k, v in item.items())
        typer.echo(f"{key:<20} {number(item)}")
    typer.echo("\nconfig")
    for key, item in flat(finished.config).items():
        typer.echo(f"  {key:<26} {item}")
    typer.echo("\nmetrics")
    for key, item in finished.metrics.items():
        typer.echo(f"  {key:<26} {number(item)}")
    typer.echo(f"\n{folder}")


def _print_csv(records: Sequence["RunRecord"]) -> None:
    import csv

    from normbench.record import flat

    rows = [
        {"run_id": r.run_id, "status": r.status, **flat(r.config), **r.metrics}
        for r in records
    ]
    columns = dict.fromkeys(key for row in rows for key in row)
    writer = csv.DictWriter(sys.stdout, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
