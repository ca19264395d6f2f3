"""The commands `claim list` and `claim show`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normbench.cli.options import (
    CLAIMS,
    Claims,
    ConfigDir,
    Json,
    Modules,
    complete_group,
    exit_codes,
)
from normbench.cli.tables import print_json, print_table, text_width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from normbench.claims.check import Cost
    from normbench.verdicts.folders import Origin
    from normbench.verdicts.registration import Claim
    from normbench.verdicts.verdict import Verdict

app = typer.Typer(
    name="claim", help="List, show and check claims about norms.", no_args_is_help=True
)

Name = Annotated[
    str,
    typer.Argument(
        metavar="CLAIM",
        help="A name that `claim list` prints.",
        autocompletion=complete_group("claim"),
    ),
]


Details = Annotated[
    bool,
    typer.Option(
        "--details", help="Show all theorems, cells, learning rates and contrasts too."
    ),
]


def list_(
    claims: Claims = CLAIMS, config_dir: ConfigDir = None, json: Json = False
) -> None:
    """List the claims, with the verdicts of full checks."""
    with exit_codes():
        from normbench.config.choices import choices
        from normbench.verdicts.folders import origin
        from normbench.verdicts.registration import read_claim

        names = choices("claim", config_dir)
        registered = [read_claim(name, config_dir) for name in names]
        verdicts = [full_verdict(claim.name, claims) for claim in registered]
        origins = [origin(claims, claim.name) for claim in registered]
        if json:
            print_json(list(map(_plain_row, registered, verdicts, origins)))
        else:
            _print_notice(verdicts, origins, claims)
            print_table(list(map(_table_row, registered, verdicts)), title="claims")


def _plain_row(
    claim: "Claim", verdict: "Verdict | None", origin: "Origin | None"
) -> dict[str, Any]:
    """Return a claim as JSON object. The values of a missing verdict are null."""
    return {
        "name": claim.name,
        "statement": claim.statement,
        "answer": verdict.answer if verdict else None,
        "summary": verdict.summary if verdict else None,
        "parts": [
            part.model_dump(mode="json", exclude={"bearings"})
            for part in (verdict.parts if verdict else ())
        ],
        "verdict_from": origin,
        "changed": is_changed(claim, verdict),
    }


def _table_row(claim: "Claim", verdict: "Verdict | None") -> dict[str, str]:
    from normbench.report import words

    row = {"name": claim.name, "statement": claim.statement}
    row |= {"right?": "-", "what was found": "no verdict yet"}
    if verdict is not None:
        row |= {"right?": verdict.answer}
        row["what was found"] = verdict.summary or words.headlines(verdict)
    if is_changed(claim, verdict):
        row["name"] += " (its yaml has changed since the verdict)"
    return row


def _print_notice(
    verdicts: "Sequence[Verdict | None]",
    origins: "Sequence[Origin | None]",
    claims: Path,
) -> None:
    """Print which headlines are withdrawn, and which verdicts are the user's own."""
    from normbench.report import words
    from normbench.report.text.paragraph import paragraph

    judged = [verdict for verdict in verdicts if verdict is not None]
    own = [
        verdict.claim
        for verdict, origin in zip(verdicts, origins, strict=True)
        if verdict is not None and origin == "folder"
    ]
    notices = [words.withdrawals(judged)]
    if "package" in origins and own:
        notices.append(
            f"{claims} has the verdict of {', '.join(own)}; the other verdicts are "
            "those of the package."
        )
    elif "package" in origins:
        notices.append(
            "These verdicts are those of the package. The verdicts of your own checks "
            f"would be in {claims}."
        )
    for notice in notices:
        if notice:
            typer.echo(paragraph("note: ", notice, text_width()) + "\n")


def show(
    name: Name,
    claims: Claims = CLAIMS,
    config_dir: ConfigDir = None,
    module: Modules = None,
    details: Details = False,
    json: Json = False,
) -> None:
    """Show the verdict of a claim, and what a check costs.

    Each part has a headline and a finding. They are those of your full check in
    --claims, or else those of the package. --details adds the registration (theorems,
    designs, margins) and all numbers of the verdict.
    """
    with exit_codes():
        from dataclasses import asdict

        from normbench.claims import check, theorems
        from normbench.report.text.claim import claim_text
        from normbench.report.text.verdict import verdict_text
        from normbench.system.imports import import_modules
        from normbench.verdicts.folders import origin
        from normbench.verdicts.registration import (
            BUDGETS,
            read_claim,
            registration_hash,
        )

        import_modules(module or ())
        claim = read_claim(name, config_dir)
        costs = {budget: check.cost(claim, budget) for budget in BUDGETS}
        verdict = full_verdict(name, claims)
        changed = is_changed(claim, verdict)
        if json:
            plain = claim.model_dump(mode="json")
            plain |= {
                "registration": registration_hash(claim),
                "cost": {budget: asdict(cost) for budget, cost in costs.items()},
                "answer": verdict and verdict.answer,
                "verdict": verdict and verdict.model_dump(mode="json"),
                "verdict_from": origin(claims, name),
                "changed": changed,
            }
            print_json(plain)
            return
        statements = {
            theorem.check: theorems.statement(theorem.check)
            for theorem in claim.theorems
        }
        cost_lines = [_cost_line(budget, cost) for budget, cost in costs.items()]
        width = text_width()
        blocks = []
        if details or verdict is None:
            blocks.append(claim_text(claim, statements, cost_lines, width))
        if changed:
            blocks.append("the yaml has changed since this verdict:")
        blocks.append(_origin_line(claims, name))
        if verdict:
            blocks.append(verdict_text(verdict, width, details=details))
            if not details:
                more = "--details shows the registration and all numbers"
                blocks.append("\n".join([*cost_lines, more]))
        typer.echo("\n\n".join(block for block in blocks if block))


def _origin_line(claims: Path, name: str) -> str:
    """Return where the verdict of a claim is from, if it is not in the user's folder.

    The line is "" if it is. It has no "note:", which begins the limits of a verdict.
    """
    from normbench.report.text.paragraph import paragraph
    from normbench.verdicts.folders import VERDICT, no_verdict, origin

    where = origin(claims, name)
    if where == "folder":
        return ""
    line = no_verdict(claims, name)
    if where == "package":
        yours = f"yours would be in {claims / name / VERDICT}"
        line = f"This is the verdict of the package; {yours}."
    return paragraph("", line, text_width())


def full_verdict(name: str, claims: Path) -> "Verdict | None":
    """Return the verdict of a full check in the folder `claims` or in the package.

    The verdict is None if both have none.
    """
    from normbench.verdicts.files import read_verdict
    from normbench.verdicts.folders import VERDICT, claim_folder

    return read_verdict(claim_folder(claims, name) / VERDICT)


def is_changed(claim: "Claim", verdict: "Verdict | None") -> bool:
    """Return whether the yaml of the claim has changed since the verdict."""
    from normbench.verdicts.registration import registration_hash

    return verdict is not None and verdict.registration != registration_hash(claim)


def _cost_line(budget: str, cost: "Cost") -> str:
    from normbench.cli.progress import duration

    runs, time = cost.runs, duration(cost.core_seconds / 2)
    if cost.first_runs == cost.runs:
        return f"{budget:<6} {runs} runs, about {time} on two cores"
    first_time = duration(cost.first_core_seconds / 2)
    counts, times = f"from {cost.first_runs} to {runs} runs", f"{first_time} to {time}"
    return f"{budget:<6} {counts}, about {times} on two cores"
