"""The commands `train` and `config`, which are about one run."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from normbench.cli.options import (
    RESULTS,
    ConfigDir,
    Json,
    Modules,
    Overrides,
    Results,
    exit_codes,
    path_option,
)
from normbench.cli.tables import number, print_table
from normbench.system.interrupts import INTERRUPTED, interrupt
from normbench.system.signals import handled, not_ignored
from normbench.system.streams import report_lost_output, write_error

if TYPE_CHECKING:
    from normbench.config.schema import RunConfig, RunRecord
    from normbench.records import store
    from normbench.training.distributed import World

From = Annotated[
    Path | None,
    path_option(
        "--from",
        "Start from the config in this file: a result.json, the folder of a run, "
        "or the output of `normbench config`. KEY=VALUE arguments override it.",
        metavar="FILE",
        show_default=False,
    ),
]


def train(
    overrides: Overrides = None,
    from_: From = None,
    results: Results = RESULTS,
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Train one network with one norm, and record the run.

    A finished run is not done again. The same command resumes an interrupted run. With
    `torchrun -m normbench train`, several processes do the run together.

    Exit code: 0 if the run is done; 1 if it failed, diverged or was skipped; 2 if the
    request was wrong; 130 after Ctrl-C, SIGTERM or SIGHUP.
    """
    with exit_codes(), _world() as world:
        with world.raising_together():
            config, modules = _composed(overrides, config_dir, module, from_)
        from normbench.records import store

        runs = store.Results(results, modules)
        record, last = _train(config, runs, world)
        if record is None:
            _print_last(last)
            raise typer.Exit(INTERRUPTED)
        if world.first and json:
            typer.echo(record.model_dump_json(indent=2))
        elif world.first:
            _print_outcome(record)
            folder = store.run_folder(results, record.run_id)
            typer.echo(f"run {record.run_id}  {folder}")
        _print_last(last)
        if record.status != "ok":
            raise typer.Exit(1)


def _train(
    config: "RunConfig", results: "store.Results", world: "World"
) -> "tuple[RunRecord | None, list[str]]":
    """Do the run and return its record, or None if the run was interrupted.

    Also returns the lines that belong at the end of the output.
    """
    from normbench.cli.progress import run_observer
    from normbench.errors import Stopped
    from normbench.training.distributed import run_together
    from normbench.training.experiment import run_one

    observer = run_observer() if world.first else None
    last = observer.last if observer else []
    try:
        with _stopping(world) as stop:
            if world.size == 1:
                record = run_one(config, results, observer=observer, stop=stop)
            else:
                record = run_together(
                    config, results, world, observer=observer, stop=stop
                )
    except Stopped as stopped:
        if world.first:
            typer.echo(f"interrupted; {stopped}", err=True)
        return None, last
    return record, last


def _print_last(lines: Sequence[str]) -> None:
    for line in lines:
        typer.echo(line, err=True)


def config(
    overrides: Overrides = None,
    from_: From = None,
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Print the complete config of a run; train nothing."""
    with exit_codes():
        composed, _ = _composed(overrides, config_dir, module, from_)
        if json:
            typer.echo(composed.model_dump_json(indent=2))
        else:
            import yaml

            from normbench.config.identity import run_id

            typer.echo(f"# run_id: {run_id(composed)}")
            plain = composed.model_dump(mode="json")
            typer.echo(yaml.safe_dump(plain, sort_keys=False), nl=False)


def _composed(
    overrides: Sequence[str] | None,
    config_dir: Path | None,
    modules: Sequence[str] | None,
    file: Path | None,
) -> "tuple[RunConfig, tuple[str, ...]]":
    """Return the config of the run, and the user's modules, which are imported."""
    from normbench.config.composition import compose
    from normbench.config.named_modules import import_named

    imported = import_named(modules, overrides, config_dir=config_dir)
    if file is not None:
        from normbench.config.saved import compose_from
        from normbench.config.user_modules import require_model

        config = compose_from(file, overrides or (), config_dir)
        require_model(config, imported)
        return config, imported
    return compose(overrides or (), config_dir), imported


@contextmanager
def _world() -> "Iterator[World]":
    """Join the processes that torchrun started, and yield them as a World.

    Only the first process prints the error of a wrong request. If there are several
    processes, os._exit ends each process after the block. Python's own shutdown would
    sometimes abort with another exit code. The cause is threads of gloo whose process
    group could not be destroyed or is held by a compiled graph.
    """
    from normbench.errors import RequestError
    from normbench.training.distributed import joined

    with joined() as world:
        if world.size == 1:
            yield world
            return
        code = 0
        try:
            with exit_codes():
                try:
                    yield world
                except RequestError:
                    if world.first:
                        raise
                    raise typer.Exit(2) from None
        except typer.Exit as end:
            code = end.exit_code
        lost = report_lost_output()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # no reader, or closed stream
                stream.flush()
        world.wait_before_exit()
        os._exit(code or int(lost))  # 1 if only the output was lost


@contextmanager
def _stopping(world: "World") -> Iterator[Callable[[], bool]]:
    """Handle stop signals; yield a function that tells if one was received.

    The signals are Ctrl-C, SIGTERM and SIGHUP. A second Ctrl-C raises
    KeyboardInterrupt. A second SIGTERM or SIGHUP does not, because a closed terminal
    and its shell may each send one.
    """
    received = False

    def receive(signum: int, frame: FrameType | None) -> None:
        nonlocal received
        if received and signum == signal.SIGINT:
            interrupt(signum, frame)
        if world.first and not received:
            write_error("\nstopping after this step; Ctrl-C again stops at once\n")
        received = True

    with handled((signal.SIGINT, *not_ignored("SIGTERM", "SIGHUP")), receive):
        yield lambda: received


def _print_outcome(finished: "RunRecord") -> None:
    from normbench.config.rates import rate_text

    if finished.status in {"failed", "skipped"}:
        typer.echo(f"{finished.status}: {finished.error}", err=True)
        return
    if finished.status == "diverged":
        typer.echo(f"diverged: the loss of step {finished.diverged_at} is not finite")
    else:
        better = "lower" if finished.direction == "minimize" else "higher"
        typer.echo(f"* primary metric {finished.primary_metric}: {better} is better")
        print_table(_metric_rows(finished.metrics, finished.primary_metric), title="")
    typer.echo(f"peak learning rate {rate_text(finished.config, finished.peak_lr)}")


def _metric_rows(
    metrics: Mapping[str, float | None], primary: str
) -> list[dict[str, str]]:
    """Return a row for each evaluation; those with equal numbers share a row.

    A star marks the primary metric.
    """
    names = dict.fromkeys(key.split("/")[1] for key in metrics)
    splits = dict.fromkeys(key.split("/")[0] for key in metrics)
    equal: dict[tuple[str, ...], list[str]] = {}
    for split in splits:
        values = (metrics.get(f"{split}/{name}", "") for name in names)
        equal.setdefault(tuple(map(repr, values)), []).append(split)
    rows = []
    for same in equal.values():
        row = {"evaluation": " = ".join(same)}
        for name in names:
            key = f"{same[0]}/{name}"
            star = " *" if primary in {f"{split}/{name}" for split in same} else ""
            row[name] = number(metrics.get(key)) + star
        rows.append(row)
    return rows
