"""Hands runs out to a backend and follows them until each has come to an end.

Nothing is lost with a process: finished runs are on disk, and an interrupted run
resumes from its checkpoint. So the follower submits a run again if its process died,
and looks again at a run that another command is doing.
"""

import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic

from normbench.config.schema import RunRecord
from normbench.errors import Busy, NormbenchError, RequestError
from normbench.records import store
from normbench.sweeps.engines.base import Backend, Batch, Event, JobT, Work
from normbench.training.experiment import record_failure

ATTEMPTS = 2
"""How many processes a run may kill before it is recorded as failed."""
STARTS = 3
"""How many processes may die in a row without having begun a run."""
RETRY = 1.0
"""Seconds before looking again at a run that another command is doing."""
STOPPING = 0.5
"""Seconds between looks at jobs that were told to stop."""


def follow(backend: Backend[JobT], work: Work) -> None:
    """Do every run of `work` on `backend`.

    A run whose process dies is tried once more, then recorded as failed; the others go
    on. A run that another command is doing is waited for. After an interrupt
    (KeyboardInterrupt) or an error the jobs that are running write their checkpoints; a
    second interrupt ends that. Raises RequestError if a worker cannot import a module,
    NormbenchError if workers die before they begin anything.
    """
    work.announce(backend.slots)
    work.forecast.workers = backend.slots
    follower = _Follower(backend, work)
    try:
        work.observer.start(len(work.runs), work.forecast.seconds())
        follower.finish_all()
    except (KeyboardInterrupt, NormbenchError):
        follower.stop()
        raise
    finally:
        work.observer.close()


@dataclass
class _Job(Generic[JobT]):
    """A job, and those runs of its batch that are not known to have ended."""

    handle: JobT
    left: Batch
    begun: set[str] = field(default_factory=set)


class _Follower(Generic[JobT]):
    """The jobs that are running, the batches to submit, and the runs to wait for."""

    def __init__(self, backend: Backend[JobT], work: Work) -> None:
        self.backend, self.work = backend, work
        count = -(-len(work.runs) // backend.batch_size)
        # Deal the runs in turn: neighbours take similar times, so batches do too.
        keys = list(work.runs)
        self.queue = deque(self._batch(keys[i::count]) for i in range(count))
        self.jobs: list[_Job[JobT]] = []
        self.next_look: dict[str, float] = {}  # runs elsewhere -> time.monotonic()
        self.deaths: Counter[str] = Counter()
        self.failed_starts = 0
        self.any_begun = False

    def finish_all(self) -> None:
        """Return once every run has come to an end."""
        while True:
            self._submit()
            if not self.jobs and not self.next_look:
                return
            look = min(self.next_look.values(), default=None)
            seconds = None if look is None else max(0.0, look - time.monotonic())
            self.backend.wait([job.handle for job in self.jobs], seconds)
            for job in list(self.jobs):
                for event in self.backend.events(job.handle):
                    self._handle(job, event)

    def stop(self) -> None:
        """Tell the jobs to write checkpoints and leave, and wait for that."""
        self.work.observer.stopping()
        for job in self.jobs:
            self.backend.stop(job.handle)
        deadline = time.monotonic() + self.backend.patience
        while self.jobs and time.monotonic() < deadline:
            self.backend.wait([job.handle for job in self.jobs], STOPPING)
            for job in list(self.jobs):
                try:
                    for event in self.backend.events(job.handle):
                        if event.kind == "ended":
                            self._handle(job, event)
                        elif event.kind in {"returned", "died"}:
                            self.jobs.remove(job)
                except NormbenchError:  # the command reports its first error only
                    self.jobs.remove(job)

    def _batch(self, keys: Iterable[str]) -> Batch:
        return {key: self.work.runs[key] for key in keys}

    def _submit(self) -> None:
        if free_again := self._no_longer_elsewhere():
            size = self.backend.batch_size
            for start in range(0, len(free_again), size):
                self.queue.append(self._batch(free_again[start : start + size]))
        count = min(len(self.queue), self.backend.slots - len(self.jobs))
        if count > 0:
            batches = [self.queue.popleft() for _ in range(count)]
            handles = self.backend.submit(batches)
            for handle, batch in zip(handles, batches, strict=True):
                self.jobs.append(_Job(handle, dict(batch)))

    def _no_longer_elsewhere(self) -> list[str]:
        """The runs that another command was doing and has left."""
        now, left = time.monotonic(), []
        for run_id, look in list(self.next_look.items()):
            if look > now:
                continue
            if store.is_running(store.run_folder(self.work.results.folder, run_id)):
                self.next_look[run_id] = now + RETRY
            else:
                del self.next_look[run_id]
                left.append(run_id)
        return left

    def _handle(self, job: _Job[JobT], event: Event) -> None:
        run_id, observer = event.run_id, self.work.observer
        match event.kind:
            case "cannot start":
                raise RequestError(f"a worker cannot start: {event.text}")
            case "began":
                self._workers_begin()
                job.begun.add(run_id)
                observer.began(run_id, self.work.runs[run_id])
            case "warned":
                observer.warn(event.text)
            case "returned":
                self._workers_begin()
                self.jobs.remove(job)
                if job.left:
                    self.queue.append(job.left)
            case "died":
                self.jobs.remove(job)
                self._died(job, event.text)
            case _ if job.left.pop(run_id, None) is None:
                pass  # its end was seen before
            case "ended":
                assert event.record is not None
                self._recorded(event.record)
            case "elsewhere":
                self._wait_for(run_id)
            case "unrecorded":
                self._unrecorded(run_id, event.text)
            case "expired":
                self._give_up(run_id, event.text)

    def _workers_begin(self) -> None:
        self.failed_starts, self.any_begun = 0, True

    def _died(self, job: _Job[JobT], how: str) -> None:
        """Submit the runs of a dead process again, the one that it was at on its own.

        A run that was alone in its batch twice is given up.
        """
        if not job.left:
            return
        begun = [key for key in job.left if key in job.begun]
        if not begun:
            self.failed_starts += 1
            if self.failed_starts >= STARTS:
                raise NormbenchError(
                    f"{STARTS} workers one after another died before they began a run; "
                    f"the last one {how}"
                )
        run_id = begun[0] if begun else next(iter(job.left))
        alone = {run_id: job.left.pop(run_id)}
        # While no worker has begun anything, the run is not to blame.
        self.deaths[run_id] += bool(begun) or self.any_begun
        if self.deaths[run_id] < ATTEMPTS:
            text = f"the worker of run {run_id} {how}; it begins once more"
            self.work.observer.warn(text)
            self.queue.appendleft(alone)
        else:
            self._give_up(run_id, f"its worker {how}, {ATTEMPTS} times")
        if job.left:
            self.queue.appendleft(job.left)

    def _wait_for(self, run_id: str) -> None:
        """Look at a run of another command later."""
        self.next_look[run_id] = time.monotonic() + RETRY
        self.work.observer.waiting(run_id)

    def _give_up(self, run_id: str, reason: str) -> None:
        """Record that the run failed, unless another command has it, or did it."""
        try:
            record = record_failure(self.work.runs[run_id], self.work.results, reason)
        except Busy:
            self._wait_for(run_id)
        except NormbenchError as error:
            self._unrecorded(run_id, f"{reason}; {error}")
        else:
            self._recorded(record)

    def _recorded(self, record: RunRecord) -> None:
        self.work.forecast.learn(record)
        self.work.observer.ended(record, self.work.forecast.seconds())

    def _unrecorded(self, run_id: str, reason: str) -> None:
        self.work.forecast.give_up(run_id, self.work.runs[run_id])
        self.work.observer.unrecorded(run_id, reason)
