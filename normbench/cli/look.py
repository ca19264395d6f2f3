"""Commands that look: list, show."""

from collections.abc import Mapping
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
from normbench.cli.tables import number, print_json, print_table

if TYPE_CHECKING:
    from normbench.config.schema import RunRecord
    from normbench.training.catalogue import Facts


class Listed(StrEnum):
    """What `list` lists: probes, and the plural of a config group."""

    norms = "norms"
    tasks = "tasks"
    data = "data"
    budgets = "budgets"
    optimizers = "optimizers"
    trackers = "trackers"
    engines = "engines"
    probes = "probes"


def list_(
    what: Annotated[Listed, typer.Argument(help="What to list.", show_default=False)],
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """List what a config can name, with what it is.

    Of norms: the source, which inputs share a statistic in training, the parameters on
    C channels, the precisions that it is safe with, and the tasks whose default network
    it works in.
    """
    with exit_codes():
        from normbench.config.choices import choices, description

        rows: list[dict[str, Any]]
        if what is Listed.norms:
            from normbench.config.user_modules import import_modules
            from normbench.training.catalogue import catalogue

            import_modules(module or ())
            facts = catalogue(config_dir)
            rows = [asdict(norm) for norm in facts]
            shown = [_norm_row(norm) for norm in facts]
        elif what is Listed.probes:
            from normbench.config.user_modules import import_modules
            from normbench.probes.base import PROBES

            import_modules(module or ())
            rows = shown = [
                {"name": name, "description": PROBES.description(name)}
                for name in PROBES.names()
            ]
        else:
            rows = shown = [
                {"name": name, "description": description(file)}
                for name, file in choices(what.removesuffix("s"), config_dir).items()
            ]
        if json:
            print_json(rows)
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
        "precisions": norm.precisions or "",
        "tasks": " ".join(norm.tasks),
    }


def show(
    run: Annotated[str, typer.Argument(metavar="RUN_ID", help="Or its beginning.")],
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Show the record of one run."""
    with exit_codes():
        from normbench.records import store

        finished, folder = store.finished(results, run)
        if json:
            typer.echo(finished.model_dump_json(indent=2))
        else:
            _print_record(finished, folder)


def _print_record(finished: "RunRecord", folder: Path) -> None:
    from normbench.records.query import flat

    plain = finished.model_dump(mode="json", exclude={"config", "metrics"})
    for key, item in plain.items():
        if isinstance(item, Mapping):
            item = "  ".join(f"{k} {number(v)}" for k, v in item.items())
        if isinstance(item, list):
            item = "; ".join(map(str, item))
        typer.echo(f"{key:<20} {number(item)}")
    typer.echo("\nconfig")
    for key, item in flat(finished.config).items():
        typer.echo(f"  {key:<26} {item}")
    typer.echo("\nmetrics")
    for key, item in finished.metrics.items():
        typer.echo(f"  {key:<26} {number(item)}")
    typer.echo(f"\n{folder}")
