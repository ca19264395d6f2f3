"""What every engine is given and reports.

Every engine does a run in the same way, and what a run leaves is its record on disk, so
that several engines can work on one results folder at a time.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from normbench.config.schema import Engine, RunConfig, RunRecord
from normbench.records.store import Results
from normbench.sweeps.forecast import Forecast
from normbench.sweeps.observer import SweepObserver


def cores() -> int:
    """How many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parallel(engine: Engine) -> int:
    """How many runs go side by side.

    A Ray cluster that is not connected yet counts as this machine.
    """
    return engine.workers or cores()


@contextmanager
def blocked(*signals: signal.Signals) -> Iterator[None]:
    """Delay `signals` until the block ends; processes started in it never get them."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True)
class Work:
    """`runs` (by run id) to do and record under `results`, and who follows them.

    `announce` is called with the number of parallel runs once the engine is ready.
    """

    runs: Mapping[str, RunConfig]
    results: Results
    forecast: Forecast
    observer: SweepObserver
    announce: Callable[[int], None] = lambda workers: None


@dataclass(frozen=True)
class Event:
    """What happened to a run, or to the process that does it.

    began         the run has begun
    ended         it has this record
    elsewhere     another command is doing it
    unrecorded    it could not be recorded, because of `text`
    expired       it must be recorded as failed, because of `text`
    warned        the process says `text`
    cannot start  the process can do no run, because of `text`
    returned      the job is over; its runs without such an end are still to do
    died          the job is over; `text` continues "the worker of run X"
    """

    kind: Literal[
        "began",
        "ended",
        "elsewhere",
        "unrecorded",
        "expired",
        "warned",
        "cannot start",
        "returned",
        "died",
    ]
    run_id: str = ""
    text: str = ""
    record: RunRecord | None = None


Batch = dict[str, RunConfig]
"""Some of the runs, by id; one process does them one after another."""

JobT = TypeVar("JobT")


class Backend(Protocol[JobT]):
    """Does batches: at most `slots` at a time, of `batch_size` runs each.

    `patience` are the seconds that jobs have to leave once they are told to stop.
    """

    slots: int
    batch_size: int
    patience: float

    def submit(self, batches: Sequence[Batch]) -> list[JobT]:
        """Start a job for each batch."""

    def wait(self, jobs: Sequence[JobT], seconds: float | None) -> None:
        """Return when one of `jobs` may have news, at the latest after `seconds`."""

    def events(self, job: JobT) -> Iterable[Event]:
        """What has happened since the last call; "returned" or "died" comes last.

        Raises NormbenchError if no job can do runs.
        """

    def stop(self, job: JobT) -> None:
        """Tell the process of `job` to write a checkpoint and leave."""
