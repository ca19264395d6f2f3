"""The commands `sync` and `dashboard`, which use Weights & Biases (W&B)."""

from typing import Annotated

import typer

from normbench.cli.options import CLAIMS, RESULTS, Claims, Json, Results, exit_codes
from normbench.cli.tables import print_json


def sync(
    results: Results = RESULTS,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print which runs would be uploaded.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=1,
            help="Stop if nothing was uploaded for this many seconds.",
        ),
    ] = 120,
) -> None:
    """Upload the runs that W&B logged offline.

    Runs that are uploaded already, or that are running now, are left out. If an upload
    fails, the exit code is 1, and the same command tries it again.
    """
    with exit_codes():
        from normbench.records.sync import offline_runs, places, upload

        folders = offline_runs(results)
        left_out = []
        if folders.synced:
            left_out.append(f"{len(folders.synced)} already uploaded")
        if folders.running:
            left_out.append(f"{len(folders.running)} still running")
        if not folders.waiting:
            searched = " and ".join(map(str, places(results)))
            typer.echo(", ".join([f"nothing to upload in {searched}", *left_out]))
            return
        if dry_run:
            summary = f"{len(folders.waiting)} would be uploaded"
            lines = [*map(str, folders.waiting), ", ".join([summary, *left_out])]
            typer.echo("\n".join(lines))
            return
        done = upload(folders.waiting, results, timeout)
        counts = [f"{len(done.uploaded)} uploaded", *left_out]
        typer.echo(", ".join([*counts, f"{len(done.failed)} failed"]))
        if done.failed:
            typer.echo(
                f"error: {done.reason}\nis the W&B server reachable? the same command "
                "tries the failed uploads again",
                err=True,
            )
            raise typer.Exit(1)


def dashboard(
    publish: Annotated[
        bool,
        typer.Option("--publish", help="Save a new workspace and a new report to W&B."),
    ] = False,
    project: Annotated[
        str,
        typer.Option(
            "--project",
            metavar="NAME",
            envvar="WANDB_PROJECT",
            help="W&B project of the runs.",
        ),
    ] = "normbench",
    entity: Annotated[
        str | None,
        typer.Option(
            "--entity",
            metavar="NAME",
            envvar="WANDB_ENTITY",
            help="W&B user or team that owns the project.",
            show_default="your default entity",
        ),
    ] = None,
    claims: Claims = CLAIMS,
    json: Json = False,
) -> None:
    """Build a W&B workspace and a W&B report about a project.

    Without --publish, nothing is saved: the command prints the sections and panels of
    both, or with --json the objects that W&B's client would send. The runs must be in
    the project: train with tracker=wandb, then upload with `normbench sync`.
    """
    with exit_codes():
        from normbench.report import dashboard as builder
        from normbench.verdicts.files import read_verdict
        from normbench.verdicts.folders import VERDICT, claim_folder, judged_claims

        folders = [claim_folder(claims, name) for name in judged_claims(claims)]
        files = [folder / VERDICT for folder in folders]
        verdicts = [verdict for file in files if (verdict := read_verdict(file))]
        if publish:
            addresses = builder.publish(verdicts, project, entity)
            plain, text = addresses, "\n".join(addresses.values())
        else:
            drafts = builder.dashboard(verdicts, project, entity)
            plain, text = drafts.plain(), builder.outline(drafts)
        if json:
            print_json(plain)
        else:
            typer.echo(text)
