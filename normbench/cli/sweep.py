"""Commands about many runs: sweep, status, rerun."""

from collections import Counter
from collections.abc import Mapping
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
    expanded,
)
from normbench.cli.tables import number, print_json, print_table

if TYPE_CHECKING:
    from normbench.cli.progress import Tally
    from normbench.config.schema import RunRecord
    from normbench.records.store import Results as RunResults
    from normbench.sweeps.plan import Plan, PlanState

Arms = Annotated[
    list[str] | None,
    typer.Option(
        "--arm",
        metavar="OVERRIDES",
        help="One of several grids that are done together; repeatable: "
        '--arm "norm=group norm.num_groups=2,4" --arm norm=batch. Quotes after a = '
        "belong to the value.",
    ),
]

ShareOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Do one of N shares of the runs, I from 0 to N-1.",
    ),
]
RedoStale = Annotated[
    bool, typer.Option("--redo-stale", help="Do runs of other code again.")
]
DataPath = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="data.path=PATH",
        help="Where the same data files are now.",
        show_default=False,
    ),
]


def sweep(
    overrides: Overrides = None,
    arm: Arms = None,
    shard: ShareOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would run, and how long.")
    ] = False,
    redo_stale: RedoStale = False,
    skip_failed: Annotated[
        bool, typer.Option("--skip-failed", help="Do not repeat failed runs.")
    ] = False,
    results: Results = RESULTS,
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Do every run of a grid: norm=batch,group batch_size=2,8 seed=range(0,8).

    Values are Hydra's: A,B,C, range(START,STOP,STEP), choice(...), and glob(*) over
    yaml files. Everything is checked before the first run; a norm that cannot work in
    its network is skipped. The same command again does the missing runs. For several
    machines that share --results, use --shard, engine=slurm or engine=ray.

    Exit code 0: every run is done (a run that diverged is); 1: some failed; 2: the
    request was wrong; 130: interrupted.
    """
    with exit_codes():
        from normbench.cli.console import Terminal
        from normbench.cli.progress import SweepProgress
        from normbench.config.user_modules import import_modules
        from normbench.records.store import Results
        from normbench.sweeps.plan import Shard, make_plan
        from normbench.sweeps.round import Rounds

        import_modules(module or ())
        share = None if shard is None else Shard.parse(shard)
        plan = make_plan(overrides or (), arm or (), config_dir)
        if share is not None:
            plan = share.of(plan)
        runs = Results(results, tuple(module or ()), redo_stale)
        if dry_run:
            _print_dry_run(_dry_run(plan, runs, skip_failed), json)
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
    """Show the progress of a sweep, or, without overrides, of all runs in the folder.

    A run is `running` while a process holds the lock of its folder, `interrupted` if it
    was begun and no process is doing it.
    """
    with exit_codes():
        from normbench.config.user_modules import import_modules
        from normbench.errors import Unreadable
        from normbench.records import store

        import_modules(module or ())
        unlisted: list[Unreadable] = []
        skipped = 0
        if overrides or arm:
            from normbench.sweeps.plan import make_plan

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
    run: Annotated[
        str, typer.Argument(metavar="RUN_ID", help="A run's id, or its beginning.")
    ],
    overrides: DataPath = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            callback=expanded,
            help="Folder for the new record.  [default: reruns/TIME in --results]",
            show_default=False,
        ),
    ] = None,
    results: Results = RESULTS,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Do a finished run again in a fresh folder, and compare the metrics.

    Exit code 0: all metrics are identical to the last bit; 1: they are not, or the run
    failed. They are identical on the CPU of one machine, with the same code, packages
    and threads; a GPU adds in varying order.
    """
    with exit_codes():
        from datetime import datetime

        from normbench.cli.progress import run_observer
        from normbench.config.saved import same_run
        from normbench.config.user_modules import import_modules, require_modules
        from normbench.records import store
        from normbench.training.experiment import run_one

        before, _ = store.find_record(results, run)
        modules = module or ()
        require_modules(before, modules)
        import_modules(modules)
        config = same_run(before, overrides or ())
        fresh = output or results / "reruns" / f"{datetime.now():%Y%m%d-%H%M%S-%f}"
        after = run_one(
            config, store.Results(fresh, tuple(modules)), observer=run_observer()
        )
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
            typer.echo(f"run {after.run_id}  {store.run_folder(fresh, after.run_id)}")
            typer.echo("identical" if identical else "not identical")
    if not identical:
        raise typer.Exit(1)


def _dry_run(plan: "Plan", results: "RunResults", skip_failed: bool) -> dict[str, Any]:
    """What a sweep would do, with the seconds and bytes that it would take."""
    from normbench.records.store import run_folder
    from normbench.sweeps.plan import plan_state
    from normbench.sweeps.round import forecast

    state = plan_state(plan, results, skip_failed=skip_failed)
    folders = [run_folder(results.folder, key) for key in list(state.finished)[:100]]
    sizes = [
        sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        for folder in folders
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
    }


def _print_dry_run(outlook: Mapping[str, Any], json: bool) -> None:
    from normbench.cli.progress import duration

    if json:
        print_json(outlook)
        return
    seconds, size = outlook["seconds"], outlook["bytes"]
    time = "unknown: no run like these is finished"
    disk = "unknown: none of these is finished"
    if seconds is not None:
        time = f"about {duration(seconds)}"
    if size is not None:
        disk = f"about {max(1, round(size / 1024)):,} KiB"
    shown = {**outlook, "time": time, "disk": disk}
    counts = ("runs", "finished", "stale", "failed", "skipped", "missing")
    for key in (*counts, "time", "disk"):
        typer.echo(f"{key:<9} {shown[key]}")
    for reason in outlook["reasons"]:
        typer.echo(f"skipped: {reason}")


def _print_left_out(plan: "Plan", state: "PlanState") -> None:
    """Say on standard error which runs of the plan are not done now, and why."""
    lines = []
    if state.finished:
        lines += [
            f"{len(state.finished)} of {len(plan.runs)} runs are finished already"
        ]
    if stale := len(state.stale & state.finished.keys()):
        lines += [f"{stale} of them come from other code; --redo-stale does them again"]
    if state.left:
        lines += [f"{len(state.left)} failed and are left as they are"]
    for reason, count in sorted(_reasons(plan).items()):
        lines += [f"{count} skipped: {reason}"]
    for line in lines:
        typer.echo(line, err=True)


def _reasons(plan: "Plan") -> Counter[str]:
    return Counter(skip.reason for skip in plan.skipped.values())


def _print_end(tally: "Tally", finished: int, results: Path) -> None:
    for run_id, reason in {**tally.failures, **tally.unrecorded}.items():
        typer.echo(f"{run_id}  {reason}", err=True)
    ended = f"{tally.ended} runs: {tally.words()}; " if tally.ended else ""
    typer.echo(f"{ended}{finished} finished, in {results}")


def _print_comparison(before: "RunRecord", after: "RunRecord") -> None:
    rows = [
        {
            "metric": key,
            "before": number(before.metrics.get(key)),
            "after": number(after.metrics.get(key)),
            "same": "yes"
            if before.metrics.get(key) == after.metrics.get(key)
            else "NO",
        }
        for key in {**before.metrics, **after.metrics}
    ]
    print_table(rows, title="")
    now = dict(after.environment)
    for field, value in before.environment:
        if value != now[field]:
            typer.echo(f"{field}: {value} -> {now[field]}")
