"""The command that uploads what W&B logged offline: sync."""

from typing import Annotated

import typer

from normbench.cli.options import RESULTS, Results, exit_codes


def sync(
    results: Results = RESULTS,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be uploaded.")
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

        found = offline_runs(results)
        left_out = [
            f"{len(folders)} {why}"
            for folders, why in (
                (found.synced, "skipped, uploaded already"),
                (found.running, "left for later, running"),
            )
            if folders
        ]
        if not found.waiting:
            nothing = f"nothing to upload in {' and '.join(map(str, places(results)))}"
            typer.echo(", ".join([nothing, *left_out]))
            return
        if dry_run:
            for folder in found.waiting:
                typer.echo(str(folder))
            would = f"{len(found.waiting)} would be uploaded"
            typer.echo(", ".join([would, *left_out]))
            return
        outcome = upload(found.waiting, results, timeout)
        counts = [f"{len(outcome.uploaded)} uploaded", *left_out]
        typer.echo(", ".join([*counts, f"{len(outcome.failed)} failed"]))
        if outcome.failed:
            typer.echo(
                f"error: {outcome.reason}\nis the W&B server reachable? the same "
                "command tries again what failed",
                err=True,
            )
            raise typer.Exit(1)
