"""Submits runs to a backend and handles their events until all runs have ended.

If a process dies, the follower submits its run again, and the run resumes from its
checkpoint. If another command is training a run, the follower waits for it.
"""

import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil, inf
from typing import Generic

from normbench.config.schema import RunRecord
from normbench.errors import Busy, NormbenchError, RequestError
from normbench.records import store
from normbench.sweeps.engines.base import Backend, Batch, Event, JobT, Work
from normbench.training.experiment import record_failure

MAX_DEATHS = 2
"""A run is recorded as failed once this number of its processes have died."""
MAX_FAILED_STARTS = 3
"""The sweep ends once this number of processes in a row died before a run started."""
RETRY_INTERVAL = 1.0
"""Seconds between two checks of a run that another command is training."""
LONGEST_WAIT = 3600.0
"""Seconds after which a wait begins anew: the system refuses to wait for many weeks."""
STOP_POLL_INTERVAL = 0.5
"""Seconds between two checks of jobs that were told to stop."""


def follow(backend: Backend[JobT], work: Work) -> None:
    """Train every run of `work` on `backend`, but not longer than to its deadline.

    If a process dies, its run is submitted once more; if the second process dies too,
    the run is recorded as failed. Other runs are not affected. If another command is
    training a run, the function waits for it.

    At the deadline, and after KeyboardInterrupt or an error, the function waits until
    the running jobs have written checkpoints; an interrupt ends this wait. Raises
    RequestError if a worker cannot import a module, NormbenchError if workers die
    before a run starts.
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
    else:  # outside of `try`, so that an interrupt ends this wait too
        if follower.jobs:
            follower.stop(time_is_over=True)
    finally:
        work.observer.close()


@dataclass
class _Job(Generic[JobT]):
    """A running job of the backend.

    `pending` are the runs of the job's batch that have not ended. `begun` are the ids
    of the runs that have started.
    """

    handle: JobT
    pending: Batch
    begun: set[str] = field(default_factory=set)


class _Follower(Generic[JobT]):
    """The running jobs, the batches to submit, and the runs of other commands."""

    def __init__(self, backend: Backend[JobT], work: Work) -> None:
        self.backend, self.work = backend, work
        count = ceil(len(work.runs) / backend.batch_size)
        # Neighbouring runs take similar times. Each batch takes every `count`-th run,
        # so that all batches take similar times too.
        keys = list(work.runs)
        self.queue = deque(self._batch(keys[i::count]) for i in range(count))
        self.jobs: list[_Job[JobT]] = []
        self.next_check: dict[str, float] = {}
        """When (time.monotonic) to check each run that another command is training."""
        self.deaths: Counter[str] = Counter()  # run id -> dead processes
        self.failed_starts = 0  # dead processes in a row that began no run
        self.any_begun = False

    def finish_all(self) -> None:
        """Submit jobs and handle their events until every run has ended.

        At the deadline of the work, the function returns, and jobs may be running.
        """
        deadline = inf if self.work.deadline is None else self.work.deadline
        while time.monotonic() < deadline:
            self._submit()
            if not self.jobs and not self.next_check:
                return
            first = min([*self.next_check.values(), deadline])
            seconds = min(max(0.0, first - time.monotonic()), LONGEST_WAIT)
            self.backend.wait([job.handle for job in self.jobs], seconds)
            for job in list(self.jobs):
                for event in self.backend.events(job.handle):
                    self._handle(job, event)

    def stop(self, *, time_is_over: bool = False) -> None:
        """Tell the jobs to write checkpoints and exit, and wait until they have ended.

        The wait is limited to the backend's `patience`.
        """
        self.work.observer.stopping(time_is_over=time_is_over)
        for job in self.jobs:
            self.backend.stop(job.handle)
        deadline = time.monotonic() + self.backend.patience
        while self.jobs and time.monotonic() < deadline:
            self.backend.wait([job.handle for job in self.jobs], STOP_POLL_INTERVAL)
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
        """Submit batches of the queue while the backend has free slots."""
        keys, size = self._left_by_other_commands(), self.backend.batch_size
        for start in range(0, len(keys), size):
            self.queue.append(self._batch(keys[start : start + size]))
        count = min(len(self.queue), self.backend.slots - len(self.jobs))
        if count > 0:
            batches = [self.queue.popleft() for _ in range(count)]
            handles = self.backend.submit(batches)
            for handle, batch in zip(handles, batches, strict=True):
                self.jobs.append(_Job(handle, dict(batch)))

    def _left_by_other_commands(self) -> list[str]:
        """Return the ids of waiting runs that no other command is training any more."""
        now, run_ids = time.monotonic(), []
        for run_id, check in list(self.next_check.items()):
            if check > now:
                continue
            if store.is_running(store.run_folder(self.work.results.folder, run_id)):
                self.next_check[run_id] = now + RETRY_INTERVAL
            else:
                del self.next_check[run_id]
                run_ids.append(run_id)
        return run_ids

    def _handle(self, job: _Job[JobT], event: Event) -> None:
        run_id, observer = event.run_id, self.work.observer
        match event.kind:
            case "cannot start":
                raise RequestError(f"a worker cannot start: {event.text}")
            case "began":
                self._count_good_start()
                job.begun.add(run_id)
                observer.began(run_id, self.work.runs[run_id])
            case "warned":
                observer.warn(event.text)
            case "returned":
                self._count_good_start()
                self.jobs.remove(job)
                if job.pending:
                    self.queue.append(job.pending)
            case "died":
                self.jobs.remove(job)
                self._handle_death(job, event.text)
            # Each event below is the last one of a run; `pop` removes the run.
            case _ if job.pending.pop(run_id, None) is None:
                pass  # an earlier event has ended this run
            case "ended":
                assert event.record is not None
                self._recorded(event.record)
            case "elsewhere":
                self._wait_for(run_id)
            case "unrecorded":
                self._unrecorded(run_id, event.text)
            case "expired":
                self._record_failure(run_id, event.text)

    def _count_good_start(self) -> None:
        self.failed_starts, self.any_begun = 0, True

    def _handle_death(self, job: _Job[JobT], how: str) -> None:
        """Submit the pending runs of a dead process again.

        The run that the process was training gets a batch of its own, or is recorded as
        failed after MAX_DEATHS.
        """
        if not job.pending:
            return
        begun = [key for key in job.pending if key in job.begun]
        if not begun:
            self.failed_starts += 1
            if self.failed_starts >= MAX_FAILED_STARTS:
                raise NormbenchError(
                    f"{MAX_FAILED_STARTS} workers one after another died before a run "
                    f"started; the last one {how}"
                )
        # The process was training this run, or would have trained it first.
        run_id = begun[0] if begun else next(iter(job.pending))
        batch = {run_id: job.pending.pop(run_id)}
        if begun or self.any_begun:  # otherwise the workers may be broken
            self.deaths[run_id] += 1
        if self.deaths[run_id] < MAX_DEATHS:
            text = f"the worker of run {run_id} {how}; the run is tried once more"
            self.work.observer.warn(text)
            self.queue.appendleft(batch)
        else:
            self._record_failure(run_id, f"its worker {how}, {MAX_DEATHS} times")
        if job.pending:
            self.queue.appendleft(job.pending)

    def _wait_for(self, run_id: str) -> None:
        """Check later whether another command is still training the run."""
        self.next_check[run_id] = time.monotonic() + RETRY_INTERVAL
        self.work.observer.waiting(run_id)

    def _record_failure(self, run_id: str, reason: str) -> None:
        """Record the run as failed, unless another command trains or finished it."""
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
