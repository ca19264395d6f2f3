"""The interface of all engines: the work they receive and the events they report.

All engines train a run with the same code, and a run ends in a record on disk. So
several engines can work on one results folder at the same time.
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
    """Return the number of cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parallel(engine: Engine) -> int:
    """Return how many runs the engine trains at the same time.

    If `engine.workers` is not set, the result is the number of cores of this machine.
    This is so for a Ray cluster too, because its size is unknown before a connection.
    """
    return engine.workers or cores()


@contextmanager
def blocked(*signals: signal.Signals) -> Iterator[None]:
    """Delay `signals` until the block ends.

    Child processes inherit the mask, so a process that is started in the block never
    receives the signals.
    """
    if sys.platform == "win32":
        yield
        return
    previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)


@dataclass(frozen=True)
class Work:
    """The runs that an engine trains, by run id, and where their records go.

    The engine reports to `observer` and updates `forecast`. Once the engine is ready,
    it calls `announce` with the number of parallel runs. At the time `deadline` of
    `time.monotonic`, running runs write checkpoints, and no other run starts.
    """

    runs: Mapping[str, RunConfig]
    results: Results
    forecast: Forecast
    observer: SweepObserver
    announce: Callable[[int], None] = lambda workers: None
    deadline: float | None = None


@dataclass(frozen=True)
class Event:
    """What happened to a run, or to the job (process) that trains it.

    began         The run has started.
    ended         The run has ended with `record`.
    elsewhere     Another command is training the run.
    unrecorded    The run has no record; `text` is the reason.
    expired       The run must be recorded as failed; `text` is the reason.
    warned        The process has printed the warning `text`.
    cannot start  The process cannot train any run; `text` is the reason.
    returned      The job has returned. Its runs without an event must be done later.
    died          The job's process has died. `text` completes the sentence "the worker
                  of run X ...", such as "was killed by SIGKILL".
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
"""Configs by run id; one process trains these runs one after another."""

JobT = TypeVar("JobT")


class Backend(Protocol[JobT]):
    """Executes batches of runs as jobs, such as processes or tasks of a cluster.

    At most `slots` jobs run at the same time, with at most `batch_size` runs each. A
    job gets `patience` seconds to end after it was told to stop.
    """

    slots: int
    batch_size: int
    patience: float

    def submit(self, batches: Sequence[Batch]) -> list[JobT]:
        """Start a job for each batch."""

    def wait(self, jobs: Sequence[JobT], seconds: float | None) -> None:
        """Wait until one of `jobs` may have new events, but at most `seconds`.

        If `seconds` is None, the wait has no limit.
        """

    def events(self, job: JobT) -> Iterable[Event]:
        """Return the events since the last call; "returned" or "died" is the last one.

        Raises NormbenchError if no job can train runs.
        """

    def stop(self, job: JobT) -> None:
        """Tell the process of `job` to write a checkpoint and exit."""
