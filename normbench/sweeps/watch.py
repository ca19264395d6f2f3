"""A sweep seen from outside: what its files say of it, read again and again.

The first look reads every record once. After that a look costs a stat for each run that
has not ended, and reads only what has changed.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
from normbench.system.untrusted import LARGEST

FIRST = ("task", "data", "norm", "reparam", "batch_size", "norm_batch", "accumulate")
"""Keys of the config that cells are told apart by, before any other."""
LAST = ("lr",)
"""And after all others: a tuned rate follows from the rest."""
OPEN = frozenset({"running", "interrupted", "missing"})
"""The states that a run comes out of."""
MOST_COLUMNS = 12


@dataclass(frozen=True)
class Cell:
    """The runs that differ in nothing but the seed.

    `states` has one of record.STATES for each, by seed; `mean` is that of `metric`, the
    primary one, over the `n` that are ok and below LARGEST, None where there are none.
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

    `by` are the keys that cells differ in and `column` the one of them that a table has
    across, None where there is one key or none. `rate` is in runs a minute since the
    sweep began, `seconds` how long that is, `left` the seconds to its end, None while
    unknown. `active`: a process is at it. `left_out` are results that cannot be read.
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
        """How many runs are in each of record.STATES."""
        return Counter(state for cell in self.cells for state in cell.states)

    def pending(self) -> int:
        """The runs that have not ended."""
        return sum(count for state, count in self.states().items() if state in OPEN)

    def extremes(self) -> dict[str, tuple[Cell, Cell]]:
        """The best and the worst cell by each primary metric that two or more have."""
        found = {}
        for metric in dict.fromkeys(c.metric for c in self.cells if c.mean is not None):
            cells = [c for c in self.cells if c.metric == metric and c.mean is not None]
            if metric is None or len(cells) < 2:
                continue
            ordered = sorted(cells, key=lambda cell: cell.mean or 0.0)
            best, worst = ordered[0], ordered[-1]
            swapped = best.direction == "maximize"
            found[metric] = (worst, best) if swapped else (best, worst)
        return found

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
    """What a sweep's folder said, when, and whether its process is there."""

    said: Manifest
    at: float
    active: bool


class Watch:
    """Looks at the sweeps that run in a results folder, or at the last one that did."""

    def __init__(self, results: Path) -> None:
        """Raises RequestError where no sweep has left word of itself."""
        self._results = results
        self._sweeps: dict[Path, _Sweep] = {}
        self._configs: dict[str, RunConfig] = {}
        self._since: dict[str, float] = {}
        self._states: dict[str, str] = {}
        self._seen: dict[str, int] = {}
        self._ended: dict[str, float] = {}
        self._records: dict[str, RunRecord] = {}
        self._unreadable: dict[str, Unreadable] = {}
        self._cells: dict[tuple[Any, ...], list[str]] = {}
        self._by: list[str] = []
        self._column: str | None = None
        self._forecast = Forecast([], {}, 1)
        found = manifest.folders(results)
        if not found:
            raise RequestError(
                f"no sweep has run in --results {results}; start one, or name the "
                "folder of one; `normbench status` counts the runs of any folder"
            )
        self._watched = [f for f in found if store.is_running(f)] or found[-1:]

    def look(self) -> Snapshot:
        """What is there now."""
        if self._listen():
            self._plan()
        for run_id in [key for key, s in self._states.items() if s in OPEN]:
            self._visit(run_id)
        return self._snapshot()

    def _listen(self) -> bool:
        """Whether any sweep has begun, or said something new."""
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
                said = manifest.read_manifest(folder)
            else:
                said = before.said
            self._sweeps[folder] = _Sweep(said, at, active)
        return changed

    def _plan(self) -> None:
        """The runs of all sweeps together, and their cells."""
        sweeps = self._sweeps.values()
        skipped = {key: each for s in sweeps for key, each in s.said.skipped.items()}
        runs = {key: config for s in sweeps for key, config in s.said.runs.items()}
        self._configs = runs | {key: each.config for key, each in skipped.items()}
        self._since = {key: s.at for s in sweeps for key in s.said.todo}
        self._states = {
            key: "skipped" if key in skipped else "missing" for key in self._configs
        }
        self._seen = {}
        with store.no_garbage():
            for key in runs:
                self._visit(key)
        pending = {key: runs[key] for key in runs if self._states[key] in OPEN}
        workers = sum(sweep.said.workers for sweep in sweeps)
        self._forecast = Forecast(self._records.values(), pending, workers)
        self._by, self._cells = _cells(self._configs)
        self._column = _column(self._by, list(self._cells))

    def _visit(self, run_id: str) -> None:
        """Look whether a run that has not ended has begun, or ended."""
        folder = store.run_folder(self._results, run_id)
        try:
            changed = folder.stat().st_mtime_ns
        except OSError as error:
            self._leave_out(run_id, folder, error)
            return
        # A lock is taken in a folder that does not change, and let go of without a
        # trace; but a run that begins writes its config there.
        if changed == self._seen.get(run_id) and self._states[run_id] != "running":
            return
        self._seen[run_id] = changed
        self._unreadable.pop(run_id, None)
        try:
            at = (folder / store.RESULT).stat().st_mtime
        except OSError as error:
            self._leave_out(run_id, folder / store.RESULT, error)
            at = None
        again = at is not None and at < self._since.get(run_id, 0.0)
        found = None
        if at is not None and not again:
            try:
                found = store.read(folder)
            except Unreadable as error:
                self._unreadable[run_id] = error
        if at is not None and found is not None:
            self._records[run_id] = found
            self._states[run_id] = found.status
            self._ended[run_id] = at
            self._forecast.learn(found)
        elif store.is_running(folder):
            self._states[run_id] = "running"
        else:
            begun = False
            with suppress(OSError):
                begun = not again and (folder / store.HISTORY).exists()
            self._states[run_id] = "interrupted" if begun else "missing"

    def _leave_out(self, run_id: str, path: Path, error: OSError) -> None:
        """Name a run of which `path` cannot be looked at, though it may be there."""
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            self._unreadable[run_id] = Unreadable(path, error.strerror or str(error))

    def _snapshot(self) -> Snapshot:
        active = any(sweep.active for sweep in self._sweeps.values())
        began = min(sweep.at for sweep in self._sweeps.values())
        ended = [self._ended[key] for key in self._since if key in self._ended]
        until = time.time() if active else max(ended, default=began)
        seconds = max(0.0, until - began)
        states = self._states
        return Snapshot(
            titles=list(dict.fromkeys(s.said.title for s in self._sweeps.values())),
            by=self._by,
            column=self._column,
            cells=[self._cell(values, ids) for values, ids in self._cells.items()],
            running=[
                title(self._configs[k]) for k, s in states.items() if s == "running"
            ],
            failures={
                key: (self._records[key].error or "").strip().rpartition("\n")[2]
                for key, state in states.items()
                if state == "failed"
            },
            left_out=[str(error) for error in self._unreadable.values()],
            active=active,
            seconds=seconds,
            rate=60 * len(ended) / seconds if ended and seconds else None,
            left=self._forecast.seconds(),
        )

    def _cell(self, values: Sequence[Any], ids: Iterable[str]) -> Cell:
        keys = list(ids)
        ok = [self._records[key] for key in keys if self._states[key] == "ok"]
        first = next(iter(ok), None)
        found = [each.metrics.get(each.primary_metric) for each in ok]
        finite = [x for x in found if x is not None and abs(x) < LARGEST]
        return Cell(
            by=dict(zip(self._by, values, strict=True)),
            states=tuple(self._states[key] for key in keys),
            metric=first.primary_metric if first else None,
            direction=first.direction if first else None,
            n=len(finite),
            mean=fmean(finite) if finite else None,
        )


def _cells(
    configs: Mapping[str, RunConfig],
) -> tuple[list[str], dict[tuple[Any, ...], list[str]]]:
    """The keys that tell the runs apart, but for the seed, and the runs of each cell.

    A key that tells no more of them apart than those before it is left out.
    """
    flat = {key: query.flat(config) for key, config in configs.items()}
    known = dict.fromkeys(key for row in flat.values() for key in row)
    keys = [key for key in known if key.partition(".")[0] not in {*NOT_HASHED, "seed"}]
    middle = [key for key in keys if key not in {*FIRST, *LAST}]
    chosen: list[str] = []
    cells: dict[tuple[Any, ...], list[str]] = {(): list(flat)}
    for key in (*FIRST, *middle, *LAST):
        finer: dict[tuple[Any, ...], list[str]] = {}
        for values, ids in cells.items():
            for run_id in ids:
                value = flat[run_id].get(key)
                value = str(value) if isinstance(value, list | dict) else value
                finer.setdefault((*values, value), []).append(run_id)
        if len(finer) > len(cells):
            chosen.append(key)
            cells = finer
    for ids in cells.values():
        ids.sort(key=lambda run_id: configs[run_id].seed)
    return chosen, cells


def _column(by: Sequence[str], cells: Sequence[tuple[Any, ...]]) -> str | None:
    """The key that a table of the cells has across: the batch size, else numbers."""
    if len(by) < 2:
        return None
    values = {key: {cell[i] for cell in cells} for i, key in enumerate(by)}

    def suits(key: str) -> tuple[bool, bool, int]:
        numbers = all(isinstance(value, int | float) for value in values[key])
        return key == "batch_size", numbers, -len(values[key])

    best = max(by, key=suits)
    return best if len(values[best]) <= MOST_COLUMNS else None
