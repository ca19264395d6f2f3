"""The commands of Weights & Biases: sync, dashboard."""

from typing import Annotated

import typer

from normbench.cli.options import CLAIMS, RESULTS, Claims, Json, Results, exit_codes
from normbench.cli.tables import print_json


def sync(
    results: Results = RESULTS,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be uploaded.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            min=1, help="Give up when nothing was uploaded for so many seconds."
        ),
    ] = 120,
) -> None:
    """Upload the runs that W&B logged offline.

    Those uploaded already, and those that are running now, are left out. Exit code 1
    when some could not be uploaded: the same command tries them again.
    """
    with exit_codes():
        from normbench.records.sync import offline_runs, places, upload

        folders = offline_runs(results)
        left_out = []
        if folders.synced:
            left_out.append(f"{len(folders.synced)} skipped, uploaded already")
        if folders.running:
            left_out.append(f"{len(folders.running)} left for later, running")
        if not folders.waiting:
            nothing = f"nothing to upload in {' and '.join(map(str, places(results)))}"
            typer.echo(", ".join([nothing, *left_out]))
            return
        if dry_run:
            would = f"{len(folders.waiting)} would be uploaded"
            lines = [*map(str, folders.waiting), ", ".join([would, *left_out])]
            typer.echo("\n".join(lines))
            return
        done = upload(folders.waiting, results, timeout)
        counts = [f"{len(done.uploaded)} uploaded", *left_out]
        typer.echo(", ".join([*counts, f"{len(done.failed)} failed"]))
        if done.failed:
            typer.echo(
                f"error: {done.reason}\nis the W&B server reachable? the same "
                "command tries again what failed",
                err=True,
            )
            raise typer.Exit(1)


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

        files = sorted(claims.glob("*/verdict.json"))
        verdicts = [verdict for file in files if (verdict := read_verdict(file))]
        if publish:
            addresses = built.publish(verdicts, project, entity)
            plain, text = addresses, "\n".join(addresses.values())
        else:
            shown = built.dashboard(verdicts, project, entity)
            plain, text = shown.plain(), built.outline(shown)
        if json:
            print_json(plain)
        else:
            typer.echo(text)
