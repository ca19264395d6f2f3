"""The state of sweeps at one moment, with their runs grouped into cells."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from normbench.records import store

OPEN = frozenset({"running", "interrupted", "missing"})
"""The states of a run that has not ended."""


@dataclass(frozen=True)
class Cell:
    """Runs that differ only in the seed.

    `by` are the config keys that distinguish the cell from other cells. `states` has
    one of store.STATES for each run, sorted by seed. `metric` is the primary metric,
    None while no run is ok. `mean` is the mean of the metric over the `n` runs that
    count, None if `n` is 0.
    """

    by: dict[str, Any]
    states: tuple[str, ...]
    metric: str | None
    direction: str | None
    n: int
    mean: float | None

    def name(self) -> str:
        """Return a name such as "norm=group batch_size=2"."""
        return " ".join(f"{key}={value}" for key, value in self.by.items())

    def plain(self) -> dict[str, Any]:
        """Return the cell as a dict for JSON."""
        counts = Counter(self.states)
        states = {state: counts[state] for state in store.STATES}
        numbers = {"metric": self.metric, "n": self.n, "mean": self.mean}
        return {"by": self.by} | states | numbers


@dataclass(frozen=True)
class Snapshot:
    """The state of one or more sweeps at one moment.

    `by` are the config keys in which cells differ. A table has one column for each
    value of the key `column`. `column` is None if `by` has fewer than two keys, or if
    there would be too many columns. `running` are the titles of running runs,
    `failures` the last lines of errors by run id, and `left_out` the errors of results
    that cannot be read.

    If `blind`, some runs belong to a check or a comparison; their cells have no metric.

    `active` is True while a process executes a sweep. `seconds` is the time since the
    start, `rate` the number of ended runs per minute, and `left` the expected number of
    seconds to the end. `rate` and `left` are None if they are unknown.
    """

    titles: list[str]
    by: list[str]
    column: str | None
    cells: list[Cell]
    running: list[str]
    failures: dict[str, str]
    left_out: list[str]
    blind: bool
    active: bool
    seconds: float
    rate: float | None
    left: float | None

    def states(self) -> Counter[str]:
        """Return the number of runs in each of store.STATES."""
        return Counter(state for cell in self.cells for state in cell.states)

    def pending(self) -> int:
        """Return the number of runs that have not ended."""
        return sum(count for state, count in self.states().items() if state in OPEN)

    def extremes(self) -> dict[str, tuple[Cell, Cell]]:
        """Return (best cell, worst cell) by metric, for metrics of several cells."""
        by_metric: dict[str, list[Cell]] = {}
        for cell in self.cells:
            if cell.mean is not None and cell.metric is not None:
                by_metric.setdefault(cell.metric, []).append(cell)
        extremes = {}
        for metric, cells in by_metric.items():
            if len(cells) > 1:
                cells.sort(key=lambda cell: cell.mean or 0.0)  # no mean is None here
                if cells[0].direction == "maximize":
                    cells.reverse()
                extremes[metric] = cells[0], cells[-1]
        return extremes

    def plain(self) -> dict[str, Any]:
        """Return the snapshot as a dict for JSON."""
        counts = self.states()
        return {
            "titles": self.titles,
            "active": self.active,
            "blind": self.blind,
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
