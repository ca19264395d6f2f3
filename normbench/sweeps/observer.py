"""The interface of objects that show or record the progress of a sweep."""

import warnings
from typing import Protocol

from normbench.config.schema import RunConfig, RunRecord


class SweepObserver(Protocol):
    """Receives the events of a sweep: first `start`, last `close`.

    `left` is the expected number of seconds to the end of the sweep, None if unknown.
    """

    def start(self, missing: int, left: float | None) -> None:
        """The sweep starts, with this number of missing runs."""

    def began(self, run_id: str, config: RunConfig) -> None:
        """A run has started."""

    def ended(self, record: RunRecord, left: float | None) -> None:
        """A run has ended with `record`."""

    def unrecorded(self, run_id: str, reason: str) -> None:
        """A run has ended without a record."""

    def waiting(self, run_id: str) -> None:
        """Another command is training the run; the sweep waits for it."""

    def stopping(self, *, time_is_over: bool) -> None:
        """The sweep's time is over, or it was interrupted; runs write checkpoints."""

    def warn(self, text: str) -> None:
        """A worker or the sweep itself has a warning."""

    def close(self) -> None:
        """The sweep has ended, in any way."""


class QuietSweep:
    """An observer that shows no progress; what went wrong is a Python warning."""

    def start(self, missing: int, left: float | None) -> None:
        pass

    def began(self, run_id: str, config: RunConfig) -> None:
        pass

    def ended(self, record: RunRecord, left: float | None) -> None:
        pass

    def unrecorded(self, run_id: str, reason: str) -> None:
        self.warn(f"run {run_id} has no record: {reason}")

    def waiting(self, run_id: str) -> None:
        pass

    def stopping(self, *, time_is_over: bool) -> None:
        pass

    def warn(self, text: str) -> None:
        warnings.warn(text, stacklevel=2)

    def close(self) -> None:
        pass
