"""What `claim check` and `compare` share: their options, and how runs are done."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from normbench.cli.tables import width

if TYPE_CHECKING:
    from normbench.config.schema import Engine
    from normbench.sweeps.manifest import Announcement, Manifest
    from normbench.sweeps.observer import SweepObserver

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
RedoStale = Annotated[
    bool, typer.Option("--redo-stale", help="Do runs of other code again.")
]


def compose_engine(
    overrides: str | None, workers: int | None, config_dir: Path | None
) -> "Engine":
    """The engine of --engine, with --workers."""
    from normbench.config import composition
    from normbench.config.overrides import words

    engine = composition.compose_engine(words(overrides or "", "--engine"), config_dir)
    return engine.model_copy(update={"workers": workers} if workers else {})


def observe(title: str) -> "Callable[[str], SweepObserver]":
    """What shows the progress of each round of runs on the terminal."""

    def observe_round(part: str) -> "SweepObserver":
        from normbench.cli.console import Terminal
        from normbench.cli.progress import SweepProgress

        typer.echo(f"{title}: {part}", err=True)
        return SweepProgress(Terminal(stderr=True))

    return observe_round


def announce(title: str, announcement: "Announcement") -> "Callable[[Manifest], None]":
    """What announces each round of runs to `watch`."""

    def announce_round(manifest: "Manifest") -> None:
        changes = {"title": f"{title}: {manifest.title}"}
        announcement.say(manifest.model_copy(update=changes))

    return announce_round


def command_line() -> str:
    """The command of this process, to repeat it."""
    return shlex.join(["normbench", *sys.argv[1:]])


def columns() -> int:
    """The columns of text: those of the terminal, or WIDEST."""
    return min(width(), WIDEST)
