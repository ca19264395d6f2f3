"""Overrides of small sweeps, an observer that records its calls, and a way to wait."""

import time
from collections.abc import Callable

from conftest import SMALL

from normbench.config.schema import RunConfig, RunRecord

# A metric of `test` and one of `val` are enough to compare runs.
CHEAP = [*SMALL["cnn"], "tracker=none", "budget=smoke", "evaluation.at_end=[val]"]
THIRTY_STEPS = [*CHEAP, "budget.max_steps=30", "log_every=1", "evaluations=1"]
THIRTY_STEPS += ["checkpoint.every=5"]
ONE_STEP = [*CHEAP, "norm=affine", "budget.max_steps=1"]
PATIENCE = 600
"""Seconds after which a process is considered hung, even on a slow machine."""


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"timeout: {what}"
        time.sleep(0.02)


class RecordingObserver:
    """The observer of a sweep that records all calls."""

    def __init__(self) -> None:
        self.records: dict[str, RunRecord] = {}
        self.lost: dict[str, str] = {}
        self.begun: list[str] = []
        self.waited: list[str] = []
        self.warnings: list[str] = []
        self.calls: list[str] = []

    def start(self, missing: int, left: float | None) -> None:
        self.calls.append("start")

    def began(self, run_id: str, config: RunConfig) -> None:
        self.begun.append(run_id)

    def ended(self, record: RunRecord, left: float | None) -> None:
        assert record.run_id not in self.records
        self.records[record.run_id] = record

    def unrecorded(self, run_id: str, reason: str) -> None:
        self.lost[run_id] = reason

    def waiting(self, run_id: str) -> None:
        self.waited.append(run_id)

    def stopping(self, *, time_is_over: bool) -> None:
        self.calls.append("stopping")

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def close(self) -> None:
        self.calls.append("close")
