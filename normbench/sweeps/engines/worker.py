"""What a process of any engine does with a run."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass

from normbench.config.schema import RunConfig, RunRecord
from normbench.errors import Busy, NormbenchError, Stopped
from normbench.records.store import Results
from normbench.training.experiment import run_one
from normbench.training.observer import Silent


@dataclass(frozen=True)
class Ended:
    """The run has a record."""

    record: RunRecord


@dataclass(frozen=True)
class Elsewhere:
    """Another process is doing the run."""


@dataclass(frozen=True)
class Unrecorded:
    """The run could not be recorded."""

    reason: str


class Whisper(Silent):
    """What is passed on of a run: its warnings, and whether it has begun to train."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self.training = False

    def start(self, title: str, steps: int) -> None:
        self.training = True

    def warn(self, text: str) -> None:
        self._warn(text)


def do_run(
    config: RunConfig,
    results: Results,
    observer: Whisper,
    stop: Callable[[], bool],
) -> Ended | Elsewhere | Unrecorded:
    """Do one run as `run_one` does; whatever goes wrong, the other runs can go on.

    Raises Stopped once `stop` says so, the run being saved.
    """
    try:
        return Ended(run_one(config, results, observer=observer, stop=stop))
    except Busy:
        return Elsewhere()
    except Stopped:
        raise
    except NormbenchError as error:
        return Unrecorded(str(error))
    except Exception:  # whatever it was, the other runs go on
        return Unrecorded(traceback.format_exc())
