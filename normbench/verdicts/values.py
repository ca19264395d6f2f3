"""The values of a contrast: one for each seed, from the runs at the chosen rates."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from normbench.config.schema import RunRecord
from normbench.verdicts.design import Contrast, Design, arm_of, level_of
from normbench.verdicts.grid import Runs
from normbench.verdicts.metrics import metric_of


class Values(NamedTuple):
    """The contrast by seed, and the seeds without a value.

    On the seeds `failed`, a run failed or lacks the metric. On the seeds `diverged`, a
    run diverged and so has no metric; the others stand without these seeds.
    """

    by_seed: dict[int, float]
    failed: list[int]
    diverged: list[int]


def weights_of(contrast: Contrast, design: Design) -> dict[str, float]:
    """Return cell -> weight; the weights of a slope give its least-squares estimate."""
    if contrast.weights is not None:
        return contrast.weights
    cells = [c for c in design.all_cells() if arm_of(c) == contrast.slope]
    x = np.array([math.log2(float(level_of(cell))) for cell in cells])
    centred = x - x.mean()
    weights = centred / (centred @ centred)
    return dict(zip(cells, weights.tolist(), strict=True))


def values_by_seed(
    contrast: Contrast, weights: Mapping[str, float], cells: Mapping[str, Runs]
) -> Values:
    """Return the contrast by seed, for the seeds on which all cells have a run.

    On the scale "ratio", the sum of the values over seeds is that of the logarithms of
    the means, and the value of a seed is linear in its metrics (the delta method): for
    a cell with mean m and weight w, it is w (log m + (x - m) / m).
    """
    common = set.intersection(*(set(runs) for runs in cells.values()))
    metrics: dict[int, list[float]] = {}
    failed, diverged = [], []
    for seed in sorted(common):
        records = [cells[cell][seed] for cell in weights]
        row = [metric_of(record, contrast.metric) for record in records]
        finite = [value for value in row if value is not None]
        if len(finite) == len(row) and (contrast.scale != "log2" or min(finite) > 0):
            metrics[seed] = finite
        elif _only_diverged(records, row):
            diverged.append(seed)
        else:
            failed.append(seed)
    if not metrics:
        return Values({}, failed, diverged)
    table = np.array(list(metrics.values()), np.float64)
    if contrast.scale == "log2":
        table = np.log2(table)
    elif contrast.scale == "ratio":
        means = table.mean(axis=0)
        if means.min() <= 0:  # there is no ratio of these means
            return Values({}, [*failed, *metrics], diverged)
        table = np.log(means) + (table - means) / means
    values = table @ np.array([*weights.values()]) - contrast.expected
    return Values(dict(zip(metrics, values.tolist(), strict=True)), failed, diverged)


def _only_diverged(
    records: Sequence[RunRecord], metrics: Sequence[float | None]
) -> bool:
    """Return whether each run that lacks the metric diverged."""
    return (
        all(
            record.status == "diverged"
            for record, value in zip(records, metrics, strict=True)
            if value is None
        )
        and None in metrics
    )
