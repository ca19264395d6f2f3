"""What a process of any engine does with runs."""

import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from normbench.config.identity import run_id
from normbench.config.schema import RunConfig
from normbench.config.user_modules import import_modules
from normbench.errors import Busy, NormbenchError, Stopped
from normbench.records.store import Results
from normbench.sweeps.engines.base import Batch, Event
from normbench.system.signals import handled, not_ignored
from normbench.training.experiment import run_one
from normbench.training.observer import Silent


class Reporter(Silent):
    """Reports the warnings of a run, and notes whether it has begun to train."""

    def __init__(self, report: Callable[[Event], object]) -> None:
        self._report = report
        self.training = False

    def start(self, title: str, steps: int) -> None:
        self.training = True

    def warn(self, text: str) -> None:
        self._report(Event("warned", text=text))


def do_run(
    config: RunConfig, results: Results, observer: Reporter, stop: Callable[[], bool]
) -> Event:
    """Do one run as `run_one` does; no error of it ends the process.

    Raises Stopped once `stop` returns True and the run is saved.
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
    except Exception:  # whatever it was, the other runs go on
        return Event("unrecorded", key, traceback.format_exc())


def do_batch(batch: Batch, results: Results) -> list[Event]:
    """Do the runs of `batch`: what a job of a cluster calls.

    SIGTERM, SIGHUP, SIGINT or SIGUSR2 stops it after the current step, with a
    checkpoint; the runs that are left have no event.
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
    """Whether a signal has come that asks this process to leave."""
    received = threading.Event()
    names = ("SIGTERM", "SIGINT", "SIGUSR2")  # the last is submitit's, before a timeout
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    with handled([*numbers, *not_ignored("SIGHUP")], lambda *_: received.set()):
        yield received.is_set
