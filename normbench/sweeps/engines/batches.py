"""Base class of the engines `ray` and `slurm`, whose jobs share the results folder.

A job returns its events only at its end. Until then, the files in the results folder
show which of its runs have started and ended. A job writes a checkpoint when it is told
to stop.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from normbench.config.schema import RunRecord
from normbench.errors import Unreadable
from normbench.records import store
from normbench.sweeps.engines.base import Batch, Event, Work

POLL_INTERVAL = 0.5
"""Seconds between two looks at the files of the runs."""
SHARED_FOLDER_DELAY = 60.0
"""Seconds until a record from another machine must be visible; NFS can be slow."""


_Times = tuple[int | None, int | None]
"""Times of the last change, in ns, of a run's config and of its record.

If the config has a new time, the run has started. If the record has one, it has ended.
"""


def _times(folder: Path) -> _Times:
    """Return when config and record were last changed; None for a missing file."""

    def modified(name: str) -> int | None:
        try:
            return (folder / name).stat().st_mtime_ns
        except OSError:
            return None

    return modified(store.CONFIG), modified(store.RESULT)


def _record(folder: Path) -> RunRecord | None:
    """Return the record in a run's folder, None if it cannot be read (yet)."""
    with suppress(Unreadable):
        return store.read(folder)
    return None


@dataclass
class Job:
    """A task of the cluster.

    `pending` are those of its runs whose new record has not been read yet, with the
    times of their files at the last submission.
    """

    task: Any
    pending: dict[str, _Times]
    begun: set[str] = field(default_factory=set)


class Cluster(ABC):
    """A backend whose processes share only the results folder with this process."""

    patience = 30.0
    """Seconds that a job gets to end after it was told to stop."""

    def __init__(self, work: Work, slots: int, batch_size: int) -> None:
        self.slots, self.batch_size = slots, batch_size
        self.results = work.results.resolved()

    @abstractmethod
    def start(self, batches: Sequence[Batch]) -> list[Any]:
        """Start a task for each batch; the task calls `do_batch`."""

    @abstractmethod
    def task_events(self, task: Any) -> list[Event] | None:
        """Return what `do_batch` returned, or the death of its process as an event.

        Returns None while the task runs.
        """

    @abstractmethod
    def cancel(self, task: Any) -> None:
        """Send the process of `task` a signal that `do_batch` handles."""

    def pause(self, tasks: Sequence[Any], seconds: float) -> None:
        """Wait for `seconds`, or until one of `tasks` may have ended."""
        time.sleep(seconds)

    def submit(self, batches: Sequence[Batch]) -> list[Job]:
        times = [{key: _times(self._folder(key)) for key in b} for b in batches]
        tasks = self.start(batches)
        return [Job(task, t) for task, t in zip(tasks, times, strict=True)]

    def wait(self, jobs: Sequence[Job], seconds: float | None) -> None:
        limit = POLL_INTERVAL if seconds is None else min(POLL_INTERVAL, seconds)
        self.pause([job.task for job in jobs], limit)

    def events(self, job: Job) -> Iterator[Event]:
        # The files are read after the task's end was seen, so they are complete then.
        task_events = self.task_events(job.task)
        for key, (config_before, record_before) in list(job.pending.items()):
            folder = self._folder(key)
            config_now, record_now = _times(folder)
            if config_now != config_before and key not in job.begun:
                job.begun.add(key)
                yield Event("began", key)
            if record_now != record_before and (record := _record(folder)):
                del job.pending[key]
                yield Event("ended", key, record=record)
        for event in task_events or ():
            if event.kind != "ended":
                yield event
            elif event.run_id in job.pending:
                yield self._wait_for_record(event.run_id)

    def stop(self, job: Job) -> None:
        self.cancel(job.task)

    def _wait_for_record(self, run_id: str) -> Event:
        """Wait until a record that another machine wrote is visible to this one."""
        folder = self._folder(run_id)
        deadline = time.monotonic() + SHARED_FOLDER_DELAY
        while (record := _record(folder)) is None:
            if time.monotonic() > deadline:
                reason = (
                    "another machine has recorded it, but the record does not appear "
                    f"in {folder.parents[1]} on this machine: do all machines share "
                    "that folder?"
                )
                return Event("unrecorded", run_id, reason)
            time.sleep(POLL_INTERVAL)
        return Event("ended", run_id, record=record)

    def _folder(self, run_id: str) -> Path:
        return store.run_folder(self.results.folder, run_id)
