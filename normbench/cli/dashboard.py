"""The command that shows the runs in the W&B app: dashboard."""

import json as jsonlib
from typing import Annotated

import typer

from normbench.cli.options import CLAIMS, Claims, Json, exit_codes


def dashboard(
    publish: Annotated[
        bool, typer.Option("--publish", help="Save both to W&B, as new ones.")
    ] = False,
    project: Annotated[
        str,
        typer.Option(
            "--project", envvar="WANDB_PROJECT", help="W&B project of the runs."
        ),
    ] = "normbench",
    entity: Annotated[
        str | None,
        typer.Option(
            "--entity",
            envvar="WANDB_ENTITY",
            help="W&B user or team.  [default: your own]",
            show_default=False,
        ),
    ] = None,
    claims: Claims = CLAIMS,
    json: Json = False,
) -> None:
    """Build a W&B workspace and a report over the runs of a project, as code.

    Prints what --publish would save: sections, panels, and what they show; with --json,
    the objects as W&B's client sends them. Runs get there by tracker=wandb and
    `normbench sync`.
    """
    with exit_codes():
        from normbench.report import dashboard as built
        from normbench.verdicts.files import read_verdict

        found = [read_verdict(path) for path in sorted(claims.glob("*/verdict.json"))]
        verdicts = [verdict for verdict in found if verdict is not None]
        if publish:
            addresses = built.publish(verdicts, project, entity)
            plain = jsonlib.dumps(addresses, indent=2)
            typer.echo(plain if json else "\n".join(addresses.values()))
            return
        shown = built.dashboard(verdicts, project, entity)
        if json:
            typer.echo(jsonlib.dumps(shown.plain(), indent=2))
        else:
            typer.echo(built.outline(shown))
