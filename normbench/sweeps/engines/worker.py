"""Trains runs in a worker process or a cluster job, and reports events."""

import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from normbench.config.identity import run_id
from normbench.config.schema import RunConfig
from normbench.errors import Busy, NormbenchError, Stopped
from normbench.records.store import Results
from normbench.sweeps.engines.base import Batch, Event
from normbench.system.imports import import_modules
from normbench.system.signals import handled, not_ignored
from normbench.training.experiment import run_one
from normbench.training.observer import Silent


class Reporter(Silent):
    """Observes one run: passes its warnings to `report` as events.

    `training_started` tells whether the training loop has started.
    """

    def __init__(self, report: Callable[[Event], object]) -> None:
        self._report = report
        self.training_started = False

    def start(self, title: str, steps: int) -> None:
        self.training_started = True

    def warn(self, text: str) -> None:
        self._report(Event("warned", text=text))


def do_run(
    config: RunConfig, results: Results, observer: Reporter, stop: Callable[[], bool]
) -> Event:
    """Train one run and return how it ended; an exception becomes an event.

    Raises Stopped if `stop` returned True; the run has then written a checkpoint.
    """
    key = run_id(config)
    try:
        record = run_one(config, results, observer=observer, stop=stop)
        return Event("ended", key, record=record)
    except Busy:
        return Event("elsewhere", key)
    except Stopped:
        raise
    except NormbenchError as error:
        return Event("unrecorded", key, str(error))
    except Exception:  # a bug in one run must not end the other runs
        return Event("unrecorded", key, traceback.format_exc())


def do_batch(batch: Batch, results: Results) -> list[Event]:
    """Train the runs of `batch` one after another, as the job of a cluster.

    After SIGTERM, SIGHUP, SIGINT or SIGUSR2 the current run ends its step, writes a
    checkpoint and stops. The result then has no event of the end of that run and of the
    remaining runs.
    """
    events: list[Event] = []
    with _stop_signals() as stop:
        try:
            import_modules(results.modules)
        except NormbenchError as error:
            return [Event("cannot start", text=str(error)), Event("returned")]
        reporter = Reporter(events.append)
        for config in batch.values():
            if stop():
                break
            try:
                events.append(do_run(config, results, reporter, stop))
            except Stopped:
                break
    return [*events, Event("returned")]


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Handle stop signals; yield a function that tells whether one was received.

    submitit sends SIGUSR2 shortly before a job reaches its time limit.
    """
    received = threading.Event()
    names = ("SIGTERM", "SIGINT", "SIGUSR2")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    with handled([*numbers, *not_ignored("SIGHUP")], lambda *_: received.set()):
        yield received.is_set
