"""The command `claim check`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from normbench.cli.claim import Details, full_verdict, is_changed
from normbench.cli.options import (
    CLAIMS,
    RESULTS,
    ConfigDir,
    Json,
    Modules,
    Results,
    complete_group,
    exit_codes,
    path_option,
)
from normbench.cli.saved import judge_again
from normbench.cli.sweep import RedoStale
from normbench.cli.tables import print_json, text_width
from normbench.cli.trials import (
    EngineOverrides,
    Workers,
    command_line,
    compose_engine,
    make_rounds,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from normbench.claims.trial import Trial
    from normbench.verdicts.registration import Claim
    from normbench.verdicts.verdict import Verdict


class Budget(StrEnum):
    """The choices of --budget: how many runs a check does, and how long they are."""

    smoke = "smoke"
    quick = "quick"
    full = "full"


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
    Budget | None,
    typer.Option(
        metavar="smoke|quick|full",
        help="smoke: runs of ten steps, to test that they work. quick: a reduced check "
        "with six seeds. full: all runs as registered.",
        show_default="quick; full with --from-records",
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
SaveItems = Annotated[
    bool,
    typer.Option(
        "--items",
        help="With --budget full: also save the result of every test sample of every "
        "run, about 3 kB per run, for paired comparisons.",
    ),
]
FirstSeed = Annotated[
    int,
    typer.Option(
        "--first-seed",
        metavar="NUMBER",
        min=0,
        help="First of the seeds. With 1000, the check is repeated with other runs, "
        "and its verdict is saved beside the registered one, without records.",
    ),
]
FromRecords = Annotated[
    bool,
    typer.Option(
        "--from-records",
        help="Do no runs and write nothing: judge the records beside the verdict of a "
        "full check again, and print how the new verdict differs from that one.",
    ),
]
Claims = Annotated[
    Path,
    path_option(
        "--claims",
        "Folder to which the verdicts are written, with one subfolder per claim. "
        "--from-records also reads the verdicts of the package.",
    ),
]


def check(
    names: Names = None,
    everything: Everything = False,
    budget: CheckBudget = None,
    arm: ExtraArm = None,
    save_items: SaveItems = False,
    first_seed: FirstSeed = 0,
    from_records: FromRecords = False,
    engine: EngineOverrides = None,
    workers: Workers = None,
    redo_stale: RedoStale = False,
    results: Results = RESULTS,
    claims: Claims = CLAIMS,
    config_dir: ConfigDir = None,
    module: Modules = None,
    details: Details = False,
    json: Json = False,
) -> None:
    """Do the missing runs of claims, and print the verdicts.

    Each verdict is saved in --claims; a full check also saves its records there. The
    same command continues an interrupted check.

    Exit code: 0 if every check ended, whatever the verdicts; with --from-records, 1 if
    a verdict differs from the saved one; 2 if the request was wrong; 130 after Ctrl-C,
    SIGTERM or SIGHUP; 1 after any other error.
    """
    with exit_codes():
        from normbench.claims.check import prepare
        from normbench.claims.lock import require_committed
        from normbench.claims.trial import Request
        from normbench.config.named_modules import import_named

        if from_records:
            _require_no_runs(
                budget, arm, save_items, first_seed, engine, workers, redo_stale
            )
            import_named(module)
            chosen = _chosen(names or (), everything, config_dir)
            judge_again(chosen, claims, module or (), config_dir, details, json)
            return
        budget = budget or Budget.quick
        if save_items:
            _require_saved_verdict(budget, arm, first_seed)
        modules = import_named(module, (), [arm] if arm else (), config_dir)
        rounds = make_rounds(results, modules, redo_stale)
        chosen = _chosen(names or (), everything, config_dir)
        if budget is Budget.full:
            for claim in chosen:
                require_committed(claim.name, config_dir)
        chosen_engine = compose_engine(engine, workers, config_dir)
        trials = []
        for claim in chosen:
            request = Request(
                rounds=rounds,
                budget=budget.value,
                engine=chosen_engine,
                title=claim.name,
                config_dir=config_dir,
                frozen=_rates(claim, full_verdict(claim.name, claims)),
                first_seed=first_seed,
            )
            trials.append(prepare(claim, request, arm))
        with rounds:
            verdicts = [
                _checked(
                    claim, trial, results, claims, not arm, details=details, json=json
                )
                for claim, trial in zip(chosen, trials, strict=True)
            ]
        if save_items:
            _save_items(verdicts, results, claims)
        if json:
            print_json([verdict.model_dump(mode="json") for verdict in verdicts])


def _checked(
    claim: "Claim",
    trial: "Trial",
    results: Path,
    claims: Path,
    write: bool,
    *,
    details: bool,
    json: bool,
) -> "Verdict":
    """Check a claim and return its verdict.

    The verdict is saved if `write`, and printed unless `json`.
    """
    from normbench.claims.check import check, counted_models, write_verdict
    from normbench.claims.lock import registered
    from normbench.report.text.verdict import verdict_text
    from normbench.verdicts.remarks import with_remarks

    folder = claims / claim.name
    request = trial.request
    registration = registered(claim, request.config_dir)
    if claim.census and request.budget == "full":
        typer.echo("census: building all models takes minutes, if it is new", err=True)
    counted = counted_models(claim, request.budget)
    verdict = check(
        claim, trial, command_line(), registration=registration, counted=counted
    )
    path = write_verdict(verdict, results, folder, counted) if write else None
    verdict = with_remarks(verdict, folder)
    if not json:
        typer.echo(verdict_text(verdict, text_width(), details=details))
    if path is not None:
        typer.echo(f"\nwrote {path}\n", err=json)
    return verdict


def _save_items(verdicts: "Sequence[Verdict]", results: Path, claims: Path) -> None:
    from normbench.claims.check import write_items

    for verdict in verdicts:
        path, count = write_items(verdict, results, claims / verdict.claim)
        runs = f"{count} of {len(verdict.run_ids)} runs"
        typer.echo(f"wrote {path}, the results of test samples of {runs}", err=True)


def _require_saved_verdict(budget: Budget, arm: str | None, first_seed: int) -> None:
    """Raise RequestError if the check saves no records beside which --items fits."""
    from normbench.errors import RequestError

    if budget is not Budget.full or arm is not None or first_seed:
        given = f"--first-seed {first_seed}" if first_seed else f"--budget {budget}"
        given = "--arm" if arm is not None else given
        raise RequestError(
            f"--items saves files beside the records of a full check, and a check with "
            f"{given} saves no records; use --budget full alone"
        )


def _require_no_runs(
    budget: Budget | None,
    arm: str | None,
    save_items: bool,
    first_seed: int,
    engine: str | None,
    workers: int | None,
    redo_stale: bool,
) -> None:
    """Raise RequestError if an option asks for runs, which --from-records has not."""
    from normbench.errors import RequestError

    smaller = budget in {Budget.smoke, Budget.quick}
    options = {
        f"--budget {budget}": smaller,
        "--arm": arm is not None,
        "--items": save_items,
        "--first-seed": first_seed > 0,
        "--engine": engine is not None,
        "--workers": workers is not None,
        "--redo-stale": redo_stale,
    }
    given = [option for option, is_given in options.items() if is_given]
    if given:
        raise RequestError(
            "--from-records judges the saved runs of a full check and does no runs; "
            f"leave out {' and '.join(given)}"
        )


def _chosen(
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


def _rates(claim: "Claim", verdict: "Verdict | None") -> dict[str, dict[str, float]]:
    """Return the learning rates that a full check of the same registration chose.

    The result is design -> cell -> the rate that was chosen for most seeds.
    """
    if verdict is None or is_changed(claim, verdict):
        return {}
    return {
        design.name: {
            cell.cell: rate
            for cell in design.cells
            if (rate := cell.usual_rate) is not None
        }
        for design in verdict.designs
    }
