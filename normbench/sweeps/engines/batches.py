"""Runs in batches, on machines that share the results folder: for `ray` and `slurm`.

A batch is done by one process, one run after another (`do_batch`). The one that follows
them (`follow`) reads the records: what is finished is on disk, whoever did it. A batch
that was told to stop leaves checkpoints, and what is left of it is handed out again.
"""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from normbench.config.schema import RunConfig, RunRecord
from normbench.config.user_modules import import_modules
from normbench.errors import NormbenchError, RequestError, Stopped, Unreadable
from normbench.records import store
from normbench.records.store import Results
from normbench.sweeps.engines import Work
from normbench.sweeps.engines.ledger import Ledger
from normbench.sweeps.engines.worker import (
    Elsewhere,
    Ended,
    Unrecorded,
    Whisper,
    do_run,
)
from normbench.system.signals import handled, not_ignored

LOOK = 0.5
"""Seconds between two looks at the records."""
PATIENCE = 30.0
"""Seconds that processes have to write their checkpoints when they are told to stop."""
UNSEEN = 60.0
"""Seconds until a record that was written elsewhere must be seen: NFS may take them."""

Batch = dict[str, RunConfig]
"""Some of the runs, by id."""


@dataclass
class Report:
    """What the process of a batch says when it leaves.

    `ended` have a record, `elsewhere` are being done by other processes, `unrecorded`
    could not be recorded, with the reason; those in none of them are left.
    """

    ended: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    unrecorded: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    cannot_start: str | None = None


@dataclass(frozen=True)
class Died:
    """The process of a batch left without a report; `how` goes after "it"."""

    how: str


JobT = TypeVar("JobT")


class Cluster(Protocol[JobT]):
    """Where batches are done: at most `slots` at a time, of `batch_size` runs each."""

    slots: int
    batch_size: int

    def submit(self, batches: Sequence[Batch]) -> list[JobT]:
        """Have each batch done (`do_batch`), by a process each."""

    def wait(self, jobs: Sequence[JobT], seconds: float) -> None:
        """Until one of `jobs`, if there are any, may have ended; `seconds` at most."""

    def outcome(self, job: JobT) -> Report | Died | None:
        """How `job` ended; None while it has not."""

    def stop(self, job: JobT) -> None:
        """Have its process write a checkpoint and leave."""


def do_batch(batch: Batch, results: Results) -> Report:
    """Do the runs of `batch`: what a process of a cluster is for.

    SIGTERM, SIGHUP, SIGINT or SIGUSR2 stops it after the step that is going on, with a
    checkpoint.
    """
    report = Report()
    with _told_to_stop() as stop:
        try:
            import_modules(results.modules)
        except NormbenchError as error:
            report.cannot_start = str(error)
            return report
        whisper = Whisper(report.warnings.append)
        for run_id, config in batch.items():
            if stop():
                break
            try:
                end = do_run(config, results, whisper, stop)
            except Stopped:
                break
            match end:
                case Ended():
                    report.ended.append(run_id)
                case Elsewhere():
                    report.elsewhere.append(run_id)
                case Unrecorded(reason):
                    report.unrecorded[run_id] = reason
    return report


@contextmanager
def _told_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether a signal has come that asks this process to leave."""
    told = threading.Event()
    names = ("SIGTERM", "SIGINT", "SIGUSR2")  # the last is submitit's, before a timeout
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    with handled([*numbers, *not_ignored("SIGHUP")], lambda *_: told.set()):
        yield told.is_set


def follow(cluster: Cluster[JobT], work: Work) -> None:
    """Have `work` done by `cluster`, as `engines.run_all` says."""
    work.announce(cluster.slots)
    work.forecast.workers = cluster.slots
    follower = _Follower(cluster, work)
    try:
        work.observer.start(len(work.runs), work.forecast.seconds())
        follower.follow()
    except (KeyboardInterrupt, NormbenchError):
        follower.stop()
        raise
    finally:
        work.observer.close()


@dataclass(frozen=True)
class _Trace:
    """The times (ns) of two files of a run, by which it is seen to begin and to end."""

    config: int | None
    result: int | None

    @classmethod
    def of(cls, folder: Path) -> "_Trace":
        return cls(_changed(folder / store.CONFIG), _changed(folder / store.RESULT))


def _changed(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _recorded(folder: Path) -> RunRecord | None:
    """The record there, if it can be read by now."""
    try:
        return store.read(folder)
    except Unreadable:
        return None


@dataclass
class _Flying(Generic[JobT]):
    """A batch that a job does: what is not seen to have ended of it."""

    job: JobT
    left: Batch
    before: dict[str, _Trace]
    begun: set[str] = field(default_factory=set)


class _Follower(Generic[JobT]):
    """The batches that are being done, and what is left to do."""

    def __init__(self, cluster: Cluster[JobT], work: Work) -> None:
        self.cluster, self.work = cluster, work
        keys, size = list(work.runs), cluster.batch_size
        count = -(-len(keys) // size)
        # Dealt like cards, so that neighbours, which take like times, are in all.
        self.queue = deque([self._batch(keys[i::count]) for i in range(count)])
        self.flying: list[_Flying[JobT]] = []
        self.ledger = Ledger(work)

    def follow(self) -> None:
        """Until every run has come to an end."""
        while True:
            self._submit()
            if not self.flying and self.ledger.next_look is None:
                return
            self.cluster.wait([each.job for each in self.flying], LOOK)
            for each in list(self.flying):
                outcome = self.cluster.outcome(each.job)
                self._look(each)
                if outcome is not None:
                    self.flying.remove(each)
                    self._land(each, outcome)

    def stop(self) -> None:
        """Tell what is going on to write checkpoints and leave, and give it time."""
        self.work.observer.stopping()
        for each in self.flying:
            self.cluster.stop(each.job)
        deadline = time.monotonic() + PATIENCE
        while self.flying and time.monotonic() < deadline:
            self.cluster.wait([each.job for each in self.flying], LOOK)
            for each in list(self.flying):
                try:
                    ended = self.cluster.outcome(each.job) is not None
                except NormbenchError:
                    ended = True  # why it all ends is told already
                if ended:
                    self.flying.remove(each)
                    self._look(each)

    def _batch(self, keys: Sequence[str]) -> Batch:
        return {key: self.work.runs[key] for key in keys}

    def _submit(self) -> None:
        if freed := self.ledger.due():
            self.queue.append(self._batch(freed))
        free = min(len(self.queue), self.cluster.slots - len(self.flying))
        if free < 1:
            return
        batches = [self.queue.popleft() for _ in range(free)]
        before = [
            {
                key: _Trace.of(store.run_folder(self.work.results.folder, key))
                for key in batch
            }
            for batch in batches
        ]
        jobs = self.cluster.submit(batches)
        self.flying += [
            _Flying(job, dict(batch), traces)
            for job, batch, traces in zip(jobs, batches, before, strict=True)
        ]

    def _look(self, each: _Flying[JobT]) -> None:
        """Tell which runs of a batch have begun and ended since the last look."""
        for key, config in list(each.left.items()):
            folder = store.run_folder(self.work.results.folder, key)
            before, now = each.before[key], _Trace.of(folder)
            if now.config != before.config and key not in each.begun:
                each.begun.add(key)
                self.work.observer.began(key, config)
            if now.result != before.result and (found := _recorded(folder)):
                del each.left[key]
                self.ledger.ended(found)

    def _land(self, each: _Flying[JobT], outcome: Report | Died) -> None:
        """A job has left: what is left of its batch is handed out again."""
        if isinstance(outcome, Died):
            self._bury(each, outcome.how)
            return
        if outcome.cannot_start is not None:
            raise RequestError(f"a worker cannot start: {outcome.cannot_start}")
        self.ledger.workers_can_begin()
        for text in outcome.warnings:
            self.work.observer.warn(text)
        for key, reason in outcome.unrecorded.items():
            if each.left.pop(key, None):
                self.ledger.lose(key, reason)
        for key in outcome.elsewhere:
            if each.left.pop(key, None):
                self.ledger.wait_for(key)
        self._see(each, outcome.ended)
        if each.left:
            self.queue.append(each.left)

    def _see(self, each: _Flying[JobT], ended: Sequence[str]) -> None:
        """The records of runs that another machine says have one."""
        deadline = time.monotonic() + UNSEEN
        for key in ended:
            if key not in each.left:
                continue
            folder = store.run_folder(self.work.results.folder, key)
            while (found := _recorded(folder)) is None:
                if time.monotonic() > deadline:
                    break
                time.sleep(LOOK)
            del each.left[key]
            if found is not None:
                self.ledger.ended(found)
            else:
                self.ledger.lose(
                    key,
                    f"it is recorded where it was done, and not in {folder.parents[1]} "
                    "here: is that a folder of all machines?",
                )

    def _bury(self, each: _Flying[JobT], how: str) -> None:
        """The process of a batch died: of the run it was at, or of something else.

        That run goes on in a batch of its own; where it was in one, it is given up.
        """
        if not each.left:
            return
        if each.begun:
            self.ledger.workers_can_begin()
        else:
            self.ledger.stillborn(how)
        begun = [key for key in each.left if key in each.begun]
        key = begun[0] if begun else next(iter(each.left))
        config = each.left.pop(key)
        if self.ledger.died_at(key, how):
            self.queue.appendleft({key: config})
        if each.left:
            self.queue.appendleft(each.left)
