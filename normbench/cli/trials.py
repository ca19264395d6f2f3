"""Options and functions that `claim check` and `compare` share."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from normbench.config.schema import Engine
    from normbench.sweeps.observer import SweepObserver
    from normbench.sweeps.plan import Plan, PlanState
    from normbench.sweeps.round import Rounds

Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="NUMBER",
        min=1,
        help="Number of processes, Ray tasks or Slurm jobs that do the runs.",
        show_default="one process per core",
    ),
]
EngineOverrides = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="OVERRIDES",
        help='Engine that does the runs, such as "engine=ray engine.address=auto".',
        show_default="engine=local",
    ),
]


def compose_engine(
    overrides: str | None, workers: int | None, config_dir: Path | None
) -> "Engine":
    """Return the engine that the options --engine and --workers ask for.

    Raises RequestError if the overrides of --engine are wrong.
    """
    from normbench.config import composition
    from normbench.config.overrides import words

    engine = composition.compose_engine(words(overrides or "", "--engine"), config_dir)
    return engine if workers is None else engine.model_copy(update={"workers": workers})


def make_rounds(results: Path, modules: Sequence[str], redo_stale: bool) -> "Rounds":
    """Return rounds of runs in the folder `results`; `modules` are imported already.

    No metric is shown before the verdict: who sees effects between looks, and stops or
    goes on because of them, has more errors than the verdict says.
    """
    from normbench.records.store import Results
    from normbench.sweeps.round import Rounds

    folder = Results(results, tuple(modules), redo_stale)
    return Rounds(folder, _observe, blind=True)


def _observe(title: str, plan: "Plan", state: "PlanState") -> "SweepObserver":
    """Print the state of a plan, and return an observer that shows its progress."""
    from normbench.cli.console import Terminal
    from normbench.cli.progress import SweepProgress

    if state.missing:
        done = f"{len(state.finished)} of {len(plan.runs)} are done"
        typer.echo(f"{title}, {done}", err=True)
    return SweepProgress(Terminal(stderr=True), blind=True)


def command_line() -> str:
    """Return the command of this process, quoted for a shell."""
    return shlex.join(["normbench", *sys.argv[1:]])
