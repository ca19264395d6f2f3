"""What does the runs of a plan: processes of this machine, or of others.

Every engine does the same with a run, and tells of it by its record on disk alone, so
that several of them can work on one results folder at a time.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from normbench.config.schema import Engine, LocalEngine, RayEngine, RunConfig
from normbench.records.store import Results

if TYPE_CHECKING:
    from normbench.sweeps.forecast import Forecast
    from normbench.sweeps.observer import SweepObserver


def cores() -> int:
    """How many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parallel(engine: Engine) -> int:
    """How many runs go side by side.

    A Ray cluster that was not asked yet counts as this machine.
    """
    return engine.workers or cores()


@contextmanager
def held(*signals: signal.Signals) -> Iterator[None]:
    """Let `signals` wait until this is over; a process started in it never has them."""
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
    """`runs` (by run id) to be done, recorded under `results`, and who hears of it.

    `announce` hears how many runs go side by side as soon as the engine is there,
    `observer` of every end.
    """

    runs: Mapping[str, RunConfig]
    results: Results
    forecast: "Forecast"
    observer: "SweepObserver"
    announce: Callable[[int], None] = lambda workers: None


def run_all(work: Work, engine: Engine) -> None:
    """Do every run of `work` that is not finished, and record it.

    A run whose process dies is tried once more, then recorded as failed; the others go
    on. A run that another process is doing is waited for. An interrupt
    (KeyboardInterrupt) lets the runs write their checkpoints first; another one does
    not. Raises RequestError where the engine cannot be had or a module cannot be
    imported by a worker, NormbenchError where workers die before they begin anything.
    """
    if isinstance(engine, LocalEngine):
        from normbench.sweeps.engines import local

        local.run_all(work, engine)
    elif isinstance(engine, RayEngine):
        from normbench.sweeps.engines import ray

        ray.run_all(work, engine)
    else:
        from normbench.sweeps.engines import slurm

        slurm.run_all(work, engine)
