"""What a person sees of a run while it trains."""

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Observer(Protocol):
    """Follows one run. Its methods are called in this order, but `note` and `warn`."""

    def start(self, title: str, steps: int) -> None: ...
    def log(self, row: Mapping[str, Any]) -> None: ...
    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def close(self) -> None: ...


class Silent:
    """Shows nothing."""

    def start(self, title: str, steps: int) -> None:
        pass

    def log(self, row: Mapping[str, Any]) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


class Bar:
    """A progress bar with step, loss and time left, for a terminal."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None

    def start(self, title: str, steps: int) -> None:
        self._task = self._progress.add_task(title, total=steps, loss="-")
        self._progress.start()

    def log(self, row: Mapping[str, Any]) -> None:
        if self._task is None:
            return
        self._progress.update(self._task, completed=row["step"])
        if "train/batch_loss" in row:
            self._progress.update(self._task, loss=f"{row['train/batch_loss']:.4f}")

    def note(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def warn(self, text: str) -> None:
        self._progress.console.print(
            f"warning: {text}", markup=False, highlight=False, style="yellow"
        )

    def close(self) -> None:
        self._progress.stop()


class Lines:
    """One plain line at each evaluation, where there is no terminal.

    A reader that went away (`| head`) does not end a run.
    """

    def __init__(self) -> None:
        self._steps = 0
        self._began = time.perf_counter()

    def start(self, title: str, steps: int) -> None:
        self._steps = steps
        self._began = time.perf_counter()
        self.note(f"{title}: {steps} steps")

    def log(self, row: Mapping[str, Any]) -> None:
        shown = [
            f"{key} {value:.4f}"
            for key, value in row.items()
            if key in {"val/loss", "val/error", "test/loss", "test/error"}
        ]
        if shown:
            seconds = time.perf_counter() - self._began
            where = f"step {row['step']}/{self._steps}"
            self.note(f"{where}  {'  '.join(shown)}  {seconds:.0f} s")

    def note(self, text: str) -> None:
        with suppress(BrokenPipeError):
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        self.note(f"warning: {text}")

    def close(self) -> None:
        pass
