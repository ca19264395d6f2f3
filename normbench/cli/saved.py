"""The part of `claim check` that judges saved records: --from-records."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from normbench.cli.tables import print_json, text_width
from normbench.cli.trials import command_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from normbench.verdicts.registration import Claim


def judge_again(
    chosen: "Sequence[Claim]",
    claims: Path,
    modules: "Sequence[str]",
    config_dir: Path | None,
    details: bool,
    json: bool,
) -> None:
    """Print new verdicts from saved records, and how they differ from the saved ones.

    Raises typer.Exit with code 1 if a verdict differs, and RequestError if a claim has
    no saved verdict.
    """
    from normbench.claims import saved
    from normbench.errors import RequestError
    from normbench.report.text.verdict import verdict_text
    from normbench.verdicts.folders import VERDICT, claim_folder, no_verdict, origin
    from normbench.verdicts.remarks import with_remarks

    judged = []
    for claim in chosen:
        if origin(claims, claim.name) is None:
            raise RequestError(
                f"{no_verdict(claims, claim.name)}, with which --from-records could "
                "compare; leave out --from-records to do the runs"
            )
        folder, command = claim_folder(claims, claim.name), command_line()
        verdict, differences = saved.judge_again(
            claim, folder, command, modules=modules, config_dir=config_dir
        )
        verdict = with_remarks(verdict, folder)
        judged.append(
            {
                "verdict": verdict.model_dump(mode="json"),
                "same": not differences,
                "differences": [difference._asdict() for difference in differences],
            }
        )
        if not json:
            typer.echo(verdict_text(verdict, text_width(), details=details))
            what = "another verdict than" if differences else "same verdict as"
            rest = "; old -> new:" if differences else ""
            typer.echo(f"\n{what} {folder / VERDICT}{rest}")
            for difference in differences:
                typer.echo(f"  {difference}")
            typer.echo()
    if json:
        print_json(judged)
    if not all(each["same"] for each in judged):
        raise typer.Exit(1)
