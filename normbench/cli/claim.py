"""The commands `claim list` and `claim show`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normbench.cli.options import (
    CLAIMS,
    VERDICTS,
    ConfigDir,
    Json,
    Modules,
    complete_group,
    exit_codes,
    path_option,
)
from normbench.cli.tables import print_json, print_table, text_width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from normbench.claims.check import Cost
    from normbench.verdicts.registration import Claim
    from normbench.verdicts.verdict import Verdict

app = typer.Typer(help="List, show and check claims about norms.")


Output = Annotated[Path, path_option("--output", VERDICTS)]
Name = Annotated[
    str,
    typer.Argument(
        metavar="CLAIM",
        help="A name that `claim list` prints.",
        autocompletion=complete_group("claim"),
    ),
]


@app.command("list")
def list_(
    output: Output = CLAIMS, config_dir: ConfigDir = None, json: Json = False
) -> None:
    """List the claims, with the verdicts of their full checks."""
    with exit_codes():
        from normbench.config.choices import choices
        from normbench.verdicts.registration import read_claim

        claims = [read_claim(name, config_dir) for name in choices("claim", config_dir)]
        verdicts = [full_verdict(claim.name, output) for claim in claims]
        if json:
            print_json(list(map(_plain_row, claims, verdicts)))
        else:
            _print_notice(verdicts)
            print_table(list(map(_table_row, claims, verdicts)), title="claims")


def _plain_row(claim: "Claim", verdict: "Verdict | None") -> dict[str, Any]:
    """Return a claim as JSON object. The values of a missing verdict are null."""
    return {
        "name": claim.name,
        "statement": claim.statement,
        "theorem": verdict.theorem if verdict else None,
        "mechanism": verdict.shown_mechanism if verdict else None,
        "outcome": verdict.shown_outcome if verdict else None,
        "changed": is_changed(claim, verdict),
        # Without `contrasts`, the whole design is withdrawn.
        "withdrawn": [
            {"design": design.name, "contrasts": contrasts, "reason": reason}
            for design in (verdict.designs if verdict else ())
            for reason, contrasts in design.reasons.items()
        ],
        "findings": verdict.findings if verdict else {},
    }


def _table_row(claim: "Claim", verdict: "Verdict | None") -> dict[str, str]:
    from normbench.report import words

    row = {"name": claim.name, "statement": claim.statement}
    if verdict is None:
        return row | dict.fromkeys(("theorem", "mechanism", "outcome"), "-")
    row |= words.table_row(verdict)._asdict()
    if is_changed(claim, verdict):
        row["name"] += " (its yaml has changed since the verdict)"
    finding = verdict.findings.get("statement")
    row["statement"] = words.with_finding(claim.statement, finding)
    return row


def _print_notice(verdicts: "Sequence[Verdict | None]") -> None:
    from normbench.report import words
    from normbench.report.text.paragraph import paragraph

    notice = words.withdrawals([verdict for verdict in verdicts if verdict is not None])
    if notice:
        typer.echo(paragraph("note: ", notice, text_width()) + "\n")


@app.command()
def show(
    name: Name,
    output: Output = CLAIMS,
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Show a registered claim, its planned runs and its verdict.

    The output has the theorems, designs and margins of the claim, the cost of each
    --budget, and the verdict of a full check if --output contains one.
    """
    with exit_codes():
        from dataclasses import asdict

        from normbench.claims import check, theorems
        from normbench.config.user_modules import import_modules
        from normbench.report.text.claim import claim_text
        from normbench.report.text.verdict import verdict_text
        from normbench.verdicts.registration import (
            BUDGETS,
            read_claim,
            registration_hash,
        )

        import_modules(module or ())
        claim = read_claim(name, config_dir)
        costs = {budget: check.cost(claim, budget) for budget in BUDGETS}
        verdict = full_verdict(name, output)
        changed = is_changed(claim, verdict)
        if json:
            plain = claim.model_dump(mode="json")
            plain |= {
                "registration": registration_hash(claim),
                "cost": {budget: asdict(cost) for budget, cost in costs.items()},
                "verdict": verdict and verdict.model_dump(mode="json"),
                "changed": changed,
            }
            print_json(plain)
            return
        statements = {
            theorem.check: theorems.statement(theorem.check)
            for theorem in claim.theorems
        }
        cost_lines = [_cost_line(budget, cost) for budget, cost in costs.items()]
        _print_notice([verdict])
        finding = verdict.findings.get("statement") if verdict else None
        width = text_width()
        typer.echo(claim_text(claim, statements, cost_lines, width, finding))
        if verdict:
            if changed:
                typer.echo("\nthe yaml has changed since this verdict:")
            typer.echo(f"\n{verdict_text(verdict, width)}")


def full_verdict(name: str, output: Path) -> "Verdict | None":
    """Return the saved verdict of a full check, or None."""
    from normbench.verdicts.files import read_verdict

    return read_verdict(output / name / "verdict.json")


def is_changed(claim: "Claim", verdict: "Verdict | None") -> bool:
    """Return whether the yaml of the claim has changed since the verdict."""
    from normbench.verdicts.registration import registration_hash

    return verdict is not None and verdict.registration != registration_hash(claim)


def _cost_line(budget: str, cost: "Cost") -> str:
    from normbench.cli.progress import duration

    runs, time = cost.tuning_runs + cost.test_runs, duration(cost.core_seconds / 2)
    if cost.first_test_runs == cost.test_runs:
        return f"{budget:<6} {runs} runs, about {time} on two cores"
    first_runs = cost.tuning_runs + cost.first_test_runs
    first_time = duration(cost.first_core_seconds / 2)
    counts, times = f"from {first_runs} to {runs} runs", f"{first_time} to {time}"
    return f"{budget:<6} {counts}, about {times} on two cores"
