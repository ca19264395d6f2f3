"""Summarise the runs of a cell, over rates and at the chosen rates."""

from collections import Counter
from collections.abc import Mapping
from math import isfinite

import numpy as np

from normbench import stats
from normbench.verdicts.design import Design, arm_of
from normbench.verdicts.grid import GOOD, Grid, Runs
from normbench.verdicts.metrics import is_maximized, is_trained, values_of
from normbench.verdicts.summaries import CellSummary, RateSummary


def passes_gate(design: Design, arm: str, cells: Mapping[str, Runs]) -> bool:
    """Return whether the arm trained at one of its levels at least.

    `cells` has the runs at the chosen rates.
    """
    gate = design.gate
    for cell, runs in cells.items():
        if arm_of(cell) == arm and runs:
            values = values_of(runs.values(), gate.metric) or []
            sign = -1 if is_maximized(gate.metric, runs.values()) else 1
            if values and sign * sum(values) / len(values) < sign * gate.below:
                return True
    return False


def summary(
    cell: str, design: Design, grid: Grid | None, skipped: str | None, alpha: float
) -> CellSummary:
    """Return the summary of a cell; `grid` is None if the cell has no runs."""
    runs = grid.chosen_runs() if grid else {}
    records = list(runs.values())
    mean: dict[str, float] = {}
    sd: dict[str, float | None] = {}
    for metric in sorted({key for r in records for key in (*r.metrics, *r.probes)}):
        values = values_of(records, metric)
        if values:
            mean[metric] = float(np.mean(values))
            sd[metric] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    statuses = [record.status for record in records]
    untrained = [not is_trained(record, design.gate) for record in records]
    share = stats.Share(0.0, 0.0, 1.0)
    if records:
        share = stats.share_above(
            [1.0 if each else -1.0 for each in untrained], 1 - alpha
        )
    return CellSummary(
        cell=cell,
        rates=_rates(design, grid) if grid else [],
        good=_good(grid) if grid else [],
        at_edge=grid is not None and _at_edge(grid),
        frozen=grid is not None and grid.frozen,
        n=len(runs),
        mean=mean,
        sd=sd,
        diverged=statuses.count("diverged"),
        failed=statuses.count("failed"),
        untrained=sum(untrained),
        untrained_low=share.low,
        untrained_high=share.high,
        skipped=skipped,
    )


def _rates(design: Design, grid: Grid) -> list[RateSummary]:
    """Return the curve of a cell over its rates."""
    seeds = Counter(grid.choice().values())
    metrics = dict.fromkeys(contrast.metric for contrast in design.contrasts)
    rates = []
    for lr, runs in grid.runs.items():
        validation = values_of(runs.values(), grid.validation)
        means = {m: values_of(runs.values(), m) for m in metrics}
        rates.append(
            RateSummary(
                lr=lr,
                n=len(runs),
                validation=float(np.mean(validation)) if validation else None,
                mean={
                    m: float(np.mean(values)) for m, values in means.items() if values
                },
                dropped=lr in grid.dropped,
                seeds=seeds[lr],
            )
        )
    return rates


def _good(grid: Grid) -> list[float]:
    """Return the rates whose mean is at most GOOD worse than that of the best rate."""
    means = grid.means()
    best = means[grid.best()]
    if not isfinite(best):
        return []
    return [lr for lr, mean in means.items() if mean <= best + GOOD * abs(best)]


def _at_edge(grid: Grid) -> bool:
    rates = list(grid.runs)
    return len(rates) > 1 and grid.best() in {rates[0], rates[-1]}
