"""The commands `claim list`, `claim show` and `claim check`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normbench.cli.options import (
    CLAIMS,
    RESULTS,
    VERDICTS,
    ConfigDir,
    Json,
    Modules,
    Results,
    complete_group,
    exit_codes,
    path_option,
)
from normbench.cli.sweep import RedoStale
from normbench.cli.tables import print_json, print_table, text_width
from normbench.cli.trials import (
    EngineOverrides,
    Workers,
    command_line,
    compose_engine,
    make_rounds,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from normbench.claims.check import Cost
    from normbench.claims.trial import Trial
    from normbench.verdicts.registration import Claim
    from normbench.verdicts.verdict import Verdict

app = typer.Typer(help="List, show and check claims about norms.")


class Budget(StrEnum):
    """The choices of --budget: how many runs a check does, and how long they are."""

    smoke = "smoke"
    quick = "quick"
    full = "full"


Output = Annotated[Path, path_option("--output", VERDICTS)]
Name = Annotated[
    str,
    typer.Argument(
        metavar="CLAIM",
        help="A name that `claim list` prints.",
        autocompletion=complete_group("claim"),
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CLAIM",
        help="Names that `claim list` prints.",
        autocompletion=complete_group("claim"),
        show_default=False,
    ),
]
Everything = Annotated[bool, typer.Option("--all", help="Check every claim.")]
CheckBudget = Annotated[
    Budget,
    typer.Option(
        help="smoke: runs of ten steps, to test that they work. quick: a reduced check "
        "with six seeds. full: all runs as registered."
    ),
]
ExtraArm = Annotated[
    str | None,
    typer.Option(
        "--arm",
        metavar="OVERRIDES",
        help="Add an arm, such as norm=mine. Its contrasts are exploratory, and the "
        "verdict is not saved.",
    ),
]
FromRecords = Annotated[
    bool,
    typer.Option(
        "--from-records",
        help="Restore the runs from the records that a full check saved in --output, "
        "instead of doing them again.",
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
        verdicts = [_full_verdict(claim.name, output) for claim in claims]
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
        "changed": _changed(claim, verdict),
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
    if _changed(claim, verdict):
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
        verdict = _full_verdict(name, output)
        changed = _changed(claim, verdict)
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


@app.command("check")
def check_(
    names: Names = None,
    everything: Everything = False,
    budget: CheckBudget = Budget.quick,
    arm: ExtraArm = None,
    from_records: FromRecords = False,
    engine: EngineOverrides = None,
    workers: Workers = None,
    redo_stale: RedoStale = False,
    results: Results = RESULTS,
    output: Output = CLAIMS,
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Do the missing runs of claims, and print the verdicts.

    Each verdict is saved in --output; a full check also saves its records there. The
    same command continues an interrupted check.

    Exit code: 0 if every check ended, whatever the verdicts; 2 if the request was
    wrong; 130 after Ctrl-C, SIGTERM or SIGHUP; 1 after any other error.
    """
    with exit_codes():
        from normbench.claims.check import prepare, require_committed, restore_records
        from normbench.claims.trial import Request

        rounds = make_rounds(results, module, redo_stale)
        claims = _claims(names or (), everything, config_dir)
        if budget is Budget.full:
            for claim in claims:
                require_committed(claim.name, config_dir)
        if from_records:
            for claim in claims:
                restore_records(output / claim.name, results)
        chosen_engine = compose_engine(engine, workers, config_dir)
        trials = []
        for claim in claims:
            request = Request(
                rounds=rounds,
                budget=budget.value,
                engine=chosen_engine,
                title=claim.name,
                config_dir=config_dir,
                frozen=_rates(claim, _full_verdict(claim.name, output)),
            )
            trials.append(prepare(claim, request, arm))
        with rounds:
            verdicts = [
                _checked(claim, trial, results, output, write=not arm, json=json)
                for claim, trial in zip(claims, trials, strict=True)
            ]
        if json:
            print_json([verdict.model_dump(mode="json") for verdict in verdicts])


def _checked(
    claim: "Claim", trial: "Trial", results: Path, output: Path, write: bool, json: bool
) -> "Verdict":
    """Check a claim and return its verdict.

    The verdict is saved if `write`, and printed unless `json`.
    """
    from normbench.claims.check import check, write_verdict
    from normbench.report.text.verdict import verdict_text
    from normbench.verdicts.remarks import with_remarks

    folder = output / claim.name
    verdict = check(claim, trial, command_line())
    path = write_verdict(verdict, results, folder) if write else None
    verdict = with_remarks(verdict, folder)
    if not json:
        typer.echo(verdict_text(verdict, text_width()))
    if path is not None:
        typer.echo(f"\nwrote {path}\n", err=json)
    return verdict


def _claims(
    names: "Sequence[str]", everything: bool, config_dir: Path | None
) -> "list[Claim]":
    """Return the claims to check.

    Raises RequestError if names and --all are both given, or neither of them.
    """
    from normbench.config.choices import choices
    from normbench.errors import RequestError
    from normbench.verdicts.registration import read_claim

    if everything and names:
        raise RequestError(f"use either --all or {' '.join(names)}, not both")
    if everything:
        names = list(choices("claim", config_dir))
    if not names:
        raise RequestError("name a claim, or use --all; `claim list` lists the claims")
    return [read_claim(name, config_dir) for name in dict.fromkeys(names)]


def _full_verdict(name: str, output: Path) -> "Verdict | None":
    """Return the saved verdict of a full check, or None."""
    from normbench.verdicts.files import read_verdict

    return read_verdict(output / name / "verdict.json")


def _changed(claim: "Claim", verdict: "Verdict | None") -> bool:
    """Return whether the yaml of the claim has changed since the verdict."""
    from normbench.verdicts.registration import registration_hash

    return verdict is not None and verdict.registration != registration_hash(claim)


def _rates(claim: "Claim", verdict: "Verdict | None") -> dict[str, dict[str, float]]:
    """Return the learning rates that a full check of the same registration chose.

    The result is design -> cell -> rate. Designs with a withdrawn result are left out.
    """
    if verdict is None or _changed(claim, verdict):
        return {}
    return {
        design.name: {cell.cell: cell.rate.lr for cell in design.cells}
        for design in verdict.designs
        if not design.reasons
    }


def _cost_line(budget: str, cost: "Cost") -> str:
    from normbench.cli.progress import duration

    runs, time = cost.tuning_runs + cost.test_runs, duration(cost.core_seconds / 2)
    if cost.first_test_runs == cost.test_runs:
        return f"{budget:<6} {runs} runs, about {time} on two cores"
    first_runs = cost.tuning_runs + cost.first_test_runs
    first_time = duration(cost.first_core_seconds / 2)
    counts, times = f"from {first_runs} to {runs} runs", f"{first_time} to {time}"
    return f"{budget:<6} {counts}, about {times} on two cores"
