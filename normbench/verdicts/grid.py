"""Choose the learning rate of each seed from the runs of a cell at all rates.

Every seed of a cell is trained at every rate, so the choice of the rate is part of
what is compared, and its noise is in the interval. `normbench.verdicts.choosing` has
the ways of choosing; the simulation in docs/choosing-rates.md compares them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

import numpy as np
from numpy.typing import NDArray

from normbench.config.schema import RunRecord
from normbench.verdicts.choosing import Choosing, chosen, dropped_rates
from normbench.verdicts.metrics import is_maximized, metric_of

Runs = Mapping[int, RunRecord]
"""Seed -> record, whatever its status."""

CHOOSING: Choosing = "pooled"
"""The way of choosing rates for every decision."""
GOOD = 0.1
"""A rate is good if its validation metric is at most this share worse than the best."""


@dataclass(frozen=True)
class Grid:
    """The runs of a cell at all of its rates.

    `runs` has the rates in ascending order. The rates of `dropped` have no runs beyond
    those of the first look. `validation` is the metric that chooses the rates.
    `frozen` is true if an earlier check chose the only rate.
    """

    runs: Mapping[float, Runs]
    validation: str
    dropped: frozenset[float] = frozenset()
    frozen: bool = False

    @cached_property
    def kept(self) -> list[float]:
        """The rates at which all seeds have runs, in ascending order."""
        return [lr for lr in self.runs if lr not in self.dropped]

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds that have a run at every kept rate, in ascending order."""
        return sorted(set.intersection(*(set(self.runs[lr]) for lr in self.kept)))

    def first(self, n: int | None) -> "Grid":
        """Return the grid of the first `n` seeds; with None, of all seeds."""
        seeds = sorted({seed for by_seed in self.runs.values() for seed in by_seed})
        kept = set(seeds[:n])
        runs = {
            lr: {seed: record for seed, record in by_seed.items() if seed in kept}
            for lr, by_seed in self.runs.items()
        }
        return Grid(runs, self.validation, self.dropped, self.frozen)

    def with_runs(self, runs: Mapping[float, Runs]) -> "Grid":
        """Return the grid with more runs of its kept rates."""
        merged = {
            lr: {**by_seed, **runs.get(lr, {})} for lr, by_seed in self.runs.items()
        }
        return Grid(merged, self.validation, self.dropped, self.frozen)

    def scores(
        self, rates: Sequence[float], seeds: Sequence[int]
    ) -> NDArray[np.float64]:
        """Return the validation metric [seeds, rates], negative if it is maximized.

        A run without the metric, such as a diverged run, has +inf.
        """
        records = [self.runs[lr][seed] for lr in rates for seed in seeds]
        sign = -1 if is_maximized(self.validation, records) else 1
        return np.array(
            [
                [
                    inf
                    if (value := self._validation(lr, seed)) is None
                    else sign * value
                    for lr in rates
                ]
                for seed in seeds
            ],
            np.float64,
        )

    def _validation(self, lr: float, seed: int) -> float | None:
        record = self.runs[lr][seed]
        # A diverged run is never the best, whatever its metric counts as elsewhere.
        return None if record.status != "ok" else metric_of(record, self.validation)

    def choice(self, how: Choosing = CHOOSING) -> dict[int, float]:
        """Return seed -> chosen rate."""
        if len(self.kept) == 1:
            return dict.fromkeys(self.seeds, self.kept[0])
        indices = chosen(self.scores(self.kept, self.seeds), self.kept, how)
        return {
            seed: self.kept[index]
            for seed, index in zip(self.seeds, indices.tolist(), strict=True)
        }

    def chosen_runs(self, how: Choosing = CHOOSING) -> dict[int, RunRecord]:
        """Return seed -> the record at the chosen rate."""
        return {seed: self.runs[lr][seed] for seed, lr in self.choice(how).items()}

    def means(self) -> dict[float, float]:
        """Return rate -> mean of `scores` over the seeds that have runs at it."""
        return {
            lr: float(self.scores([lr], sorted(by_seed)).mean()) if by_seed else inf
            for lr, by_seed in self.runs.items()
        }

    def clearly_worse(self) -> frozenset[float]:
        """Return the kept rates that need no further seeds; see `dropped_rates`."""
        worse = dropped_rates(self.scores(self.kept, self.seeds))
        return frozenset(
            lr for lr, is_worse in zip(self.kept, worse, strict=True) if is_worse
        )

    def best(self) -> float:
        """Return the kept rate with the best mean; the lowest of equally good rates.

        A dropped rate has fewer seeds, which may be lucky ones.
        """
        means = self.means()
        return min(self.kept, key=lambda lr: means[lr])


def common_rates(grids: Sequence[Grid]) -> list[float]:
    """Return the rates that all grids have kept, in ascending order."""
    return sorted(set.intersection(*(set(grid.kept) for grid in grids)))


def best_common_rate(grids: Sequence[Grid]) -> float | None:
    """Return the common rate at which the cells together are the best on validation.

    A rate costs a cell by how much its mean is worse than the best mean of this cell,
    as a share of that, so that cells with large metrics do not decide alone. None if
    there is no common rate.
    """
    rates = common_rates(grids)
    if not rates:
        return None
    totals = dict.fromkeys(rates, 0.0)
    for grid in grids:
        means = grid.means()
        best = means[grid.best()]
        if best != inf:
            for lr in rates:
                totals[lr] += (means[lr] - best) / (abs(best) or 1.0)
    return min(totals, key=lambda lr: totals[lr])
