"""The app with all commands. Each command imports what it needs when it is called."""

import os
import sys
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
    stylize,
    sweep,
    wandb,
    watch,
)

HELP = """Compare normalization layers, which are called norms here.

A run trains one network with one norm, and ends in a record of its config and metrics.
A sweep does many runs. A claim is a statement about norms, registered before its runs;
a check of a claim does the runs and ends in a verdict.
"""

app = typer.Typer(
    name="normbench",
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(run.train)
app.command()(run.config)
app.command()(doctor.doctor)
app.command()(sweep.sweep)
app.command()(sweep.status)
app.command()(watch.watch)
app.command()(sweep.rerun)
app.command("list")(norms.list_)
app.command()(show.show)
app.command()(stylize.stylize)
app.command()(results.results)
app.command()(plot.plot)
app.command()(report.report)
app.command()(wandb.sync)
app.command()(wandb.dashboard)
app.command()(footprint.footprint)
app.command()(compare.compare)
app.command()(recommend.recommend)
claim.app.command("check")(check.check)
app.add_typer(claim.app, name="claim")
app.add_typer(norms.bench, name="bench")


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
