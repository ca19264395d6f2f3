"""Options that several commands have, and the exit codes of errors."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from normbench.system.interrupts import INTERRUPTED, INTERRUPTED_MESSAGE
from normbench.system.signals import ctrl_c_raises


def complete_overrides(incomplete: str) -> list[str]:
    """Completions `group=choice`, made from file names: TAB waits for no import."""
    from normbench.config.choices import choices, groups

    words = [f"{group}={name}" for group in groups() for name in choices(group)]
    return sorted(word for word in words if word.startswith(incomplete))


def completion_of(group: str) -> Callable[[str], list[str]]:
    """A completion by the names of the yaml files in `group`, such as "claim"."""

    def complete(incomplete: str) -> list[str]:
        from normbench.config.choices import choices

        return [name for name in choices(group) if name.startswith(incomplete)]

    return complete


P = TypeVar("P", Path, Path | None, list[Path])


def expanded(value: P) -> P:
    """The callback of an option that is a path or several paths: expands `~`."""
    try:
        if isinstance(value, list):
            return [path.expanduser() for path in value]
        return value.expanduser() if value else value
    except RuntimeError:
        raise typer.BadParameter(
            f"{value} begins with ~, and there is no such home folder; for a name that "
            "begins so, write ./ before it"
        ) from None


Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Hydra's overrides, such as: norm=group norm.num_groups=4 batch_size=2",
        autocompletion=complete_overrides,
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
        "--claims", callback=expanded, help="Folder of the verdicts, one per claim."
    ),
]
CLAIMS = Path("results/claims")


@contextmanager
def exit_codes() -> Iterator[None]:
    """Exit with 2 for a wrong request, 1 for any other error and 130 for Ctrl-C."""
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
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # another one ends silently
        typer.echo(INTERRUPTED_MESSAGE, err=True)
        raise typer.Exit(INTERRUPTED) from None
