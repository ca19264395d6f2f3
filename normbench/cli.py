"""The command line: parse, call, print. Imports live in the commands, for `--help`."""

import json as jsonlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from normbench.progress import Observer
    from normbench.schema import RunConfig, RunRecord

app = typer.Typer(
    name="normbench",
    help="What a normalization layer does, measured.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _complete(incomplete: str) -> list[str]:
    """`group=choice` from the yaml files' names, so that no TAB waits for an import."""
    from normbench.choices import choices, groups

    known = [f"{group}={name}" for group in groups() for name in choices(group)]
    return sorted(word for word in known if word.startswith(incomplete))


Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Hydra's overrides, such as: norm=group norm.num_groups=4 batch_size=2",
        autocompletion=_complete,
        show_default=False,
    ),
]
Results = Annotated[
    Path,
    typer.Option(
        "--results", help="Folder of the run records.", envvar="NORMBENCH_RESULTS"
    ),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option("--config-dir", help="Folder with yaml groups of your own."),
]
Modules = Annotated[
    list[str] | None,
    typer.Option(
        "--module", help="Importable module with classes of your own; repeatable."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RESULTS = Path("results/runs")


class Listed(StrEnum):
    """What `list` lists: the plural of a config group."""

    norms = "norms"
    tasks = "tasks"
    data = "data"
    budgets = "budgets"
    optimizers = "optimizers"
    trackers = "trackers"


def main() -> None:
    """The console script."""
    app()


@contextmanager
def _exit_codes() -> Iterator[None]:
    """2 and the message for a wrong request, 130 for Ctrl-C."""
    from normbench.errors import RequestError

    try:
        yield
    except RequestError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command starts the run again", err=True)
        raise typer.Exit(130) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise typer.Exit(1) from None


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("normbench"))
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    pass


@app.command()
def train(
    overrides: Overrides = None,
    results: Results = RESULTS,
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Train one network with one norm, and record the run.

    A run that is finished already is not run again. Exit code 0: done; 1: the run
    failed, diverged or was skipped; 2: the request was wrong; 130: interrupted.
    """
    with _exit_codes():
        config = _composed(overrides, config_dir, module)
        from normbench import record
        from normbench.config import run_id

        folder = record.run_folder(results, run_id(config))
        finished = record.read(folder)
        if record.satisfies(folder, finished, config):
            assert finished is not None
            typer.echo("this run is finished already; its record:", err=True)
        else:
            from normbench.experiment import run_one

            finished = run_one(
                config, results, modules=module or (), observer=_observer()
            )
        if json:
            typer.echo(finished.model_dump_json(indent=2))
        else:
            _print_outcome(finished)
            typer.echo(f"run {finished.run_id}  {folder}")
    if finished.status != "ok":
        raise typer.Exit(1)


@app.command()
def config(
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Print the resolved config that OVERRIDES ask for, as yaml."""
    with _exit_codes():
        composed = _composed(overrides, config_dir, module)
        if json:
            typer.echo(composed.model_dump_json(indent=2))
        else:
            import yaml

            from normbench.config import run_id

            typer.echo(f"# run_id: {run_id(composed)}")
            plain = composed.model_dump(mode="json")
            typer.echo(yaml.safe_dump(plain, sort_keys=False), nl=False)


@app.command("list")
def list_(
    what: Annotated[Listed, typer.Argument(help="What to list.", show_default=False)],
    config_dir: ConfigDir = None,
    json: Json = False,
) -> None:
    """List what a config can name, with what it is."""
    with _exit_codes():
        from normbench.choices import choices, description

        rows = [
            {"name": name, "description": description(file)}
            for name, file in choices(what.removesuffix("s"), config_dir).items()
        ]
        if json:
            typer.echo(jsonlib.dumps(rows, indent=2))
        else:
            _print_table(rows, title=what)


@app.command()
def show(
    run: Annotated[str, typer.Argument(metavar="RUN_ID", help="Or its beginning.")],
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Show the record of one run."""
    with _exit_codes():
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


@app.command("results")
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
    with _exit_codes():
        from normbench import record
        from normbench.errors import RequestError

        if json and csv:
            raise RequestError("--json and --csv exclude each other")
        if not results.is_dir():
            raise RequestError(
                f"--results {results} is not a folder; `normbench train` makes it"
            )
        records = record.matching(record.all_records(results), where or ())
        if json:
            typer.echo(
                jsonlib.dumps([r.model_dump(mode="json") for r in records], indent=2)
            )
        elif csv:
            _print_csv(records)
        else:
            rows = [_summary(finished) for finished in records]
            _print_table(rows, title=f"{len(rows)} runs in {results}")


def _composed(
    overrides: Sequence[str] | None,
    config_dir: Path | None,
    modules: Sequence[str] | None,
) -> "RunConfig":
    from normbench.config import compose
    from normbench.provenance import import_modules

    import_modules(modules or ())
    return compose(overrides or (), config_dir)


def _observer() -> "Observer":
    from rich.console import Console

    from normbench.progress import Bar, Lines

    console = Console(stderr=True)
    return Bar(console) if console.is_terminal else Lines()


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


def _print_outcome(finished: "RunRecord") -> None:
    if finished.status in {"failed", "skipped"}:
        typer.echo(f"{finished.status}: {finished.error}", err=True)
    elif finished.status == "diverged":
        typer.echo(f"diverged: the loss of step {finished.diverged_at} is not finite")
    else:
        names = dict.fromkeys(key.split("/")[1] for key in finished.metrics)
        splits = dict.fromkeys(key.split("/")[0] for key in finished.metrics)
        _print_table(
            [
                {"metric": split}
                | {
                    name: _number(finished.metrics.get(f"{split}/{name}"))
                    for name in names
                }
                for split in splits
            ],
            title="",
        )


def _print_record(finished: "RunRecord", folder: Path) -> None:
    from normbench.record import flat

    plain = finished.model_dump(mode="json", exclude={"config", "metrics"})
    for key, item in plain.items():
        if isinstance(item, Mapping):
            item = "  ".join(f"{k} {_number(v)}" for k, v in item.items())
        typer.echo(f"{key:<20} {_number(item)}")
    typer.echo("\nconfig")
    for key, item in flat(finished.config).items():
        typer.echo(f"  {key:<26} {item}")
    typer.echo("\nmetrics")
    for key, item in finished.metrics.items():
        typer.echo(f"  {key:<26} {_number(item)}")
    typer.echo(f"\n{folder}")


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


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


def _print_table(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=title or None, box=box.SIMPLE_HEAD, show_edge=False, title_justify="left"
    )
    columns = list(rows[0]) if rows else []
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(row[column])) for column in columns))
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)
