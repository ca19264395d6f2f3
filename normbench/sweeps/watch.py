"""Reads the progress of running sweeps from their files, for `normbench watch`.

The first look reads all records. Later looks call stat for each run that has not ended,
and read only what has changed.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from normbench.config.schema import RunConfig, RunRecord, is_hashed
from normbench.config.titles import title
from normbench.errors import RequestError, Unreadable
from normbench.records import query, store
from normbench.sweeps import manifest
from normbench.sweeps.forecast import Forecast
from normbench.sweeps.manifest import Manifest
from normbench.sweeps.snapshot import OPEN, Cell, Snapshot

FIRST = ("task", "data", "norm", "reparam", "batch_size", "norm_batch", "accumulate")
"""Config keys by which runs are split into cells before all other keys."""
LAST = ("lr",)
"""Config keys by which runs are split last: a tuned rate depends on the other keys."""
MAX_COLUMNS = 12


@dataclass(frozen=True)
class _Sweep:
    """A sweep's manifest, and whether its process is running."""

    manifest: Manifest
    written: float
    """When the manifest file was written, in seconds as `time.time()`."""
    inode: int
    """The inode of the manifest file: a new manifest is a new file."""
    active: bool


@dataclass
class _Run:
    """A run of the sweeps; all times are in seconds as `time.time()`."""

    run_id: str
    config: RunConfig
    state: str
    blind: bool = False
    """Whether no metric of the run is shown."""
    planned: float | None = None
    """When a sweep planned to train the run, None if no sweep trains it."""
    folder_mtime_ns: int | None = None
    """When the run's folder was last modified, in ns, at the last look."""
    record: RunRecord | None = None
    ended: float | None = None
    unreadable: Unreadable | None = None


class Watch:
    """Watches the running sweeps of a results folder, or its last sweep."""

    def __init__(self, results: Path) -> None:
        """Raise RequestError if no sweep has a manifest in `results`."""
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
                f"no sweep has run in --results {results}; start a sweep, or name the "
                "results folder of one; `normbench status` counts the runs of any "
                "folder"
            )
        self._watched = [f for f in folders if store.is_running(f)] or folders[-1:]

    def look(self) -> Snapshot:
        """Return the current state."""
        if self._read_manifests():
            self._plan()
        for run in self._runs.values():
            if run.state in OPEN:
                self._visit(run)
        return self._snapshot()

    def _read_manifests(self) -> bool:
        """Read new manifests; return whether there are any."""
        for folder in manifest.folders(self._results):
            if folder not in self._watched and store.is_running(folder):
                self._watched.append(folder)
        changed = False
        for folder in self._watched:
            known = self._sweeps.get(folder)
            active = store.is_running(folder)
            try:
                status = (folder / manifest.FILE).stat()
            except OSError:  # a new sweep removed the files of this ended sweep
                if known is not None:
                    self._sweeps[folder] = replace(known, active=active)
                continue
            written, inode = status.st_mtime, status.st_ino
            if known is not None and (known.written, known.inode) == (written, inode):
                self._sweeps[folder] = replace(known, active=active)
                continue
            plan = manifest.read_manifest(folder)
            self._sweeps[folder] = _Sweep(plan, written, inode, active)
            changed = True
        return changed

    def _plan(self) -> None:
        """Join the runs of all sweeps, and split them into cells."""
        sweeps = self._sweeps.values()
        plans = [sweep.manifest for sweep in sweeps]
        planned = {
            key: sweep.written for sweep in sweeps for key in sweep.manifest.todo
        }
        blind = {key for plan in plans if plan.blind for key in plan.runs}
        runs = {
            key: _Run(key, config, "missing", key in blind, planned.get(key))
            for plan in plans
            for key, config in plan.runs.items()
        }
        with store.no_garbage():
            for run in runs.values():
                self._visit(run)
        self._forecast = Forecast(
            [run.record for run in runs.values() if run.record],
            {key: run.config for key, run in runs.items() if run.state in OPEN},
            sum(plan.workers for plan in plans),
        )
        self._runs = runs | {
            key: _Run(key, skipped.config, "skipped")
            for plan in plans
            for key, skipped in plan.skipped.items()
        }
        self._by, self._cells = _cells(list(self._runs.values()))
        self._column = _column(self._by, list(self._cells))

    def _visit(self, run: _Run) -> None:
        """Update the state of a run that had not ended at the last look."""
        folder = store.run_folder(self._results, run.run_id)
        status = self._stat(run, folder)
        if status is None:
            return
        # A run that starts writes its config, and so modifies its folder. A process can
        # end without a modification, so a running run is always checked.
        if status.st_mtime_ns == run.folder_mtime_ns and run.state != "running":
            return
        run.folder_mtime_ns = status.st_mtime_ns
        run.unreadable = None
        result = self._stat(run, folder / store.RESULT)
        # If the result is older than the sweep's manifest, the sweep will replace it.
        outdated = result is not None and result.st_mtime < (run.planned or 0.0)
        if result is not None and not outdated:
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
                begun = not outdated and (folder / store.HISTORY).exists()
            run.state = "interrupted" if begun else "missing"

    def _stat(self, run: _Run, path: Path) -> os.stat_result | None:
        """Return the status of `path`, or None if it is missing or not accessible.

        If `path` is not accessible, the error is stored in `run.unreadable`.
        """
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
        started = min(sweep.written for sweep in sweeps)
        ended = [run.ended for run in runs if run.planned is not None and run.ended]
        # After the end of all sweeps, the time is that of the last ended run.
        now = time.time() if active else max(ended, default=started)
        seconds = max(0.0, now - started)
        return Snapshot(
            titles=list(dict.fromkeys(sweep.manifest.title for sweep in sweeps)),
            by=self._by,
            column=self._column,
            cells=[self._cell(key, members) for key, members in self._cells.items()],
            running=[title(run.config) for run in runs if run.state == "running"],
            failures={  # the last line of each error
                run.run_id: (run.record.error or "").strip().rpartition("\n")[2]
                for run in runs
                if run.state == "failed" and run.record
            },
            left_out=[str(run.unreadable) for run in runs if run.unreadable],
            blind=any(sweep.manifest.blind for sweep in sweeps),
            active=active,
            seconds=seconds,
            rate=60 * len(ended) / seconds if ended and seconds else None,
            left=self._forecast.seconds(),
        )

    def _cell(self, values: Sequence[Any], runs: Sequence[_Run]) -> Cell:
        ok = [run.record for run in runs if run.state == "ok" and run.record]
        if any(run.blind for run in runs):
            ok = []
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
    """Split runs into cells by config keys, but not by the seed.

    Returns the keys, and a dict from the values that a cell has for the keys to the
    runs of the cell. Runs are split by one key after another. A key that splits no cell
    is left out.
    """
    rows = {run.run_id: query.flat(run.config) for run in runs}
    every_key = dict.fromkeys(key for row in rows.values() for key in row)
    middle = [
        key
        for key in every_key
        if key not in {*FIRST, *LAST, "seed"} and is_hashed(key)
    ]
    chosen: list[str] = []
    cells: dict[tuple[Any, ...], list[_Run]] = {(): list(runs)}
    for key in (*FIRST, *middle, *LAST):
        split: dict[tuple[Any, ...], list[_Run]] = {}
        for values, members in cells.items():
            for run in members:
                value = rows[run.run_id].get(key)
                value = str(value) if isinstance(value, list | dict) else value
                split.setdefault((*values, value), []).append(run)
        if len(split) > len(cells):
            chosen.append(key)
            cells = split
    for members in cells.values():
        members.sort(key=lambda run: run.config.seed)
    return chosen, cells


def _column(by: Sequence[str], cells: Sequence[tuple[Any, ...]]) -> str | None:
    """Return the key whose values are the columns of a table, None for no columns.

    The key batch_size is preferred, then a key whose values are all numbers, then the
    key with the fewest values.
    """
    if len(by) < 2:
        return None
    values = {key: {cell[i] for cell in cells} for i, key in enumerate(by)}

    def preference(key: str) -> tuple[bool, bool, int]:
        all_numbers = all(isinstance(value, int | float) for value in values[key])
        return key == "batch_size", all_numbers, -len(values[key])

    best = max(by, key=preference)
    return best if len(values[best]) <= MAX_COLUMNS else None
