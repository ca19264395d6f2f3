"""Commands about claims: claim list, claim show, claim check."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normbench.cli.options import (
    CLAIMS,
    RESULTS,
    ConfigDir,
    Json,
    Modules,
    Results,
    completion_of,
    exit_codes,
    expanded,
)
from normbench.cli.sweep import RedoStale
from normbench.cli.tables import print_json, print_table
from normbench.cli.trials import (
    EngineOverrides,
    Workers,
    columns,
    command_line,
    compose_engine,
    observe,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from normbench.claims.check import Cost
    from normbench.claims.trial import Trial
    from normbench.verdicts.registration import Claim
    from normbench.verdicts.verdict import Verdict

app = typer.Typer(help="Sentences about norms, and their verdicts.")


class Budget(StrEnum):
    """How much of a claim a check does."""

    smoke = "smoke"
    quick = "quick"
    full = "full"


Output = Annotated[
    Path,
    typer.Option(
        "--output",
        callback=expanded,
        help="Folder of the verdicts, one for each claim.",
    ),
]


Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME...", autocompletion=completion_of("claim"), show_default=False
    ),
]
Everything = Annotated[bool, typer.Option("--all", help="Every claim.")]
CheckBudget = Annotated[
    Budget,
    typer.Option(help="smoke: does it run? quick: six seeds; full: as registered."),
]
ExtraArm = Annotated[
    str | None,
    typer.Option(
        "--arm",
        metavar="OVERRIDES",
        help="One more arm, reported separately, such as norm=mine",
    ),
]
FromRecords = Annotated[
    bool,
    typer.Option(
        "--from-records",
        help="Use the records beside the verdict in --output as finished runs.",
    ),
]


@app.command("list")
def list_(
    output: Output = CLAIMS, config_dir: ConfigDir = None, json: Json = False
) -> None:
    """List the claims, and the verdicts of full checks where there are any."""
    with exit_codes():
        from normbench.config.choices import choices
        from normbench.verdicts.registration import read_claim

        claims = [read_claim(name, config_dir) for name in choices("claim", config_dir)]
        verdicts = [_full_verdict(claim.name, output) for claim in claims]
        listed = list(zip(claims, verdicts, strict=True))
        if json:
            print_json([_plain_row(claim, verdict) for claim, verdict in listed])
            return
        _print_notice(verdicts)
        print_table([_table_row(*each) for each in listed], title="claims")


def _plain_row(claim: "Claim", verdict: "Verdict | None") -> dict[str, Any]:
    """A claim in the JSON list: null where there is no verdict."""
    return {
        "name": claim.name,
        "statement": claim.statement,
        "theorem": verdict.theorem if verdict else None,
        "mechanism": verdict.shown_mechanism if verdict else None,
        "outcome": verdict.shown_outcome if verdict else None,
        "changed": _changed(claim, verdict),
        # Designs, or only their `contrasts` that are named, and why.
        "withdrawn": [
            {"design": design.name, "contrasts": contrasts, "reason": reason}
            for design in (verdict.designs if verdict else ())
            for reason, contrasts in design.reasons.items()
        ],
        "findings": verdict.findings if verdict else {},
    }


def _table_row(claim: "Claim", verdict: "Verdict | None") -> dict[str, str]:
    from normbench.report import words

    changed = " (its yaml has changed since the verdict)" * _changed(claim, verdict)
    row = {"name": claim.name + changed, "statement": claim.statement}
    if verdict is None:
        return row | dict.fromkeys(("theorem", "mechanism", "outcome"), "-")
    finding = verdict.findings.get("statement")
    statement = words.with_finding(claim.statement, finding)
    return row | words.table_row(verdict)._asdict() | {"statement": statement}


def _print_notice(verdicts: "Sequence[Verdict | None]") -> None:
    from normbench.report import words
    from normbench.report.text.paragraph import paragraph

    if notice := words.withdrawals([v for v in verdicts if v is not None]):
        typer.echo(paragraph("note: ", notice, columns()) + "\n")


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(help="See `claim list`.", autocompletion=completion_of("claim")),
    ],
    output: Output = CLAIMS,
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Show what a claim registers: parts, design, margins, planned runs, cost."""
    with exit_codes():
        from dataclasses import asdict

        from normbench.claims.check import cost
        from normbench.claims.theorems import statement
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
        costs = {budget: cost(claim, budget) for budget in BUDGETS}
        verdict = _full_verdict(name, output)
        changed = _changed(claim, verdict)
        if json:
            plain = claim.model_dump(mode="json")
            plain |= {
                "registration": registration_hash(claim),
                "cost": {budget: asdict(each) for budget, each in costs.items()},
                "verdict": verdict and verdict.model_dump(mode="json"),
                "changed": changed,
            }
            print_json(plain)
            return
        statements = {each.check: statement(each.check) for each in claim.theorems}
        lines = [_cost(budget, each) for budget, each in costs.items()]
        _print_notice([verdict])
        finding = verdict.findings.get("statement") if verdict else None
        typer.echo(claim_text(claim, statements, lines, columns(), finding))
        if verdict:
            if changed:
                typer.echo("\nthe yaml has changed since this verdict:")
            typer.echo(f"\n{verdict_text(verdict, columns())}")


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
    """Do the missing runs of a claim, and judge it.

    Exit code 0 when the check ran to its end, whatever the verdict. The same command
    continues an interrupted check.
    """
    with exit_codes():
        from normbench.claims.check import prepare, require_committed, restore_records
        from normbench.claims.trial import Request
        from normbench.config.user_modules import import_modules
        from normbench.records import store
        from normbench.sweeps.round import Rounds

        import_modules(module or ())
        claims = _claims(names or (), everything, config_dir)
        for claim in claims:
            if budget == "full":
                require_committed(claim.name, config_dir)
        for claim in claims if from_records else ():
            restore_records(output / claim.name, results)
        rounds = Rounds(
            store.Results(results, tuple(module or ()), redo_stale), observe
        )
        requests = [
            Request(
                rounds=rounds,
                budget=budget.value,
                engine=compose_engine(engine, workers, config_dir),
                title=claim.name,
                config_dir=config_dir,
                frozen=_rates(claim, _full_verdict(claim.name, output)),
            )
            for claim in claims
        ]
        trials = [prepare(*asked, arm) for asked in zip(claims, requests, strict=True)]
        with rounds:
            verdicts = [
                _checked(claim, trial, results, output, write=not arm, json=json)
                for claim, trial in zip(claims, trials, strict=True)
            ]
        if json:
            plain = [verdict.model_dump(mode="json") for verdict in verdicts]
            print_json(plain)


def _checked(
    claim: "Claim", trial: "Trial", results: Path, output: Path, write: bool, json: bool
) -> "Verdict":
    """Check a claim, `write` its verdict, and print it unless all go out as JSON."""
    from normbench.claims.check import check, write_verdict
    from normbench.report.text.verdict import verdict_text
    from normbench.verdicts.remarks import with_remarks

    folder = output / claim.name
    verdict = check(claim, trial, command_line())
    path = write_verdict(verdict, results, folder) if write else None
    verdict = with_remarks(verdict, folder)
    if not json:
        typer.echo(verdict_text(verdict, columns()))
    if path is not None:
        typer.echo(f"\nwrote {path}\n", err=json)
    return verdict


def _claims(
    names: "Sequence[str]", everything: bool, config_dir: Path | None
) -> "list[Claim]":
    from normbench.config.choices import choices
    from normbench.errors import RequestError
    from normbench.verdicts.registration import read_claim

    if everything and names:
        raise RequestError(f"--all includes {', '.join(names)}; use one of the two")
    wanted = list(choices("claim", config_dir)) if everything else names
    if not wanted:
        raise RequestError("name a claim, or use --all; `claim list` shows the claims")
    return [read_claim(name, config_dir) for name in dict.fromkeys(wanted)]


def _full_verdict(name: str, output: Path) -> "Verdict | None":
    from normbench.verdicts.files import read_verdict

    return read_verdict(output / name / "verdict.json")


def _changed(claim: "Claim", verdict: "Verdict | None") -> bool:
    from normbench.verdicts.registration import registration_hash

    return verdict is not None and verdict.registration != registration_hash(claim)


def _rates(claim: "Claim", verdict: "Verdict | None") -> dict[str, dict[str, float]]:
    """The rates that a full check of the same registration chose, if not withdrawn."""
    if verdict is None or _changed(claim, verdict):
        return {}
    return {
        design.name: {cell.cell: cell.rate.lr for cell in design.cells}
        for design in verdict.designs
        if not design.reasons
    }


def _cost(budget: str, cost: "Cost") -> str:
    from normbench.cli.progress import duration

    runs, time = cost.tuning_runs + cost.test_runs, duration(cost.core_seconds / 2)
    return f"{budget:<6} {runs} runs, about {time} on two cores"
