"""The commands `sweep`, `status` and `rerun`, which do or count many runs."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normbench.cli.cells import (
    planned_cells,
    print_finished_cells,
    print_planned_cells,
)
from normbench.cli.options import (
    RESULTS,
    ConfigDir,
    Json,
    Modules,
    Overrides,
    Results,
    RunId,
    exit_codes,
    path_option,
)
from normbench.cli.tables import number, print_json, print_table

if TYPE_CHECKING:
    from normbench.cli.progress import Tally
    from normbench.config.schema import RunRecord
    from normbench.records.store import Results as RunResults
    from normbench.sweeps.plan import Plan, PlanState

MEASURED_RUNS = 100
"""The size of a run is estimated from at most this many finished runs."""

Arms = Annotated[
    list[str] | None,
    typer.Option(
        "--arm",
        metavar="OVERRIDES",
        help="Add a grid with these overrides, such as "
        '"norm=group norm.num_groups=2,4". Repeatable. The KEY=VALUE arguments apply '
        "to every arm.",
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Divide the runs into N shares and do share I, counted from 0.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Only print the cells, the number of runs and the expected time.",
    ),
]
RedoStale = Annotated[
    bool,
    typer.Option(
        "--redo-stale",
        help="Repeat finished runs that were done with other code.",
    ),
]
SkipFailed = Annotated[
    bool, typer.Option("--skip-failed", help="Do not repeat failed runs.")
]
DataPath = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="data.path=PATH",
        help="New place of the same data files, if they have moved.",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    path_option(
        "--output", "Folder of the new record.", show_default="reruns/TIME in --results"
    ),
]


def sweep(
    overrides: Overrides = None,
    arm: Arms = None,
    shard: ShardOption = None,
    dry_run: DryRun = False,
    redo_stale: RedoStale = False,
    skip_failed: SkipFailed = False,
    results: Results = RESULTS,
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Do every run of a grid of configs.

    A value may be a list A,B,C or, as in Hydra, range(START,STOP,STEP), choice(A,B) or
    glob(*) over yaml files. All configs are checked before the first run. A norm that
    cannot work in its network is skipped. The same command continues a sweep: it does
    only the missing runs. Several machines that share --results can divide a sweep by
    --shard, engine=slurm or engine=ray. At the end, a table has the mean of each cell:
    the runs that differ only in the seed.

    Exit code: 0 if every run is done, even if it diverged; 1 if a run failed; 2 if the
    request was wrong; 130 after Ctrl-C, SIGTERM or SIGHUP.
    """
    with exit_codes():
        from normbench.cli.console import Terminal
        from normbench.cli.progress import SweepProgress
        from normbench.config.named_modules import import_named
        from normbench.records.store import Results
        from normbench.sweeps.plan import Shard, make_plan
        from normbench.sweeps.round import Rounds

        modules = import_named(module, overrides, arm, config_dir)
        share = Shard.parse(shard) if shard is not None else None
        plan = make_plan(overrides or (), arm or (), config_dir)
        if share is not None:
            plan = share.of(plan)
        runs = Results(results, modules, redo_stale)
        if dry_run:
            _print_plan_summary(_plan_summary(plan, runs, skip_failed), json)
            return
        progress = SweepProgress(Terminal(stderr=True))

        def observe(title: str, plan: "Plan", state: "PlanState") -> SweepProgress:
            _print_left_out(plan, state)
            return progress

        title = f"sweep --shard {shard}" if shard else "sweep"
        with Rounds(runs, observe) as rounds:
            records = rounds.run(plan, title, skip_failed=skip_failed).values()
        finished = [record for record in records if record.status != "failed"]
        if json:
            print_json([record.model_dump(mode="json") for record in finished])
        else:
            _print_end(progress.tally, len(finished), results)
            print_finished_cells([*records])
    if progress.tally.failures or progress.tally.unrecorded:
        raise typer.Exit(1)


def status(
    overrides: Overrides = None,
    arm: Arms = None,
    results: Results = RESULTS,
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Count the runs of a sweep or a folder by state.

    KEY=VALUE and --arm choose the runs of a sweep. Without them, all runs in --results
    are counted. A run is `running` while a process holds the lock of its folder, and
    `interrupted` if it was started and no process is doing it any more.
    """
    with exit_codes():
        from normbench.errors import Unreadable
        from normbench.records import store
        from normbench.system.imports import import_modules

        import_modules(module or ())
        unlisted: list[Unreadable] = []  # folders that cannot be listed
        skipped = 0
        if overrides or arm:
            from normbench.config.named_modules import import_named
            from normbench.sweeps.plan import make_plan

            import_named((), overrides, arm, config_dir)
            plan = make_plan(overrides or (), arm or (), config_dir)
            ids, skipped = list(plan.runs), len(plan.skipped)
        else:
            ids = store.run_ids(results, unlisted)
        counts, unreadable = store.states(results, ids)
        counts["skipped"] += skipped
        for error in (*unreadable, *unlisted):
            typer.echo(f"left out: {error}", err=True)
        row = {"runs": counts.total(), **{s: counts[s] for s in store.STATES}}
        if json:
            print_json(row)
        else:
            print_table([row], title=f"runs in {results}")


def rerun(
    run: RunId,
    overrides: DataPath = None,
    output: Output = None,
    results: Results = RESULTS,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Repeat a finished run, and compare the metrics.

    The new record is in another folder. Metrics are identical to the last bit on the
    CPU of the same machine, with the same code, packages and number of threads. On a
    GPU they may differ by rounding.

    Exit code: 0 if all metrics are identical; 1 if they are not, or the run failed; 2
    if the request was wrong; 130 after Ctrl-C.
    """
    with exit_codes():
        from datetime import datetime

        from normbench.cli.progress import run_observer
        from normbench.config.saved import same_run
        from normbench.config.user_modules import require_modules
        from normbench.records import store
        from normbench.system.imports import import_modules
        from normbench.training.experiment import run_one

        before, _ = store.find_record(results, run)
        modules = tuple(module or ())
        require_modules(before, modules)
        import_modules(modules)
        config = same_run(before, overrides or ())
        folder = output or results / "reruns" / f"{datetime.now():%Y%m%d-%H%M%S-%f}"
        new_results = store.Results(folder, modules)
        observer = run_observer()
        after = run_one(config, new_results, observer=observer)
        for line in observer.last:
            typer.echo(line, err=True)
        identical = after.metrics == before.metrics and after.status == before.status
        if json:
            plain = {
                "run_id": before.run_id,
                "identical": identical,
                "before": before.model_dump(mode="json"),
                "after": after.model_dump(mode="json"),
            }
            print_json(plain)
        else:
            _print_comparison(before, after)
            typer.echo(f"run {after.run_id}  {store.run_folder(folder, after.run_id)}")
            typer.echo("identical" if identical else "not identical")
    if not identical:
        raise typer.Exit(1)


def _plan_summary(
    plan: "Plan", results: "RunResults", skip_failed: bool
) -> dict[str, Any]:
    """Return the number of runs by state, and the expected seconds and bytes."""
    from normbench.records.store import run_folder
    from normbench.sweeps.plan import plan_state
    from normbench.sweeps.round import forecast

    state = plan_state(plan, results, skip_failed=skip_failed)
    measured = list(state.finished)[:MEASURED_RUNS]
    sizes = [
        sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        for folder in (run_folder(results.folder, run_id) for run_id in measured)
    ]
    return {
        "runs": len(plan.runs),
        "finished": len(state.finished),
        "failed": len(state.failed),
        "stale": len(state.stale),
        "skipped": len(plan.skipped),
        "missing": len(state.missing),
        "seconds": forecast(plan, state, results).seconds(),
        "bytes": round(sum(sizes) / len(sizes)) * len(state.missing) if sizes else None,
        "reasons": sorted(_reasons(plan)),
        "cells": planned_cells(plan, state),
    }


def _print_plan_summary(summary: Mapping[str, Any], json: bool) -> None:
    from normbench.cli.progress import duration

    if json:
        print_json(summary)
        return
    for key in ("runs", "finished", "stale", "failed", "skipped", "missing"):
        typer.echo(f"{key:<9} {summary[key]}")
    time = "unknown, because no similar run is finished"
    if summary["seconds"] is not None:
        time = f"about {duration(summary['seconds'])}"
    typer.echo(f"{'time':<9} {time}")
    disk = "unknown, because no run of this sweep is finished"
    if summary["bytes"] is not None:
        disk = f"about {max(1, round(summary['bytes'] / 1024)):,} KiB"
    typer.echo(f"{'disk':<9} {disk}")
    for reason in summary["reasons"]:
        typer.echo(f"skipped: {reason}")
    if summary["cells"]:
        print_planned_cells(summary["cells"])


def _print_left_out(plan: "Plan", state: "PlanState") -> None:
    """Print to standard error which runs of the plan are not done now, and why."""
    lines = []
    if state.finished:
        lines += [
            f"{len(state.finished)} of {len(plan.runs)} runs are finished already"
        ]
    if stale := len(state.stale & state.finished.keys()):
        lines += [f"{stale} of them come from other code; --redo-stale repeats them"]
    if state.left:
        lines += [f"{len(state.left)} failed and are not repeated"]
    for reason, count in sorted(_reasons(plan).items()):
        lines += [f"{count} skipped: {reason}"]
    for line in lines:
        typer.echo(line, err=True)


def _reasons(plan: "Plan") -> Counter[str]:
    """Count the skipped runs by the reason."""
    return Counter(skip.reason for skip in plan.skipped.values())


def _print_end(tally: "Tally", finished: int, results: Path) -> None:
    for run_id, reason in {**tally.failures, **tally.unrecorded}.items():
        typer.echo(f"{run_id}  {reason}", err=True)
    ended = f"{tally.ended} runs: {tally.summary()}; " if tally.ended else ""
    typer.echo(f"{ended}{finished} finished, in {results}")


def _print_comparison(before: "RunRecord", after: "RunRecord") -> None:
    rows = []
    for key in {**before.metrics, **after.metrics}:
        old, new = before.metrics.get(key), after.metrics.get(key)
        same = "yes" if old == new else "NO"
        rows.append(
            {"metric": key, "before": number(old), "after": number(new), "same": same}
        )
    print_table(rows, title="")
    environment = dict(after.environment)
    for field, value in before.environment:  # pairs, from pydantic
        if value != environment[field]:
            typer.echo(f"{field}: {value} -> {environment[field]}")
