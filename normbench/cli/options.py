"""The options that several commands share, and the exit codes of errors."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from normbench.system.interrupts import INTERRUPTED, INTERRUPTED_MESSAGE
from normbench.system.signals import ctrl_c_raises


def complete_overrides(incomplete: str) -> list[str]:
    """Return completions such as "norm=group". Reading only file names is fast."""
    from normbench.config.choices import choices, groups

    overrides = [f"{group}={name}" for group in groups() for name in choices(group)]
    return sorted(word for word in overrides if word.startswith(incomplete))


def complete_group(group: str) -> Callable[[str], list[str]]:
    """Return a function that completes the names of the yaml files in `group`."""

    def complete(incomplete: str) -> list[str]:
        from normbench.config.choices import choices

        return [name for name in choices(group) if name.startswith(incomplete)]

    return complete


P = TypeVar("P", Path, Path | None, list[Path])


def expanded(value: P) -> P:
    """Expand `~` in the path or paths of an option; used as the option's callback."""
    try:
        if isinstance(value, list):
            return [path.expanduser() for path in value]
        return value.expanduser() if value else value
    except RuntimeError:
        raise typer.BadParameter(
            f"{value} begins with ~, but there is no such home folder; write ./ before "
            "a file name that begins with ~"
        ) from None


def path_option(
    name: str,
    help: str,
    *,
    metavar: str = "DIR",
    envvar: str | None = None,
    show_default: bool | str = True,
    callback: Callable[[Any], Any] = expanded,
) -> Any:
    """Return a Typer option for a path in which `callback` expands `~`."""
    return typer.Option(
        name,
        metavar=metavar,
        callback=callback,
        help=help,
        envvar=envvar,
        show_default=show_default,
    )


Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Values of the config in Hydra's syntax, such as norm=group batch_size=2. "
        "`normbench config` prints every key. `normbench list tasks` (norms, data, "
        "optimizers, budgets, trackers) prints the choices of a group. Common keys: "
        "task, norm, norm.num_groups, data, batch_size, norm_batch, lr, optimizer, "
        "budget.epochs, budget.max_steps, seed, tracker, device.",
        autocompletion=complete_overrides,
        show_default=False,
    ),
]
RunId = Annotated[
    str, typer.Argument(metavar="RUN_ID", help="The id of a run, or its beginning.")
]
Results = Annotated[
    Path,
    path_option("--results", "Folder of the run records.", envvar="NORMBENCH_RESULTS"),
]
RESULTS = Path("results/runs")
CLAIMS = Path("results/claims")


def claims_to_read(folder: Path) -> Path:
    """Expand `~` in --claims, and check the folder; used as the option's callback.

    Only the default folder may be missing. Without this check, a misspelled name would
    show the verdicts of the package.
    """
    folder = expanded(folder)
    if not folder.is_dir() and (folder != CLAIMS or folder.exists()):
        raise typer.BadParameter(f"{folder} is not a folder")
    return folder


Claims = Annotated[
    Path,
    path_option(
        "--claims",
        "Folder of your verdicts, with one subfolder per claim. The verdicts of other "
        "claims are those of the package.",
        callback=claims_to_read,
    ),
]
ConfigDir = Annotated[
    Path | None,
    path_option(
        "--config-dir", "Folder of your own yaml files, such as DIR/norm/mine.yaml."
    ),
]
Modules = Annotated[
    list[str] | None,
    typer.Option(
        "--module",
        metavar="NAME",
        help="Python module of your own classes, to import first. Repeatable.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the output as JSON.")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="CONDITION",
        help="Use only the runs that meet this condition: a key, one of = != < <= > "
        ">=, and a value. Quote it for the shell, such as 'test/error<0.05'. "
        "Repeatable.",
        show_default=False,
    ),
]


@contextmanager
def exit_codes() -> Iterator[None]:
    """Print an error and exit: 2 for a wrong request, 130 for Ctrl-C, 1 otherwise."""
    from normbench.errors import NormbenchError, RequestError

    try:
        with ctrl_c_raises():
            yield
    except NormbenchError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, RequestError) else 1) from None
    except OSError as error:
        file = f"{error.filename}: " if error.filename else ""
        typer.echo(f"error: {file}{error.strerror or error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C prints nothing
        typer.echo(INTERRUPTED_MESSAGE, err=True)
        raise typer.Exit(INTERRUPTED) from None
