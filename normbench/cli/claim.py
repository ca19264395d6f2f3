"""Commands about claims: claim list, claim show, claim check; and compare."""

import json as jsonlib
import shlex
import sys
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
    Overrides,
    Results,
    exit_codes,
    expanded,
)
from normbench.cli.sweep import Arms, RedoStale
from normbench.cli.tables import print_table, width

if TYPE_CHECKING:
    from normbench.claims.check import Cost
    from normbench.config.schema import Engine
    from normbench.sweeps.observer import SweepObserver
    from normbench.sweeps.plan import Plan, PlanState
    from normbench.verdicts.registration import Claim
    from normbench.verdicts.verdict import Verdict

app = typer.Typer(help="Sentences about norms, and their verdicts.")

WIDEST = 120
"""Columns of text that is still easy to read."""


class Budget(StrEnum):
    """How much of a claim is done."""

    smoke = "smoke"
    quick = "quick"
    full = "full"


Output = Annotated[
    Path,
    typer.Option(
        "--output", callback=expanded, help="Folder of the verdicts, one a claim."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, help="Processes.  [default: the cores]", show_default=False
    ),
]


EngineOverrides = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="OVERRIDES",
        help='What does the runs, such as "engine=ray engine.address=auto".',
    ),
]


def _complete(incomplete: str) -> list[str]:
    from normbench.config.choices import choices

    return [name for name in choices("claim") if name.startswith(incomplete)]


@app.command("list")
def list_(
    output: Output = CLAIMS, config_dir: ConfigDir = None, json: Json = False
) -> None:
    """List the claims, and the verdicts of full checks where there are any."""
    with exit_codes():
        from normbench.config.choices import choices
        from normbench.report import words
        from normbench.report.text.paragraph import paragraph
        from normbench.verdicts.registration import read_claim

        rows: list[dict[str, Any]] = []
        for name in choices("claim", config_dir):
            claim = read_claim(name, config_dir)
            verdict = _full_verdict(name, output)
            rows.append(
                {
                    "name": name,
                    "statement": claim.statement,
                    "theorem": verdict.theorem if verdict else None,
                    "mechanism": verdict.shown_mechanism if verdict else None,
                    "outcome": verdict.shown_outcome if verdict else None,
                    "changed": _changed(claim, verdict),
                    "withdrawn": _withdrawn(verdict),
                    "findings": verdict.findings if verdict else {},
                }
            )
        if json:
            typer.echo(jsonlib.dumps(rows, indent=2))
            return
        verdicts = []
        for row in rows:
            verdict = _full_verdict(row["name"], output)
            if verdict is not None:
                found = verdict.findings.get("statement")
                statement = words.with_finding(row["statement"], found)
                row |= words.row(verdict)._asdict() | {"statement": statement}
                verdicts.append(verdict)
            if row.pop("changed"):
                row["name"] += " (its yaml has changed since the verdict)"
            del row["withdrawn"], row["findings"]
        if withdrawn := words.notice(verdicts):
            typer.echo(paragraph("note: ", withdrawn, _columns()) + "\n")
        shown = [{k: "-" if v is None else v for k, v in r.items()} for r in rows]
        print_table(shown, title="claims")


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(help="Of `claim list`.", autocompletion=_complete)
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
        from normbench.report import words
        from normbench.report.text.claim import text as registration_text
        from normbench.report.text.paragraph import paragraph
        from normbench.report.text.verdict import text
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
            plain |= {"registration": registration_hash(claim)}
            plain |= {"cost": {budget: asdict(each) for budget, each in costs.items()}}
            plain |= {"verdict": verdict and verdict.model_dump(mode="json")}
            plain |= {"changed": changed}
            typer.echo(jsonlib.dumps(plain, indent=2))
            return
        said = {each.check: statement(each.check) for each in claim.theorems}
        lines = [_cost(budget, each) for budget, each in costs.items()]
        if withdrawn := words.notice([verdict] if verdict else []):
            typer.echo(paragraph("note: ", withdrawn, _columns()) + "\n")
        found = verdict.findings.get("statement") if verdict else None
        typer.echo(registration_text(claim, said, lines, _columns(), found))
        if verdict:
            if changed:
                typer.echo("\nthe yaml has changed since this verdict:")
            typer.echo(f"\n{text(verdict, _columns())}")


@app.command()
def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME...", autocompletion=_complete, show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every claim.")] = False,
    budget: Annotated[
        Budget,
        typer.Option(
            help="smoke: it runs, minutes; quick: six seeds; full: as registered."
        ),
    ] = Budget.quick,
    arm: Annotated[
        str | None,
        typer.Option(
            "--arm",
            metavar="OVERRIDES",
            help="One more arm, reported apart, such as norm=mine",
        ),
    ] = None,
    from_records: Annotated[
        bool,
        typer.Option(
            "--from-records",
            help="Take the runs that the verdict in --output rests on for done.",
        ),
    ] = False,
    engine: EngineOverrides = None,
    workers: Workers = None,
    redo_stale: RedoStale = False,
    results: Results = RESULTS,
    output: Output = CLAIMS,
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Do what is missing of a claim's runs, and judge it.

    Exit code 0 when the check ran to its end, whatever the verdict. An interrupted
    check goes on when it is asked for again.
    """
    with exit_codes():
        from normbench.claims import check as checking
        from normbench.claims.trial import Request
        from normbench.config.choices import choices
        from normbench.config.user_modules import import_modules
        from normbench.errors import RequestError
        from normbench.records.store import Results
        from normbench.report.text.verdict import text
        from normbench.sweeps.round import Rounds
        from normbench.verdicts.registration import read_claim
        from normbench.verdicts.remarks import with_remarks

        import_modules(module or ())
        if everything and names:
            raise RequestError(
                f"--all has {', '.join(names)} in it; say one of the two"
            )
        wanted = list(choices("claim", config_dir)) if everything else names or []
        if not wanted:
            raise RequestError("name a claim, or say --all; `claim list` has them")
        wanted = list(dict.fromkeys(wanted))
        registered = [read_claim(name, config_dir) for name in wanted]
        if budget == "full":
            for claim in registered:
                checking.require_committed(claim.name, config_dir)
        if from_records:
            for claim in registered:
                checking.restore_records(output / claim.name, results)
        asked = _engine(engine, workers, config_dir)
        runs = Results(results, tuple(module or ()), redo_stale)
        rounds = Rounds(runs, _observe)
        trials = []
        for claim in registered:
            request = Request(
                rounds=rounds,
                budget=budget.value,
                engine=asked,
                title=claim.name,
                config_dir=config_dir,
                frozen=_rates(claim, _full_verdict(claim.name, output)),
            )
            trials.append(checking.prepare(claim, request, arm))
        verdicts = []
        with rounds:
            for claim, trial in zip(registered, trials, strict=True):
                verdict = checking.check(claim, trial, _again())
                wrote = ""
                if not arm:
                    path = checking.write_verdict(verdict, results, output / claim.name)
                    wrote = f"\nwrote {path}\n"
                verdict = with_remarks(verdict, output / claim.name)
                verdicts.append(verdict)
                if not json:
                    typer.echo(text(verdict, _columns()))
                if wrote:
                    typer.echo(wrote, err=json)
        if json:
            plain = [verdict.model_dump(mode="json") for verdict in verdicts]
            typer.echo(jsonlib.dumps(plain, indent=2))


def compare(
    overrides: Overrides = None,
    arm: Arms = None,
    margin: Annotated[
        float, typer.Option(help="Differences below this count as zero.", min=0)
    ] = 0.01,
    metric: Annotated[str, typer.Option(help="Lower is better.")] = "test/error",
    rates: Annotated[
        str, typer.Option(help="Learning rates to try for each arm and level.")
    ] = "0.05,0.1,0.2",
    seeds: Annotated[int, typer.Option(min=6)] = 8,
    gate: Annotated[
        float, typer.Option(help="An arm trained if its training metric is below.")
    ] = 0.5,
    engine: EngineOverrides = None,
    workers: Workers = None,
    redo_stale: RedoStale = False,
    results: Results = RESULTS,
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Compare norms on a question of your own: rates tuned, a gate, intervals.

    The first arm is what the others are compared with; `supported` says that an arm is
    better than it, `refuted` that it is worse. Exploratory: nothing was registered.
    """
    with exit_codes():
        from normbench.claims import check as checking
        from normbench.claims.comparison import comparison
        from normbench.claims.trial import Request
        from normbench.config.user_modules import import_modules
        from normbench.errors import RequestError
        from normbench.records.store import Results
        from normbench.report.text.verdict import text
        from normbench.sweeps.round import Rounds

        import_modules(module or ())
        try:
            tried = [float(word) for word in rates.split(",")]
        except ValueError:
            raise RequestError(
                f"--rates {rates!r} is not a list of numbers, such as 0.05,0.1,0.2"
            ) from None
        claim = comparison(
            arm or (),
            overrides or (),
            metric=metric,
            margin=margin,
            rates=tried,
            seeds=seeds,
            gate=gate,
            config_dir=config_dir,
        )
        runs = Results(results, tuple(module or ()), redo_stale)
        rounds = Rounds(runs, _observe)
        request = Request(
            rounds=rounds,
            budget="full",
            engine=_engine(engine, workers, config_dir),
            title="compare",
            config_dir=config_dir,
        )
        trial = checking.prepare(claim, request)
        trial.require_distinct_cells()
        with rounds:
            verdict = checking.check(claim, trial, _again())
        plain = verdict.model_dump_json(indent=2)
        typer.echo(plain if json else text(verdict, _columns()))


def _engine(
    overrides: str | None, workers: int | None, config_dir: Path | None
) -> "Engine":
    from normbench.config.composition import compose_engine
    from normbench.config.overrides import words

    engine = compose_engine(words(overrides or "", "--engine"), config_dir)
    return engine.model_copy(update={"workers": workers} if workers else {})


def _observe(title: str, plan: "Plan", state: "PlanState") -> "SweepObserver":
    from normbench.cli.console import Terminal
    from normbench.cli.progress import SweepProgress

    if state.missing:
        done = f"{len(state.finished)} of {len(plan.runs)} are done"
        typer.echo(f"{title}, {done}", err=True)
    return SweepProgress(Terminal(stderr=True))


def _again() -> str:
    return shlex.join(["normbench", *sys.argv[1:]])


def _full_verdict(name: str, output: Path) -> "Verdict | None":
    from normbench.verdicts.verdict import read_verdict

    return read_verdict(output / name / "verdict.json")


def _withdrawn(verdict: "Verdict | None") -> list[dict[str, Any]]:
    """What is withdrawn: designs, or only the `contrasts` that are named, and why."""
    return [
        {"design": design.name, "contrasts": contrasts, "reason": reason}
        for design in (verdict.designs if verdict else ())
        for reason, contrasts in design.reasons.items()
    ]


def _changed(claim: "Claim", verdict: "Verdict | None") -> bool:
    from normbench.verdicts.registration import registration_hash

    return verdict is not None and verdict.registration != registration_hash(claim)


def _rates(claim: "Claim", verdict: "Verdict | None") -> dict[str, dict[str, float]]:
    """The rates that a full check of this very registration chose, and that stand."""
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


def _columns() -> int:
    return min(width(), WIDEST)
