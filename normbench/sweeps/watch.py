"""The progress of a sweep, read from its files again and again.

The first look reads every record once. Each later look makes a stat call for each run
that has not ended, and reads only what has changed.
"""

import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from normbench.config.schema import NOT_HASHED, RunConfig, RunRecord
from normbench.config.titles import title
from normbench.errors import RequestError, Unreadable
from normbench.records import query, store
from normbench.sweeps import manifest
from normbench.sweeps.forecast import Forecast
from normbench.sweeps.manifest import Manifest

FIRST = ("task", "data", "norm", "reparam", "batch_size", "norm_batch", "accumulate")
"""Config keys that distinguish cells, tried before any other."""
LAST = ("lr",)
"""Config keys tried after all others: a tuned rate follows from the rest."""
OPEN = frozenset({"running", "interrupted", "missing"})
"""The states of a run that has not ended."""
MOST_COLUMNS = 12


@dataclass(frozen=True)
class Cell:
    """The runs that differ only in the seed.

    `states` has one of store.STATES for each run, by seed. `mean` is that of `metric`,
    the primary one, over the `n` runs that count in a mean; None if `n` is 0.
    """

    by: dict[str, Any]
    states: tuple[str, ...]
    metric: str | None
    direction: str | None
    n: int
    mean: float | None

    def name(self) -> str:
        """Such as "norm=group batch_size=2"."""
        return " ".join(f"{key}={value}" for key, value in self.by.items())

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        counts = Counter(self.states)
        states = {state: counts[state] for state in store.STATES}
        numbers = {"metric": self.metric, "n": self.n, "mean": self.mean}
        return {"by": self.by} | states | numbers


@dataclass(frozen=True)
class Snapshot:
    """A sweep at one moment.

    `by` are the keys in which cells differ; `column` is the one whose values are the
    columns of a table, None for fewer than two keys. `seconds` have passed since the
    sweep began, with `rate` runs a minute; `left` are the seconds to its end, None if
    unknown. `active`: a process runs it. `left_out` are results that cannot be read.
    """

    titles: list[str]
    by: list[str]
    column: str | None
    cells: list[Cell]
    running: list[str]
    failures: dict[str, str]
    left_out: list[str]
    active: bool
    seconds: float
    rate: float | None
    left: float | None

    def states(self) -> Counter[str]:
        """How many runs are in each of store.STATES."""
        return Counter(state for cell in self.cells for state in cell.states)

    def pending(self) -> int:
        """The runs that have not ended."""
        return sum(count for state, count in self.states().items() if state in OPEN)

    def extremes(self) -> dict[str, tuple[Cell, Cell]]:
        """The best and the worst cell by each primary metric that two or more have."""
        by_metric: dict[str, list[Cell]] = {}
        for cell in self.cells:
            if cell.mean is not None and cell.metric is not None:
                by_metric.setdefault(cell.metric, []).append(cell)
        extremes = {}
        for metric, cells in by_metric.items():
            if len(cells) > 1:
                cells.sort(key=lambda cell: cell.mean or 0.0)
                best, worst = cells[0], cells[-1]
                swapped = best.direction == "maximize"
                extremes[metric] = (worst, best) if swapped else (best, worst)
        return extremes

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        counts = self.states()
        return {
            "titles": self.titles,
            "active": self.active,
            "runs": counts.total(),
            **{state: counts[state] for state in store.STATES},
            "seconds": self.seconds,
            "runs_per_minute": self.rate,
            "seconds_left": self.left,
            "extremes": {
                metric: {"best": best.plain(), "worst": worst.plain()}
                for metric, (best, worst) in self.extremes().items()
            },
            "cells": [cell.plain() for cell in self.cells],
            "failures": self.failures,
            "left_out": self.left_out,
        }


@dataclass(frozen=True)
class _Sweep:
    """The manifest of a sweep, when it was written, and whether its process runs."""

    manifest: Manifest
    at: float
    active: bool


@dataclass
class _Run:
    """One run of the sweeps: `since` is when a sweep planned to do it, if one did."""

    run_id: str
    config: RunConfig
    state: str
    since: float | None = None
    seen: int | None = None
    """When its folder was last modified, in nanoseconds."""
    record: RunRecord | None = None
    ended: float | None = None
    unreadable: Unreadable | None = None


class Watch:
    """Looks at the sweeps that run in a results folder, or at the last one that did."""

    def __init__(self, results: Path) -> None:
        """Raises RequestError if no sweep has a manifest in `results`."""
        self._results = results
        self._sweeps: dict[Path, _Sweep] = {}
        self._runs: dict[str, _Run] = {}
        self._cells: dict[tuple[Any, ...], list[_Run]] = {}
        self._by: list[str] = []
        self._column: str | None = None
        self._forecast = Forecast([], {}, 1)
        folders = manifest.folders(results)
        if not folders:
            raise RequestError(
                f"no sweep has run in --results {results}; start one, or name the "
                "folder of one; `normbench status` counts the runs of any folder"
            )
        self._watched = [f for f in folders if store.is_running(f)] or folders[-1:]

    def look(self) -> Snapshot:
        """The present state."""
        if self._read_manifests():
            self._plan()
        for run in self._runs.values():
            if run.state in OPEN:
                self._visit(run)
        return self._snapshot()

    def _read_manifests(self) -> bool:
        """Whether any sweep has begun, or changed its manifest."""
        for folder in manifest.folders(self._results):
            if folder not in self._watched and store.is_running(folder):
                self._watched.append(folder)
        changed = False
        for folder in self._watched:
            before = self._sweeps.get(folder)
            active = store.is_running(folder)
            try:
                at = (folder / manifest.FILE).stat().st_mtime
            except OSError:  # it has ended, and another has begun since
                if before is None:
                    continue
                at = before.at
            if before is None or at != before.at:
                changed = True
                plan = manifest.read_manifest(folder)
            else:
                plan = before.manifest
            self._sweeps[folder] = _Sweep(plan, at, active)
        return changed

    def _plan(self) -> None:
        """The runs of all sweeps together, and their cells."""
        plans = [(sweep.at, sweep.manifest) for sweep in self._sweeps.values()]
        since = {key: at for at, plan in plans for key in plan.todo}
        runs = {
            key: _Run(key, config, "missing", since.get(key))
            for _, plan in plans
            for key, config in plan.runs.items()
        }
        with store.no_garbage():
            for run in runs.values():
                self._visit(run)
        self._forecast = Forecast(
            [run.record for run in runs.values() if run.record],
            {key: run.config for key, run in runs.items() if run.state in OPEN},
            sum(plan.workers for _, plan in plans),
        )
        self._runs = runs | {
            key: _Run(key, skipped.config, "skipped")
            for _, plan in plans
            for key, skipped in plan.skipped.items()
        }
        self._by, self._cells = _cells(list(self._runs.values()))
        self._column = _column(self._by, list(self._cells))

    def _visit(self, run: _Run) -> None:
        """Check whether a run that has not ended has begun, or ended."""
        folder = store.run_folder(self._results, run.run_id)
        modified = self._stat(run, folder)
        if modified is None:
            return
        # A lock leaves no trace in a folder; but a run that begins writes its config.
        if modified.st_mtime_ns == run.seen and run.state != "running":
            return
        run.seen = modified.st_mtime_ns
        run.unreadable = None
        result = self._stat(run, folder / store.RESULT)
        again = result is not None and result.st_mtime < (run.since or 0.0)
        if result is not None and not again:
            try:
                run.record = store.read(folder)
            except Unreadable as error:
                run.unreadable = error
        if result is not None and run.record is not None:
            run.state, run.ended = run.record.status, result.st_mtime
            self._forecast.learn(run.record)
        elif store.is_running(folder):
            run.state = "running"
        else:
            begun = False
            with suppress(OSError):
                begun = not again and (folder / store.HISTORY).exists()
            run.state = "interrupted" if begun else "missing"

    def _stat(self, run: _Run, path: Path) -> os.stat_result | None:
        """None if `path` is missing, or not accessible, which is then recorded."""
        try:
            return path.stat()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            run.unreadable = Unreadable(path, error.strerror or str(error))
        return None

    def _snapshot(self) -> Snapshot:
        sweeps, runs = self._sweeps.values(), self._runs.values()
        active = any(sweep.active for sweep in sweeps)
        began = min(sweep.at for sweep in sweeps)
        ended = [run.ended for run in runs if run.since is not None and run.ended]
        until = time.time() if active else max(ended, default=began)
        seconds = max(0.0, until - began)
        return Snapshot(
            titles=list(dict.fromkeys(sweep.manifest.title for sweep in sweeps)),
            by=self._by,
            column=self._column,
            cells=[self._cell(values, some) for values, some in self._cells.items()],
            running=[title(run.config) for run in runs if run.state == "running"],
            failures={
                run.run_id: (run.record.error or "").strip().rpartition("\n")[2]
                for run in runs
                if run.state == "failed" and run.record
            },
            left_out=[str(run.unreadable) for run in runs if run.unreadable],
            active=active,
            seconds=seconds,
            rate=60 * len(ended) / seconds if ended and seconds else None,
            left=self._forecast.seconds(),
        )

    def _cell(self, values: Sequence[Any], runs: Sequence[_Run]) -> Cell:
        ok = [run.record for run in runs if run.state == "ok" and run.record]
        first = ok[0] if ok else None
        counted = query.counted(ok, first.primary_metric) if first else []
        return Cell(
            by=dict(zip(self._by, values, strict=True)),
            states=tuple(run.state for run in runs),
            metric=first.primary_metric if first else None,
            direction=first.direction if first else None,
            n=len(counted),
            mean=fmean(counted) if counted else None,
        )


def _cells(
    runs: Sequence[_Run],
) -> tuple[list[str], dict[tuple[Any, ...], list[_Run]]]:
    """The keys that distinguish the runs, except the seed, and the runs of each cell.

    Leaves out a key that splits no cell of the keys before it.
    """
    flat = {run.run_id: query.flat(run.config) for run in runs}
    known = dict.fromkeys(key for row in flat.values() for key in row)
    middle = [
        key
        for key in known
        if key not in {*FIRST, *LAST}
        and key.partition(".")[0] not in {*NOT_HASHED, "seed"}
    ]
    chosen: list[str] = []
    cells: dict[tuple[Any, ...], list[_Run]] = {(): list(runs)}
    for key in (*FIRST, *middle, *LAST):
        finer: dict[tuple[Any, ...], list[_Run]] = {}
        for values, some in cells.items():
            for run in some:
                value = flat[run.run_id].get(key)
                value = str(value) if isinstance(value, list | dict) else value
                finer.setdefault((*values, value), []).append(run)
        if len(finer) > len(cells):
            chosen.append(key)
            cells = finer
    for some in cells.values():
        some.sort(key=lambda run: run.config.seed)
    return chosen, cells


def _column(by: Sequence[str], cells: Sequence[tuple[Any, ...]]) -> str | None:
    """The key whose values are columns of a table: batch_size, else one of numbers."""
    if len(by) < 2:
        return None
    values = {key: {cell[i] for cell in cells} for i, key in enumerate(by)}

    def rank(key: str) -> tuple[bool, bool, int]:
        numbers = all(isinstance(value, int | float) for value in values[key])
        return key == "batch_size", numbers, -len(values[key])

    best = max(by, key=rank)
    return best if len(values[best]) <= MOST_COLUMNS else None
