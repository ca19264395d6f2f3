"""The app with all commands. Each command imports what it needs when it is called."""

import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from normbench import __version__
from normbench.cli import (
    check,
    claim,
    compare,
    doctor,
    footprint,
    norms,
    plot,
    recommend,
    report,
    results,
    run,
    show,
    skill,
    stylize,
    sweep,
    wandb,
    watch,
)
from normbench.cli.examples import EXAMPLES
from normbench.cli.help import MAX_WIDTH, Command, Group, help_

HELP = """Compare normalization layers, which are called norms here.

A run trains one network with one norm, and ends in a record of its config and metrics.
A sweep does many runs. A claim is a statement about norms, registered before its runs;
a check of a claim does the runs and ends in a verdict.
"""
FIRST_STEPS = """
# Is everything here?
normbench doctor
# Train a small CNN with GroupNorm, in about a minute
normbench train norm=group
# Which norm for images at batch size 4?
normbench recommend --task images --batch-size 4
# The help of a command, which ends with examples
normbench help sweep
"""
PANELS: dict[str, tuple[Callable[..., None] | typer.Typer, ...]] = {
    "Start": (doctor.doctor, norms.list_, run.config, help_),
    "Run": (
        *(run.train, sweep.sweep, watch.watch, sweep.status, sweep.rerun),
        compare.compare,
    ),
    "Look at runs": (
        *(results.results, show.show, plot.plot, report.report, stylize.stylize),
    ),
    "Understand norms": (
        *(recommend.recommend, footprint.footprint, norms.bench, claim.app),
        skill.skill,
    ),
    "Weights & Biases": (wandb.sync, wandb.dashboard),
}
"""The commands below each heading of the help, in the order of their use."""

app = typer.Typer(
    name="normbench",
    cls=Group,
    help=HELP,
    epilog=FIRST_STEPS,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": MAX_WIDTH,
    },
)


def _add(
    group: typer.Typer, function: Callable[..., None], panel: str, path: str
) -> None:
    """Add a command. `path` are the words before its name, such as "claim "."""
    name = function.__name__.removeprefix("bench_").rstrip("_")
    group.command(
        name, cls=Command, rich_help_panel=panel, epilog=EXAMPLES[f"{path}{name}"]
    )(function)


for _function in (claim.list_, claim.show, check.check):
    _add(claim.app, _function, "Commands", "claim ")
_add(norms.bench, norms.bench_norms, "Commands", "bench ")
for _panel, _commands in PANELS.items():
    for _command in _commands:
        if isinstance(_command, typer.Typer):
            _name = _command.info.name
            app.add_typer(_command, name=_name, cls=Group, rich_help_panel=_panel)
        else:
            _add(app, _command, _panel, "")


def _print_version(is_set: bool) -> None:
    if is_set:
        typer.echo(__version__)
        raise typer.Exit


def _require_one_process(command: str | None) -> None:
    """Exit if torchrun starts a command other than `train`, which alone supports it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or command in {None, "train"}:
        return
    if os.environ.get("RANK") == "0":
        typer.echo(
            "error: torchrun can start only `normbench train`; start `normbench "
            f"{command}` without torchrun",
            err=True,
        )
    raise typer.Exit(2)


def _require_utf8() -> None:
    """Exit if an argument or a NORMBENCH_ variable is not UTF-8, as records must be."""
    texts = {f"argument {i}": text for i, text in enumerate(sys.argv[1:], 1)}
    for name, text in os.environ.items():
        if name.startswith("NORMBENCH_"):
            texts[name] = text
    for name, text in texts.items():
        try:
            text.encode()
        except UnicodeEncodeError:
            raw = text.encode("utf-8", "surrogateescape")
            escaped = raw.decode("utf-8", "backslashreplace")
            typer.echo(
                f"error: {name} is not UTF-8: {escaped}; rename the file or folder",
                err=True,
            )
            raise typer.Exit(2) from None


@app.callback()
def _program(
    context: typer.Context,
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
    """Check the arguments and the environment before every command."""
    _require_utf8()
    _require_one_process(context.invoked_subcommand)
