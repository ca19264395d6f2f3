"""Jobs on machines that share the results folder: the base of `ray` and `slurm`.

A job reports only when it leaves. Until then the records on disk show which of its runs
have begun and ended. A job that was told to stop leaves checkpoints.
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

LOOK = 0.5
"""Seconds between two looks at the records."""
UNSEEN = 60.0
"""Seconds until a record that was written elsewhere must be seen: NFS may take them."""


_Times = tuple[int | None, int | None]


def _times(folder: Path) -> _Times:
    """When config and record of a run were written (ns): they show begin and end."""

    def written(name: str) -> int | None:
        try:
            return (folder / name).stat().st_mtime_ns
        except OSError:
            return None

    return written(store.CONFIG), written(store.RESULT)


def _record(folder: Path) -> RunRecord | None:
    """The record there, if it can be read by now."""
    with suppress(Unreadable):
        return store.read(folder)
    return None


@dataclass
class Job:
    """A task of the cluster, and the runs of it whose records are not seen yet."""

    task: Any
    unseen: dict[str, _Times]
    begun: set[str] = field(default_factory=set)


class Cluster(ABC):
    """A backend whose processes share nothing with this one but the results folder."""

    patience = 30.0

    def __init__(self, work: Work, slots: int, batch_size: int) -> None:
        self.slots, self.batch_size = slots, batch_size
        self.results = work.results.resolved()

    @abstractmethod
    def start(self, batches: Sequence[Batch]) -> list[Any]:
        """Start a task for each batch; it calls `do_batch`."""

    @abstractmethod
    def outcome(self, task: Any) -> list[Event] | None:
        """What `do_batch` returned, or that its process died; None while it runs."""

    @abstractmethod
    def cancel(self, task: Any) -> None:
        """Send the process of `task` a signal that `do_batch` knows."""

    def pause(self, tasks: Sequence[Any], seconds: float) -> None:
        """Wait for `seconds`, or until one of `tasks` may have ended."""
        time.sleep(seconds)

    def submit(self, batches: Sequence[Batch]) -> list[Job]:
        times = [{key: _times(self._folder(key)) for key in b} for b in batches]
        tasks = self.start(batches)
        return [Job(task, t) for task, t in zip(tasks, times, strict=True)]

    def wait(self, jobs: Sequence[Job], seconds: float | None) -> None:
        limit = LOOK if seconds is None else min(LOOK, seconds)
        self.pause([job.task for job in jobs], limit)

    def events(self, job: Job) -> Iterator[Event]:
        outcome = self.outcome(job.task)
        for key, (config_before, record_before) in list(job.unseen.items()):
            folder = self._folder(key)
            config_now, record_now = _times(folder)
            if config_now != config_before and key not in job.begun:
                job.begun.add(key)
                yield Event("began", key)
            if record_now != record_before and (record := _record(folder)):
                del job.unseen[key]
                yield Event("ended", key, record=record)
        for event in outcome or ():
            if event.kind != "ended":
                yield event
            elif event.run_id in job.unseen:
                yield self._seen_here(event.run_id)

    def stop(self, job: Job) -> None:
        self.cancel(job.task)

    def _seen_here(self, run_id: str) -> Event:
        """Wait for the record of a run that another machine has recorded."""
        folder, deadline = self._folder(run_id), time.monotonic() + UNSEEN
        while (record := _record(folder)) is None:
            if time.monotonic() > deadline:
                reason = (
                    f"another machine recorded it, but not in {folder.parents[1]} "
                    "here: do all machines share that folder?"
                )
                return Event("unrecorded", run_id, reason)
            time.sleep(LOOK)
        return Event("ended", run_id, record=record)

    def _folder(self, run_id: str) -> Path:
        return store.run_folder(self.results.folder, run_id)
