"""The options that commands share, and the exit codes of their errors."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from normbench.system.interrupts import AGAIN, INTERRUPTED
from normbench.system.signals import ctrl_c_raises


def _complete(incomplete: str) -> list[str]:
    """`group=choice` from the yaml files' names, so that no TAB waits for an import."""
    from normbench.config.choices import choices, groups

    known = [f"{group}={name}" for group in groups() for name in choices(group)]
    return sorted(word for word in known if word.startswith(incomplete))


P = TypeVar("P", Path, Path | None, list[Path])


def expanded(value: P) -> P:
    """The callback of an option that is a path, or several: `~` is a home folder."""
    try:
        if isinstance(value, list):
            return [path.expanduser() for path in value]
        return value.expanduser() if value else value
    except RuntimeError:
        raise typer.BadParameter(
            f"{value} begins with ~, and there is no such home folder; write ./ before "
            "it for a name that begins so"
        ) from None


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
        "--results",
        callback=expanded,
        help="Folder of the run records.",
        envvar="NORMBENCH_RESULTS",
    ),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option(
        "--config-dir", callback=expanded, help="Folder with yaml groups of your own."
    ),
]
Modules = Annotated[
    list[str] | None,
    typer.Option(
        "--module", help="Importable module with classes of your own; repeatable."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RESULTS = Path("results/runs")
Claims = Annotated[
    Path,
    typer.Option(
        "--claims", callback=expanded, help="Folder of the verdicts, one a claim."
    ),
]
CLAIMS = Path("results/claims")


@contextmanager
def exit_codes() -> Iterator[None]:
    """2 for a wrong request, 1 for what could not be done, 130 for Ctrl-C."""
    from normbench.errors import NormbenchError, RequestError

    try:
        with ctrl_c_raises():
            yield
    except NormbenchError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, RequestError) else 1) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        typer.echo(f"error: {where}{error.strerror or error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # one more ends it without a word
        typer.echo(AGAIN, err=True)
        raise typer.Exit(INTERRUPTED) from None
