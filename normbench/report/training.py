"""Training curves, from the histories of runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from normbench import stats
from normbench.errors import RequestError
from normbench.report.drawing import COLUMN, SMALL, figure, style
from normbench.report.series import (
    BAND,
    MOST_CURVES,
    STEPS,
    Point,
    Series,
    check_count,
    dressed,
    label_ends,
    measured,
)

WINDOWS = 60
"""Points of a curve: each is the mean of the rows of a history in so many steps."""


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
            axes.plot(x, mean, color=each.look.colour, linestyle=each.look.line)
            axes.fill_between(
                x, mean - half, mean + half, color=each.look.colour, alpha=BAND, lw=0
            )
        axes.grid(visible=False, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=list(STEPS)))
        _label_without_markers(axes, series, height - 0.7)
        axes.set_xlabel("optimiser step")
        axes.set_ylabel(measured(metric))
        made.supxlabel(told, x=0.01, ha="left", fontsize=SMALL)
    return made


def _windows(
    histories: Sequence[Sequence[Mapping[str, Any]]], metric: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None:
    """Steps, the mean over runs in each window, and half of its interval."""
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
    sums = np.full((len(runs), len(edges) - 1), np.nan)
    for row, run in enumerate(runs):
        window = np.clip(np.searchsorted(edges, run[:, 0]) - 1, 0, len(edges) - 2)
        for index in np.unique(window):
            sums[row, index] = run[window == index, 1].mean()
    filled = ~np.isnan(sums).all(0)
    sums = sums[:, filled]
    n = (~np.isnan(sums)).sum(0)
    mean = np.nanmean(sums, axis=0)
    half = np.zeros_like(mean)
    for index in np.flatnonzero(n > 1):
        sd = float(np.nanstd(sums[:, index], ddof=1))
        half[index] = stats.half_width(sd, int(n[index]))
    return edges[1:][filled], mean, half


def _label_without_markers(axes: Axes, series: Sequence[Series], height: float) -> None:
    bare = [
        Series(each.label, each.look._replace(marker=""), each.points)
        for each in series
    ]
    label_ends(axes, bare, height)
