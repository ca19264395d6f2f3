"""Figures of any runs: means over a config key, and training curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from normbench import stats
from normbench.errors import RequestError
from normbench.records.query import Cell
from normbench.report.figures.drawing import COLUMN_WIDTH, NOTE_SIZE, figure, style
from normbench.report.figures.series import (
    MAX_CURVES,
    MAX_ROWS,
    TICK_STEPS,
    Point,
    Series,
    axis_label,
    check_count,
    count_range,
    draw_curves,
    draw_dots,
    label_ends,
    level_axis,
    limit_to_possible,
    metric_label,
    name_rows,
    numeric,
    row_places,
    rows_height,
    styled_series,
)

MAX_WINDOWS = 60
"""Points of a training curve; each is a mean over a window of steps."""
MARKERS = 6
"""Points of a training curve that have a marker."""

History = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Group:
    """The runs of one curve: its label, its norm and their histories."""

    label: str
    norm: str
    histories: Sequence[History]


@dataclass(frozen=True)
class _Texts:
    """The texts of a figure; `axis` is the label of the levels or steps."""

    metric: str
    axis: str
    title: str
    description: str
    note: str


def cells_figure(cells: Sequence[tuple[str, str, Cell]], by: str) -> Figure:
    """Draw the means of cells over the config key `by`.

    The means are curves if the values of `by` are numbers, and dots otherwise. `cells`
    are (label of its series, norm of its series, cell), all of one metric. A note names
    cells without a mean. Raises RequestError if no cell has a mean or if there are too
    many for one figure.
    """
    points: dict[str, dict[str, Point]] = {}
    empty = []
    for label, _, cell in cells:
        level = _level(cell.by[by])
        if cell.mean is None:
            empty.append(f"{label} at {level}")
        else:
            point = Point(cell.mean, cell.low, cell.high)
            points.setdefault(label, {})[level] = point
    if not points:
        raise RequestError("no cell has a run with status ok and this metric")
    metric = cells[0][2].metric
    counts = [cell.n for _, _, cell in cells if cell.n]
    notes = [f"mean and 95% interval over {count_range(counts)} runs that are ok"]
    failures = sum(cell.failures for _, _, cell in cells)
    if failures:
        notes.append(f"left out: {failures} runs that diverged, failed or were skipped")
    if empty:
        notes.append(f"no mean: {', '.join(empty)}")
    all_series = styled_series(points, {label: norm for label, norm, _ in cells})
    means = [
        f"{series.label}: "
        + ", ".join(f"{level} {p.mean:.4g}" for level, p in series.points.items())
        for series in all_series
    ]
    texts = _Texts(
        metric=metric,
        axis=axis_label(by),
        title=f"{metric_label(metric)} by {axis_label(by)}",
        description="\n".join([*means, *notes]),
        note="\n".join(notes),
    )
    levels = list(dict.fromkeys(_level(cell.by[by]) for _, _, cell in cells))
    if numeric(levels):
        return _curves(all_series, texts)
    return _dots(all_series, levels, texts)


def histories_figure(groups: Sequence[Group], metric: str) -> Figure:
    """Draw a logged metric over optimiser steps, a curve for each group of runs.

    A curve is the mean over runs in windows of steps, with its 95% interval if there
    are several runs. Raises RequestError for a metric that no history has.
    """
    points = {
        group.label: windows
        for group in groups
        if (windows := _windows(group.histories, metric))
    }
    if not points:
        histories = [history for group in groups for history in group.histories]
        keys = {key for history in histories for row in history for key in row}
        metrics = sorted(key for key in keys if "/" in key)
        raise RequestError(
            f"--metric {metric}: no history has it; "
            f"logged metrics: {', '.join(metrics) or 'none'}"
        )
    all_series = styled_series(points, {group.label: group.norm for group in groups})
    final_means = ", ".join(
        f"{series.label} {list(series.points.values())[-1].mean:.4g}"
        for series in all_series
    )
    counts = [len(group.histories) for group in groups]
    note = f"mean and 95% interval over {count_range(counts)} runs, in windows of steps"
    texts = _Texts(
        metric=metric,
        axis="optimiser step",
        title=f"{metric_label(metric)} during training",
        description=f"at the end: {final_means}\n{note}",
        note=note,
    )
    return _curves(all_series, texts, over_levels=False)


def _curves(
    all_series: Sequence[Series], texts: _Texts, over_levels: bool = True
) -> Figure:
    """Draw curves over the levels of a config key, or over optimiser steps."""
    check_count("curves", len(all_series), MAX_CURVES)
    height = max(2.3, 0.16 * len(all_series) + 0.8)
    with style():
        drawn = figure(COLUMN_WIDTH, height, texts.title, texts.description)
        axes = drawn.subplots()
        if over_levels:
            draw_curves(axes, all_series)
            level_axis(axes, all_series)
        else:
            for series in all_series:
                draw_curves(axes, [series], max(1, len(series.points) // MARKERS))
            axes.xaxis.set_major_locator(MaxNLocator(5, steps=TICK_STEPS))
        limit_to_possible(axes, texts.metric, "y")
        label_ends(axes, all_series, height - 0.7)
        axes.set_xlabel(texts.axis)
        axes.set_ylabel(metric_label(texts.metric))
        drawn.supxlabel(texts.note, x=0.01, ha="left", fontsize=NOTE_SIZE)
    return drawn


def _dots(all_series: Sequence[Series], levels: Sequence[str], texts: _Texts) -> Figure:
    drawn_levels = [level for series in all_series for level in series.points]
    if sorted(drawn_levels) == sorted(levels) and len(levels) == len(all_series):
        # Each series has one point, at a level of its own. So the level alone can name
        # the row.
        all_series = [
            replace(series, label=level, points={"-": point})
            for series in all_series
            for level, point in series.points.items()
        ]
        levels = ["-"]
    places = row_places(all_series, levels)
    check_count("rows", len(places), MAX_ROWS)
    several = len(levels) > 1
    legend = several and len(all_series) > 1
    height = rows_height(places)
    if legend:
        height += 0.14 * ceil(len(all_series) / 3)
    with style():
        drawn = figure(COLUMN_WIDTH, height, texts.title, texts.description)
        axes = drawn.subplots()
        draw_dots(axes, all_series, places)
        limit_to_possible(axes, texts.metric, "x")
        name_rows(axes, places)
        axes.set_xlabel(metric_label(texts.metric))
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=TICK_STEPS))
        if several:
            axes.set_ylabel(texts.axis)
        if legend:
            handles = [series.legend_handle() for series in all_series]
            drawn.legend(handles=handles, loc="outside upper center", ncols=3)
        drawn.supxlabel(texts.note, x=0.01, ha="left", fontsize=NOTE_SIZE)
    return drawn


def _level(value: Any) -> str:
    return "none" if value is None else str(value)


def _windows(histories: Sequence[History], metric: str) -> dict[str, Point]:
    """Return the mean over runs in each window of steps, with its interval.

    The keys are the mean steps of the windows. Empty if no history has the metric.
    """
    logged = [
        [(row["step"], row[metric]) for row in history if row.get(metric) is not None]
        for history in histories
    ]
    runs = [np.array(rows, dtype=float) for rows in logged if rows]
    if not runs:
        return {}
    last_step = max(run[-1, 0] for run in runs)
    edges = np.linspace(0, last_step, min(MAX_WINDOWS, max(map(len, runs))) + 1)
    steps, values = np.full((2, len(runs), len(edges) - 1), np.nan)
    for row, run in enumerate(runs):
        window = np.clip(np.searchsorted(edges, run[:, 0]) - 1, 0, len(edges) - 2)
        for index in np.unique(window):
            steps[row, index], values[row, index] = run[window == index].mean(0)
    points = {}
    for x, y in zip(steps.T, values.T, strict=True):
        present = y[~np.isnan(y)]
        if not len(present):
            continue
        half_width = 0.0
        if len(present) > 1:
            sd = float(np.std(present, ddof=1))
            half_width = stats.half_width(sd, len(present))
        mean = float(present.mean())
        step = repr(float(np.nanmean(x)))
        points[step] = Point(mean, mean - half_width, mean + half_width)
    return points
