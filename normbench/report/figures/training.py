"""Training curves, from the histories of runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from normbench import stats
from normbench.errors import RequestError
from normbench.report.figures.drawing import COLUMN, SMALL, figure, style
from normbench.report.figures.series import (
    BAND,
    MOST_CURVES,
    STEPS,
    Point,
    check_count,
    dressed,
    label_ends,
    measured,
    within_possible,
)

WINDOWS = 60
"""Points of a curve: each is the mean of the rows of a history in so many steps."""
MARKERS = 6
"""Of a curve; there are as many points as windows."""


@dataclass(frozen=True)
class Group:
    """Runs that are one curve: its label, its norm, and their histories."""

    label: str
    norm: str
    histories: Sequence[Sequence[Mapping[str, Any]]]


def of_histories(groups: Sequence[Group], metric: str) -> Figure:
    """`metric` over the optimiser's steps: the mean over runs, in windows of steps, and
    the 95 % interval where there are several runs.

    Raises RequestError for a metric that no history has.
    """
    traces = {
        group.label: traced
        for group in groups
        if (traced := _windows(group.histories, metric)) is not None
    }
    if not traces:
        known = {
            key
            for group in groups
            for history in group.histories
            for row in history
            for key in row
            if "/" in key
        }
        raise RequestError(
            f"--metric {metric}: no history has it; "
            f"there are {', '.join(sorted(known)) or 'none'}"
        )
    check_count("curves", len(traces), MOST_CURVES)
    norms = {group.label: group.norm for group in groups}
    ends = {
        label: {f"{x[-1]:g}": Point(float(mean[-1]))}
        for label, (x, mean, _) in traces.items()
    }
    counts = sorted(len(group.histories) for group in groups)
    with style():
        series = dressed(ends, norms)
        height = max(2.3, 0.16 * len(series) + 0.8)
        last = ", ".join(
            f"{each.label} {point.mean:.4g}"
            for each in series
            for point in each.points.values()
        )
        title = f"{measured(metric)} during training"
        n = "-".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
        told = f"mean and 95% interval over {n} runs, in windows of steps"
        made = figure(COLUMN, height, title, f"at the end: {last}\n{told}")
        axes = made.subplots()
        for each in series:
            x, mean, half = traces[each.label]
            axes.plot(
                x,
                mean,
                color=each.look.colour,
                linestyle=each.look.line,
                marker=each.look.marker,
                markerfacecolor=each.face(),
                markevery=max(1, len(x) // MARKERS),
            )
            axes.fill_between(
                x, mean - half, mean + half, color=each.look.colour, alpha=BAND, lw=0
            )
        axes.grid(visible=False, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=list(STEPS)))
        within_possible(axes, metric, "y")
        label_ends(axes, series, height - 0.7)
        axes.set_xlabel("optimiser step")
        axes.set_ylabel(measured(metric))
        made.supxlabel(told, x=0.01, ha="left", fontsize=SMALL)
    return made


def _windows(
    histories: Sequence[Sequence[Mapping[str, Any]]], metric: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None:
    """The middle of each window, the mean over runs in it, and half of its interval.

    None where no history has the metric.
    """
    rows_of = [
        [(row["step"], row[metric]) for row in history if row.get(metric) is not None]
        for history in histories
    ]
    runs = [np.array(rows, dtype=float) for rows in rows_of if rows]
    if not runs:
        return None
    last = max(run[-1, 0] for run in runs)
    most = max(len(run) for run in runs)
    edges = np.linspace(0, last, min(WINDOWS, most) + 1)
    steps, values = np.full((2, len(runs), len(edges) - 1), np.nan)
    for row, run in enumerate(runs):
        window = np.clip(np.searchsorted(edges, run[:, 0]) - 1, 0, len(edges) - 2)
        for index in np.unique(window):
            steps[row, index], values[row, index] = run[window == index].mean(0)
    filled = ~np.isnan(values).all(0)
    steps, values = steps[:, filled], values[:, filled]
    half = np.zeros(values.shape[1])
    for index, n in enumerate((~np.isnan(values)).sum(0)):
        if n > 1:
            sd = float(np.nanstd(values[:, index], ddof=1))
            half[index] = stats.half_width(sd, int(n))
    return np.nanmean(steps, axis=0), np.nanmean(values, axis=0), half
