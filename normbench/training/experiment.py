"""One run, from what is asked for to its record."""

import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

import torch

from normbench.config.identity import run_id
from normbench.config.schema import Environment, RunConfig, RunRecord
from normbench.data.base import REGISTRY as DATA
from normbench.errors import Busy, Incompatible, NormbenchError, Stopped
from normbench.records.store import NoWriter, Results, RunWriter
from normbench.records.tracking import NoTracker, Tracker, open_tracker
from normbench.tasks.base import Task
from normbench.training import checkpoint
from normbench.training.distributed import World, lost_another
from normbench.training.network import (
    check,
    choose_device,
    make_task,
    require_compiler,
    turn_off_tf32,
)
from normbench.training.observer import Observer, Silent
from normbench.training.outcome import SoFar, failure, outcome, ran_on
from normbench.training.replica import require_equal_shares
from normbench.training.run import Outlets, Run

ALONE = World()


def run_one(
    config: RunConfig,
    results: Results,
    *,
    observer: Observer | None = None,
    stop: Callable[[], bool] | None = None,
    world: World = ALONE,
) -> RunRecord:
    """The record of the run that `config` asks for: found, or trained and evaluated.

    A finished run is not done again, nor one that another process has finished just
    now. A run that was interrupted goes on from its last checkpoint. The user's own
    modules (`results.modules`) are already imported.

    `stop` is asked after every step; once it says so, the run is saved and Stopped is
    raised. Raises RequestError (Busy where another process is doing the run,
    Incompatible where the norm cannot work in the network) before anything is written;
    what goes wrong after that is a record with the status "diverged", "skipped" or
    "failed".

    The processes of a `world` do it together. The first one does what is said here of
    files; where it dies, one that is left records the failure. Where another fails, it
    raises NormbenchError, and the first one records why.
    """
    found = partial(results.finished, config)
    if finished := world.from_first(found):
        return finished
    so_far = SoFar()
    observer = observer or Silent()
    torch.set_num_threads(config.threads)
    turn_off_tf32()
    device, task = world.together(partial(_prepared, config, world))
    here = ran_on(config, device, results.modules, world.size)
    identity = _identity(config, here)
    with ExitStack() as stack:
        writer, begun = _begin(
            stack, config, results, found, identity, observer.warn, world
        )
        if isinstance(begun, RunRecord):
            return begun  # another process did it since
        if begun:
            so_far.resume(begun)
            observer.note(f"going on from step {begun.step}")
        tracker: Tracker = NoTracker()
        if world.first:
            tracker = open_tracker(
                config,
                run_id(config),
                results.folder,
                resumed=begun is not None,
                note=observer.note,
                warn=observer.warn,
            )
        saver = checkpoint.Saver(
            writer.folder if writer else None,
            identity,
            begun,
            every=config.checkpoint.every,
            stop=stop or (lambda: False),
            agree=world.any,
            warn=observer.warn,
        )
        outlets = Outlets(writer or NoWriter(), tracker, observer)
        begin = partial(Run, config, task, device, world, outlets, saver, so_far)
        _train_and_evaluate(begin, world, outlets, so_far)
        finish = partial(_finish, writer, tracker, config, here, so_far)
        if so_far.status in {"ok", "diverged"}:
            return world.from_first(finish)
        if not world.first:
            _leave(config, results, so_far, world)
        finished = finish()
        # Before the lock goes: another asks under it (`_leave`).
        world.leave_word("recorded", finished.status)
    return finished


def _prepared(config: RunConfig, world: World) -> tuple[torch.device, Task]:
    """The device and the task of a run; raises RequestError where it cannot be done."""
    device = world.device(choose_device(config.device))
    require_equal_shares(config, world.size)
    if config.compile:
        require_compiler(device)
    task = make_task(config, device)
    check(config, task)
    return device, task


def _begin(
    opened: ExitStack,
    config: RunConfig,
    results: Results,
    found: Callable[[], RunRecord | None],
    identity: Mapping[str, Any],
    warn: Callable[[str], None],
    world: World,
) -> tuple[RunWriter | None, RunRecord | checkpoint.State | None]:
    """The writer, of the first process alone, and what every process begins with.

    That is a record where the run is done by now, else the state to go on from, where
    there is one.
    """
    writers: list[RunWriter] = []

    def first() -> RunRecord | checkpoint.State | None:
        writer = opened.enter_context(results.writer(config))
        writers.append(writer)
        if finished := found():
            return finished
        state = checkpoint.latest(writer.folder, identity, warn)
        writer.begin(config, resume_at=state.history if state else None)
        return state

    begun = world.from_first(first)
    return (writers[0] if writers else None), begun


def _train_and_evaluate(
    begin: Callable[[], Run], world: World, outlets: Outlets, so_far: SoFar
) -> None:
    """Do it; what comes of it is in `so_far`, also where it fails. Raises Stopped."""
    try:
        run = begin()
        run.train()
        if so_far.status == "ok":
            world.from_first(run.evaluate)
    except Stopped:
        outlets.tracker.finish({}, ok=False)
        raise
    except Incompatible as reason:  # some norms only find out on a certain batch
        so_far.status, so_far.error = "skipped", str(reason)
    except Exception as error:  # record any exception as status "failed"
        so_far.status, so_far.error = "failed", traceback.format_exc()
        if world.first and lost_another(error):
            so_far.hear_of_others(world)
    finally:
        outlets.observer.close()


def _finish(
    writer: RunWriter | None,
    tracker: Tracker,
    config: RunConfig,
    here: Environment,
    so_far: SoFar,
) -> RunRecord:
    """The run's record, written; for the first process."""
    assert writer is not None
    finished = outcome(config, here, so_far)
    try:
        writer.finish(finished)
    finally:
        tracker.finish(finished.metrics, ok=finished.status == "ok")
    return finished


def _leave(
    config: RunConfig,
    results: Results,
    so_far: SoFar,
    world: World,
) -> NoReturn:
    """Abort a non-zero rank and publish its error.

    The first one records the run, unless it is what was lost.
    """
    world.leave_word(so_far.status, str(so_far.error))
    reason = f"process {world.rank} of {world.size} lost the first: {so_far.error}"
    failed = failure(config, reason, results.modules, processes=world.size)
    with suppress(Busy), results.writer(config) as writer:
        # Asked under the lock, which the first one holds until it has left that word.
        any_record = replace(results, redo_stale=False)
        recorded = world.words("recorded") or any_record.finished(config)
        if not recorded:
            writer.finish(failed)
    last = str(so_far.error).strip().splitlines()[-1]
    raise NormbenchError(
        f"process {world.rank} of {world.size} {so_far.status}: {last}"
    )


def record_failure(config: RunConfig, results: Results, reason: str) -> RunRecord:
    """Record, from outside, that the process of a run could not end it.

    Its history and checkpoints stay. Where the run is finished after all, that record
    stands and is returned: its process died, or was stuck, after writing it. Raises
    Busy where a process is doing the run, NormbenchError where the record cannot be
    written.
    """
    failed = failure(config, reason, results.modules, processes=1)
    with results.writer(config) as writer:
        if record := results.finished(config):
            return record
        writer.finish(failed)
    return failed


def _identity(config: RunConfig, ran_on: Environment) -> dict[str, Any]:
    """What must not change between the two halves of a run, nor of its history."""
    packages = DATA.get(config.data.name).packages
    return {
        "run": run_id(config),
        **{package: ran_on.packages.get(package) for package in packages},
        "source": ran_on.source_hash,
        "modules": ran_on.modules,
        "torch": str(torch.__version__),
        "device": ran_on.device,
        "threads": ran_on.threads,
        "evaluations": config.evaluations,
        "log_every": config.log_every,
    }
