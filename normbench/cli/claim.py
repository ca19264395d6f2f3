"""Commands about claims: claim list, claim show, claim check; and compare."""

import json as jsonlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normbench.cli.options import (
    RESULTS,
    ConfigDir,
    Json,
    Modules,
    Overrides,
    Results,
    exit_codes,
)
from normbench.cli.sweep import Arms
from normbench.cli.tables import print_table

if TYPE_CHECKING:
    from normbench.claims import Verdict
    from normbench.progress import SweepObserver
    from normbench.registration import BudgetName, Claim

app = typer.Typer(help="Sentences about norms, and their verdicts.")

CLAIMS = Path("results/claims")


class Budget(StrEnum):
    """How much of a claim is done."""

    smoke = "smoke"
    quick = "quick"
    full = "full"


Output = Annotated[
    Path, typer.Option("--output", help="Folder of the verdicts, one a claim.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, help="Processes.  [default: the cores]", show_default=False
    ),
]


def _complete(incomplete: str) -> list[str]:
    from normbench.choices import choices

    return [name for name in choices("claim") if name.startswith(incomplete)]


@app.command("list")
def list_(
    output: Output = CLAIMS, config_dir: ConfigDir = None, json: Json = False
) -> None:
    """List the claims, and the verdicts of full checks where there are any."""
    with exit_codes():
        from normbench.choices import choices
        from normbench.registration import read_claim

        rows: list[dict[str, Any]] = []
        for name in choices("claim", config_dir):
            claim = read_claim(name, config_dir)
            verdict = _full_verdict(name, output)
            parts = ("theorem", "mechanism", "outcome")
            rows.append(
                {
                    "name": name,
                    "statement": claim.statement,
                    **{p: getattr(verdict, p) if verdict else None for p in parts},
                    "changed": _changed(claim, verdict),
                }
            )
        if json:
            typer.echo(jsonlib.dumps(rows, indent=2))
            return
        for row in rows:
            if row.pop("changed"):
                row["name"] += " (the yaml has changed since)"
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

        from normbench.check import cost
        from normbench.provenance import import_modules
        from normbench.registration import BUDGETS, read_claim, registration_hash

        import_modules(module or ())
        claim = read_claim(name, config_dir)
        costs = {budget: asdict(cost(claim, budget)) for budget in BUDGETS}
        if json:
            plain = claim.model_dump(mode="json")
            plain |= {"registration": registration_hash(claim), "cost": costs}
            typer.echo(jsonlib.dumps(plain, indent=2))
        else:
            _print_claim(claim, costs)
            verdict = _full_verdict(name, output)
            if verdict:
                from normbench.report.verdicts import text

                if _changed(claim, verdict):
                    typer.echo("\nthe yaml has changed since this verdict:")
                typer.echo(f"\n{text(verdict)}")


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
    workers: Workers = None,
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
        from normbench import check as checking
        from normbench.choices import choices
        from normbench.errors import RequestError
        from normbench.provenance import import_modules
        from normbench.registration import read_claim
        from normbench.report.verdicts import text
        from normbench.schema import LocalEngine

        import_modules(module or ())
        wanted = list(choices("claim", config_dir)) if everything else names or []
        if not wanted:
            raise RequestError("name a claim, or say --all; `claim list` has them")
        registered = [read_claim(name, config_dir) for name in wanted]
        if budget == "full":
            for claim in registered:
                checking.require_committed(claim.name, config_dir)
        verdicts = []
        for claim in registered:
            known = _full_verdict(claim.name, output)
            request = checking.Request(
                results=results,
                budget=budget.value,
                engine=LocalEngine(name="local", workers=workers, timeout=None),
                observe=_observe(claim.name),
                config_dir=config_dir,
                modules=module or (),
                frozen=_rates(known),
            )
            asked = checking.with_arm(claim, arm) if arm else claim
            verdict = checking.check(asked, request, _again())
            verdicts.append(verdict)
            if not arm:
                path = checking.write_verdict(verdict, results, output / claim.name)
            if not json:
                typer.echo(text(verdict))
                typer.echo("" if arm else f"\nwrote {path}\n")
        if json:
            plain = [verdict.model_dump(mode="json") for verdict in verdicts]
            typer.echo(jsonlib.dumps(plain, indent=2))


def compare(
    overrides: Overrides = None,
    arm: Arms = None,
    margin: Annotated[
        float, typer.Option(help="A smaller difference is none.", min=0)
    ] = 0.01,
    metric: Annotated[str, typer.Option(help="Lower is better.")] = "test/error",
    rates: Annotated[
        str, typer.Option(help="Learning rates to try for each arm and level.")
    ] = "0.05,0.1,0.2",
    seeds: Annotated[int, typer.Option(min=6)] = 8,
    gate: Annotated[
        float, typer.Option(help="An arm trained if its training metric is below.")
    ] = 0.5,
    workers: Workers = None,
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
        from normbench import check as checking
        from normbench.errors import RequestError
        from normbench.provenance import import_modules
        from normbench.report.verdicts import text
        from normbench.schema import LocalEngine

        import_modules(module or ())
        try:
            tried = [float(word) for word in rates.split(",")]
        except ValueError:
            raise RequestError(
                f"--rates {rates!r} is not a list of numbers, such as 0.05,0.1,0.2"
            ) from None
        claim = checking.comparison(
            arm or (),
            overrides or (),
            metric=metric,
            margin=margin,
            rates=tried,
            seeds=seeds,
            gate=gate,
        )
        request = checking.Request(
            results=results,
            budget="full",
            engine=LocalEngine(name="local", workers=workers, timeout=None),
            observe=_observe("compare"),
            config_dir=config_dir,
            modules=module or (),
        )
        verdict = checking.check(claim, request, _again())
        typer.echo(verdict.model_dump_json(indent=2) if json else text(verdict))


def _observe(what: str) -> "Callable[[str], SweepObserver]":
    def observe(part: str) -> "SweepObserver":
        from rich.console import Console

        from normbench.progress import SweepProgress

        typer.echo(f"{what}: {part}", err=True)
        return SweepProgress(Console(stderr=True))

    return observe


def _again() -> str:
    return shlex.join(["normbench", *sys.argv[1:]])


def _full_verdict(name: str, output: Path) -> "Verdict | None":
    from normbench.claims import read_verdict

    return read_verdict(output / name / "verdict.json")


def _changed(claim: "Claim", verdict: "Verdict | None") -> bool:
    from normbench.registration import registration_hash

    return verdict is not None and verdict.registration != registration_hash(claim)


def _rates(verdict: "Verdict | None") -> dict[str, dict[str, float]]:
    if verdict is None:
        return {}
    return {
        design.name: {cell.cell: cell.rate.lr for cell in design.cells}
        for design in (*verdict.mechanisms, *verdict.outcomes)
    }


def _print_claim(
    claim: "Claim", costs: Mapping["BudgetName", Mapping[str, Any]]
) -> None:
    from normbench.progress import duration
    from normbench.theorems import statement

    typer.echo(f"{claim.name}: {claim.statement}\nsource: {claim.source}")
    _print_list("published (theirs)", claim.published)
    _print_list("confounds", claim.confounds)
    theorems = [
        f"{statement(each.check)} (within {each.tolerance:g})"
        for each in claim.theorems
    ]
    _print_list("theorems", theorems)
    for kind, designs in (
        ("mechanism", claim.mechanisms),
        ("outcome", claim.outcomes),
    ):
        for name, design in designs.items():
            typer.echo(f"\n{kind} {name}: {design.question}")
            typer.echo(f"  common   {design.common}")
            for arm, text in design.arms.items():
                typer.echo(f"  arm      {arm}: {text}")
            for level, text in design.levels.items():
                typer.echo(f"  level    {level}: {text}")
            rates = ", ".join(f"{lr:g}" for lr in design.rates)
            typer.echo(
                f"  {len(design.all_cells())} cells, {design.seeds} seeds; rates "
                f"{rates} on {design.tuning_seeds} other seeds, by {design.validation}"
            )
            for contrast in design.contrasts:
                star = "*" * contrast.primary
                typer.echo(
                    f"  says     {contrast.name}{star}: {contrast.metric} is "
                    f"{contrast.says.replace('_', ' ')}, margin {contrast.margin:g} "
                    f"({contrast.reason})"
                )
    typer.echo("\n* primary: the verdict rests on these, adjusted by Holm")
    for budget, each in costs.items():
        runs = each["tuning_runs"] + each["test_runs"]
        time = duration(each["core_seconds"] / 2)
        typer.echo(f"{budget:<6} {runs} runs, about {time} on two cores")


def _print_list(title: str, lines: Sequence[str]) -> None:
    if lines:
        typer.echo(f"{title}:")
    for line in lines:
        typer.echo(f"  - {line}")
