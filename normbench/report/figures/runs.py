"""Figures of any runs: their means over a key, and their training curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from normbench import stats
from normbench.errors import RequestError
from normbench.records.query import Cell
from normbench.report.figures.drawing import COLUMN, SMALL, figure, style
from normbench.report.figures.series import (
    MOST_CURVES,
    MOST_ROWS,
    STEPS,
    Point,
    Series,
    axis_label,
    check_count,
    curves,
    dots,
    dressed,
    label_ends,
    level_axis,
    measured,
    name_rows,
    numeric,
    rows,
    span,
    within_possible,
)

WINDOWS = 60
"""Points of a training curve: each is a mean over the rows in a window of steps."""
MARKERS = 6
"""Marked points of a training curve."""

History = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Group:
    """Runs that are one curve: its label, its norm, and their histories."""

    label: str
    norm: str
    histories: Sequence[History]


@dataclass(frozen=True)
class _Texts:
    """What is written on a figure of one metric over one axis."""

    metric: str
    axis: str
    title: str
    description: str
    note: str


def of_cells(cells: Sequence[tuple[str, str, Cell]], by: str) -> Figure:
    """The mean of each cell over `by`: curves if `by` has numbers, dots otherwise.

    Each cell, all of one metric, comes with the label and the norm of its series. A
    note names those without a mean. Raises RequestError if none has a mean, and if
    there are too many to tell apart.
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
        raise RequestError("no cell has a run that is ok with this metric")
    metric = cells[0][2].metric
    counts = [cell.n for _, _, cell in cells if cell.n]
    notes = [f"mean and 95% interval over {span(counts)} runs that are ok"]
    failures = sum(cell.failures for _, _, cell in cells)
    if failures:
        notes.append(
            f"{failures} runs that diverged, failed or were skipped are not in"
        )
    if empty:
        notes.append(f"no mean: {', '.join(empty)}")
    series = dressed(points, {label: norm for label, norm, _ in cells})
    described = [
        f"{each.label}: "
        + ", ".join(f"{level} {point.mean:.4g}" for level, point in each.points.items())
        for each in series
    ]
    texts = _Texts(
        metric,
        axis_label(by),
        f"{measured(metric)} by {axis_label(by)}",
        "\n".join([*described, *notes]),
        "\n".join(notes),
    )
    levels = list(dict.fromkeys(_level(cell.by[by]) for _, _, cell in cells))
    if numeric(levels):
        return _curves(series, texts)
    return _dots(series, levels, texts)


def of_histories(groups: Sequence[Group], metric: str) -> Figure:
    """`metric` over optimiser steps: the mean over runs, in windows of steps, and its
    95 % interval if there are several runs.

    Raises RequestError for a metric that no history has.
    """
    traces = {
        group.label: points
        for group in groups
        if (points := _windows(group.histories, metric))
    }
    if not traces:
        histories = [history for group in groups for history in group.histories]
        known = {key for history in histories for row in history for key in row}
        metrics = sorted(key for key in known if "/" in key)
        raise RequestError(
            f"--metric {metric}: no history has it; "
            f"there are {', '.join(metrics) or 'none'}"
        )
    series = dressed(traces, {group.label: group.norm for group in groups})
    last = ", ".join(
        f"{each.label} {list(each.points.values())[-1].mean:.4g}" for each in series
    )
    counts = [len(group.histories) for group in groups]
    note = f"mean and 95% interval over {span(counts)} runs, in windows of steps"
    title = f"{measured(metric)} during training"
    description = f"at the end: {last}\n{note}"
    texts = _Texts(metric, "optimiser step", title, description, note)
    return _curves(series, texts, log=False)


def _curves(series: Sequence[Series], texts: _Texts, log: bool = True) -> Figure:
    check_count("curves", len(series), MOST_CURVES)
    height = max(2.3, 0.16 * len(series) + 0.8)
    with style():
        made = figure(COLUMN, height, texts.title, texts.description)
        axes = made.subplots()
        if log:
            curves(axes, series)
            level_axis(axes, series)
        else:
            for each in series:
                curves(axes, [each], max(1, len(each.points) // MARKERS))
            axes.xaxis.set_major_locator(MaxNLocator(5, steps=list(STEPS)))
        within_possible(axes, texts.metric, "y")
        label_ends(axes, series, height - 0.7)
        axes.set_xlabel(texts.axis)
        axes.set_ylabel(measured(texts.metric))
        made.supxlabel(texts.note, x=0.01, ha="left", fontsize=SMALL)
    return made


def _dots(series: Sequence[Series], levels: Sequence[str], texts: _Texts) -> Figure:
    one_each = all(len(each.points) == 1 for each in series)
    if one_each and len(series) == len(levels):  # each level is a series of its own
        named = {level: each for each in series for level in each.points}
        series = [
            replace(each, label=level, points={"-": each.points[level]})
            for level, each in named.items()
        ]
        levels = ["-"]
    places = rows(series, levels)
    check_count("rows", len(places), MOST_ROWS)
    several = len(levels) > 1
    legend = several and len(series) > 1
    height = (0.11 if several else 0.2) * (max(places.values()) + 2) + 0.75
    height += 0.14 * legend * (-(-len(series) // 3))
    with style():
        made = figure(COLUMN, height, texts.title, texts.description)
        axes = made.subplots()
        dots(axes, series, places)
        within_possible(axes, texts.metric, "x")
        name_rows(axes, places)
        axes.set_xlabel(measured(texts.metric))
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=list(STEPS)))
        if several:
            axes.set_ylabel(texts.axis)
        if legend:
            handles = [each.key() for each in series]
            made.legend(handles=handles, loc="outside upper center", ncols=3)
        made.supxlabel(texts.note, x=0.01, ha="left", fontsize=SMALL)
    return made


def _level(value: Any) -> str:
    return "none" if value is None else str(value)


def _windows(histories: Sequence[History], metric: str) -> dict[str, Point]:
    """The mean over runs in each window of steps and its interval, by mean step.

    Empty if no history has the metric.
    """
    rows_of = [
        [(row["step"], row[metric]) for row in history if row.get(metric) is not None]
        for history in histories
    ]
    runs = [np.array(rows, dtype=float) for rows in rows_of if rows]
    if not runs:
        return {}
    last = max(run[-1, 0] for run in runs)
    edges = np.linspace(0, last, min(WINDOWS, max(map(len, runs))) + 1)
    steps, values = np.full((2, len(runs), len(edges) - 1), np.nan)
    for row, run in enumerate(runs):
        window = np.clip(np.searchsorted(edges, run[:, 0]) - 1, 0, len(edges) - 2)
        for index in np.unique(window):
            steps[row, index], values[row, index] = run[window == index].mean(0)
    points = {}
    for x, y in zip(steps.T, values.T, strict=True):
        present = y[~np.isnan(y)]
        if len(present):
            sd = float(np.std(present, ddof=1)) if len(present) > 1 else 0.0
            half = stats.half_width(sd, len(present)) if len(present) > 1 else 0.0
            mean = float(present.mean())
            points[repr(float(np.nanmean(x)))] = Point(mean, mean - half, mean + half)
    return points
