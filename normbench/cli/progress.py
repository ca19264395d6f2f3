"""The progress of a run and of a sweep, as text."""

import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from normbench.cli.console import Terminal
from normbench.config.schema import RunConfig, RunRecord
from normbench.config.titles import title
from normbench.training.observer import Observer, Silent


class Bar:
    """A progress bar with step, loss and time left, for a terminal."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )

    def start(self, title: str, steps: int) -> None:
        self._progress.add_task(title, total=steps, loss="-")
        self._progress.start()

    def log(self, row: Mapping[str, Any]) -> None:
        for task in self._progress.task_ids:
            self._progress.update(task, completed=row["step"])
            if "train/batch_loss" in row:
                self._progress.update(task, loss=f"{row['train/batch_loss']:.4f}")

    def note(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def warn(self, text: str) -> None:
        self._progress.console.print(
            f"warning: {text}", markup=False, highlight=False, style="yellow"
        )

    def close(self) -> None:
        self._progress.stop()


class Lines(Silent):
    """A plain line for each evaluation, if there is no terminal."""

    def __init__(self) -> None:
        self._steps = 0
        self._began = time.perf_counter()

    def start(self, title: str, steps: int) -> None:
        self._steps = steps
        self._began = time.perf_counter()
        self.note(f"{title}: {steps} steps")

    def log(self, row: Mapping[str, Any]) -> None:
        metrics = [
            f"{key} {value:.4f}"
            for key, value in row.items()
            if key.startswith(("val/", "test/"))
        ]
        if metrics:
            seconds = time.perf_counter() - self._began
            where = f"step {row['step']}/{self._steps}"
            self.note(f"{where}  {'  '.join(metrics)}  {seconds:.0f} s")

    def note(self, text: str) -> None:
        with suppress(OSError):  # if a program of the user's has other streams
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        self.note(f"warning: {text}")


def run_observer() -> Observer:
    """A bar if stderr is a terminal, else lines."""
    console = Terminal(stderr=True)
    return Bar(console) if console.is_terminal else Lines()


def duration(seconds: float) -> str:
    """Such as "40 s", "3 min", "2.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@dataclass
class Tally:
    """The runs of a sweep that are running or have ended, in this process."""

    running: dict[str, str] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    unrecorded: dict[str, str] = field(default_factory=dict)

    @property
    def ended(self) -> int:
        return self.statuses.total() + len(self.unrecorded)

    def words(self) -> str:
        """Such as "11 ok, 1 failed, 2 running"."""
        counts = {**self.statuses, "without a record": len(self.unrecorded)}
        counts["running"] = len(self.running)
        return ", ".join(f"{n} {status}" for status, n in counts.items() if n)


class SweepProgress:
    """A line for each run that ends; on a terminal, a bar over the sweep below them."""

    def __init__(self, console: Console) -> None:
        self.tally = Tally()
        self._missing = 0
        self._left: float | None = None
        self._printed: set[str] = set()
        self._console = console
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", start=False)

    def start(self, missing: int, left: float | None) -> None:
        self._missing, self._left = missing, left
        about = "" if left is None else f", about {duration(left)}"
        self._print(f"{missing} runs to do{about}")
        self._bar.start_task(self._task)
        self._bar.update(self._task, total=missing)
        self._bar.start()

    def began(self, run_id: str, config: RunConfig) -> None:
        self.tally.running[run_id] = title(config)
        self._update()

    def ended(self, record: RunRecord, left: float | None) -> None:
        self.tally.statuses[record.status] += 1
        if record.status == "failed":
            self.tally.failures[record.run_id] = _last_line(record.error)
        self._left = left
        line = (
            f"[{self.tally.ended}/{self._missing}] {record.run_id[:8]}  "
            f"{title(record.config)}  {_result(record)}"
        )
        self._print(line if self._bar.live.is_started else f"{line}{self._time_left()}")
        self._update(record.run_id)

    def unrecorded(self, run_id: str, reason: str) -> None:
        self.tally.unrecorded[run_id] = reason
        self._print(f"{run_id[:8]}  no record: {_last_line(reason)}")
        self._update(run_id)

    def waiting(self, run_id: str) -> None:
        self._print_once(f"waiting for run {run_id}, which another process is doing")
        self._update(run_id)

    def stopping(self) -> None:
        self._print("stopping after this step; Ctrl-C again stops at once")

    def warn(self, text: str) -> None:
        self._print_once(f"warning: {text}")

    def close(self) -> None:
        self._bar.stop()

    def _print_once(self, line: str) -> None:
        if line not in self._printed:
            self._printed.add(line)
            self._print(line)

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _update(self, no_longer_running: str = "") -> None:
        self.tally.running.pop(no_longer_running, None)
        running = list(self.tally.running.values())[:4]
        self._bar.update(
            self._task,
            completed=self.tally.ended,
            description="; ".join([self.tally.words() + self._time_left(), *running]),
        )

    def _time_left(self) -> str:
        return "" if self._left is None else f"  {duration(self._left)} left"


def _result(record: RunRecord) -> str:
    spent = record.seconds.setup + record.seconds.train + record.seconds.evaluate
    value = record.metrics.get(record.primary_metric)
    if record.status == "ok" and value is not None:
        return f"{record.primary_metric} {value:.4f}  {spent:.1f} s"
    if record.status == "diverged":
        return f"diverged at step {record.diverged_at}"
    return f"{record.status}: {_last_line(record.error)}"


def _last_line(text: str | None) -> str:
    return (text or "").strip().rpartition("\n")[2]
