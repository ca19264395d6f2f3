"""Shows the progress of a run and of a sweep on standard error."""

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
from normbench.config import titles
from normbench.config.schema import RunConfig, RunRecord
from normbench.training.observer import Observer, Silent

MAX_TITLES = 4
"""At most this many titles of running runs are shown."""


class Bar:
    """Shows a run on a terminal as a bar with step, loss and time left."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(complete_style="green", finished_style="green"),
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
    """Shows a run as plain text, with one line for each evaluation."""

    def __init__(self) -> None:
        self._steps = 0
        self._start_time = time.perf_counter()

    def start(self, title: str, steps: int) -> None:
        self._steps = steps
        self._start_time = time.perf_counter()
        self.note(f"{title}: {steps} steps")

    def log(self, row: Mapping[str, Any]) -> None:
        metrics = [
            f"{key} {value:.4f}"
            for key, value in row.items()
            if key.startswith(("val/", "test/"))
        ]
        if metrics:
            seconds = time.perf_counter() - self._start_time
            step = f"step {row['step']}/{self._steps}"
            self.note(f"{step}  {'  '.join(metrics)}  {seconds:.0f} s")

    def note(self, text: str) -> None:
        # A script that uses this class may have a standard error that raises.
        with suppress(OSError):
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        self.note(f"warning: {text}")


class TrackerLast:
    """Shows a run by another observer, but keeps the notes of the tracker for the end.

    These notes say where W&B shows the run. `last` has them.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.last: list[str] = []
        self.start, self.log = observer.start, observer.log
        self.warn, self.close = observer.warn, observer.close

    def note(self, text: str) -> None:
        if text.startswith("W&B"):
            self.last.append(text)
        else:
            self._observer.note(text)


def run_observer() -> TrackerLast:
    """Return a bar if standard error is a terminal, and plain lines otherwise."""
    console = Terminal(stderr=True)
    return TrackerLast(Bar(console) if console.is_terminal else Lines())


def duration(seconds: float) -> str:
    """Return a rounded duration, such as "40 s", "3 min" or "2.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@dataclass
class Tally:
    """The running and the ended runs that this process started.

    `running` maps run ids to titles. `statuses` counts the records by status.
    `failures` maps the ids of failed runs to the reasons. `unrecorded` maps the ids of
    runs that ended without a record to the reasons.
    """

    running: dict[str, str] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    unrecorded: dict[str, str] = field(default_factory=dict)

    @property
    def ended(self) -> int:
        """The number of runs that have ended."""
        return self.statuses.total() + len(self.unrecorded)

    def summary(self) -> str:
        """Return the counts as text, such as "11 ok, 1 failed, 2 running"."""
        counts = {**self.statuses, "without a record": len(self.unrecorded)}
        counts["running"] = len(self.running)
        return ", ".join(f"{n} {status}" for status, n in counts.items() if n)


class SweepProgress:
    """Prints a line for each run that ends, and shows a bar if there is a terminal.

    If it is `blind`, it shows no metrics.
    """

    def __init__(self, console: Console, *, blind: bool = False) -> None:
        self.tally = Tally()
        self._blind = blind
        self._missing = 0
        self._seconds_left: float | None = None
        self._printed: set[str] = set()
        self._console = console
        self._bar = Progress(
            BarColumn(complete_style="green", finished_style="green"),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", start=False)

    def start(self, missing: int, left: float | None) -> None:
        self._missing, self._seconds_left = missing, left
        time_left = "" if left is None else f", about {duration(left)}"
        self._print(f"{missing} runs to do{time_left}")
        self._bar.start_task(self._task)
        self._bar.update(self._task, total=missing)
        self._bar.start()

    def began(self, run_id: str, config: RunConfig) -> None:
        self.tally.running[run_id] = titles.title(config)
        self._update()

    def ended(self, record: RunRecord, left: float | None) -> None:
        self.tally.statuses[record.status] += 1
        if record.status == "failed":
            self.tally.failures[record.run_id] = _last_line(record.error)
        self._seconds_left = left
        line = (
            f"[{self.tally.ended}/{self._missing}] {record.run_id[:8]}  "
            f"{titles.title(record.config)}  {_result(record, self._blind)}"
        )
        # A bar shows the time left; if there is no bar, the line shows it.
        self._print(line if self._bar.live.is_started else f"{line}{self._time_left()}")
        self._update(record.run_id)

    def unrecorded(self, run_id: str, reason: str) -> None:
        self.tally.unrecorded[run_id] = reason
        self._print(f"{run_id[:8]}  no record: {_last_line(reason)}")
        self._update(run_id)

    def waiting(self, run_id: str) -> None:
        self._print_once(f"waiting for run {run_id}, which another process is doing")
        self._update(run_id)

    def stopping(self, *, time_is_over: bool) -> None:
        why = "the time for these runs is over; " if time_is_over else ""
        self._print(f"{why}stopping after this step; Ctrl-C now stops at once")

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
        """Update the bar. A run whose id is given is no longer counted as running."""
        self.tally.running.pop(no_longer_running, None)
        running = list(self.tally.running.values())[:MAX_TITLES]
        counts = self.tally.summary() + self._time_left()
        self._bar.update(
            self._task,
            completed=self.tally.ended,
            description="; ".join([counts, *running]),
        )

    def _time_left(self) -> str:
        if self._seconds_left is None:
            return ""
        return f"  {duration(self._seconds_left)} left"


def _result(record: RunRecord, blind: bool) -> str:
    seconds = record.seconds.total
    value = record.metrics.get(record.primary_metric)
    if record.status == "ok":
        hidden = blind or value is None
        shown = "ok" if hidden else f"{record.primary_metric} {value:.4f}"
        return f"{shown}  {seconds:.1f} s"
    if record.status == "diverged":
        return f"diverged at step {record.diverged_at}"
    return f"{record.status}: {_last_line(record.error)}"


def _last_line(text: str | None) -> str:
    return (text or "").strip().rpartition("\n")[2]
