"""What `claim check` and `compare` share: their options, and how runs are done."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from normbench.cli.tables import width

if TYPE_CHECKING:
    from normbench.config.schema import Engine
    from normbench.sweeps.observer import SweepObserver
    from normbench.sweeps.plan import Plan, PlanState

WIDEST = 120
"""Columns of text that is still easy to read."""

Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, help="Processes.  [default: the cores]", show_default=False
    ),
]
EngineOverrides = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="OVERRIDES",
        help='What does the runs, such as "engine=ray engine.address=auto".',
    ),
]


def compose_engine(
    overrides: str | None, workers: int | None, config_dir: Path | None
) -> "Engine":
    """The engine of --engine, with --workers."""
    from normbench.config import composition
    from normbench.config.overrides import words

    engine = composition.compose_engine(words(overrides or "", "--engine"), config_dir)
    return engine.model_copy(update={"workers": workers} if workers else {})


def observe(title: str, plan: "Plan", state: "PlanState") -> "SweepObserver":
    """What shows the progress of a round of runs on the terminal."""
    from normbench.cli.console import Terminal
    from normbench.cli.progress import SweepProgress

    if state.missing:
        done = f"{len(state.finished)} of {len(plan.runs)} are done"
        typer.echo(f"{title}, {done}", err=True)
    return SweepProgress(Terminal(stderr=True))


def command_line() -> str:
    """The command of this process, to repeat it."""
    return shlex.join(["normbench", *sys.argv[1:]])


def columns() -> int:
    """The columns of text: those of the terminal, or WIDEST."""
    return min(width(), WIDEST)
