"""Figures of any runs: means over a config key, and training curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from normbench import stats
from normbench.errors import RequestError
from normbench.records.query import Cell
from normbench.report.figures.curves import (
    dodge_of,
    draw_curves,
    level_axis,
    value_axis,
)
from normbench.report.figures.drawing import PAGE_WIDTH, style
from normbench.report.figures.layout import Texts, framed
from normbench.report.figures.names import axis_words, norm_words, plain
from normbench.report.figures.rows import rows_figure
from normbench.report.figures.series import (
    MAX_CURVES,
    TICK_STEPS,
    Point,
    Series,
    check_count,
    count_range,
    numeric,
    styled_series,
)
from normbench.report.figures.units import Quantity, quantity

MAX_WINDOWS = 60
"""Points of a training curve; each is a mean over a window of steps."""
MARKERS = 8
"""Points of a training curve that have a marker and an interval."""
PANEL_HEIGHT = 2.6
"""Height in inches of the curves with their labels."""

History = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Group:
    """The runs of one curve: its label, its norm and their histories."""

    label: str
    norm: str
    histories: Sequence[History]


@dataclass(frozen=True)
class Mean:
    """The mean of a metric over runs, and the metric of each run in `seeds`.

    `label` is that of its series, and `norm` is the norm whose look the series has.
    """

    label: str
    norm: str
    cell: Cell
    seeds: Sequence[float] = ()


def cells_figure(means: Sequence[Mean], by: str) -> Figure:
    """Draw means over the config key `by`; all are of one metric.

    The means are curves if the values of `by` are numbers, and rows otherwise. A note
    names cells without a mean. Raises RequestError if no cell has a mean or if there
    are too many for one figure.
    """
    metric = means[0].cell.metric
    unit = quantity(metric)
    points: dict[str, dict[str, Point]] = {}
    empty = []
    for mean in means:
        level, cell = _level(mean.cell.by[by]), mean.cell
        if cell.mean is None:
            empty.append(f"{mean.label} at {level}")
        else:
            point = Point(cell.mean, cell.low, cell.high, mean.seeds)
            points.setdefault(mean.label, {})[level] = point.drawn(unit)
    if not points:
        raise RequestError("no cell has a run with status ok and this metric")
    counts = [mean.cell.n for mean in means if mean.cell.n]
    failures = sum(mean.cell.failures for mean in means)
    notes = []
    if failures:
        notes.append(f"left out: {failures} runs that diverged, failed or were skipped")
    if empty:
        notes.append(f"no mean: {', '.join(empty)}")
    levels = list(dict.fromkeys(_level(mean.cell.by[by]) for mean in means))
    all_series = styled_series(points, {mean.label: mean.norm for mean in means})
    described = [
        f"{series.label}: "
        + ", ".join(f"{lv} {unit.text(p.mean)}" for lv, p in series.points.items())
        for series in all_series
    ]
    texts = Texts(
        name=f"{unit.words} by {plain(by)}",
        title=_best(all_series, unit, by, single=max(counts) == 1),
        subtitle="One run per point, no interval"
        if max(counts) == 1
        else f"Mean over {count_range(counts)} runs that are ok, with its 95% "
        "interval (Student's t); dots are single runs",
        notes="\n".join(notes),
        description="\n".join([*described, *notes]),
    )
    if numeric(levels):
        return _curves(all_series, levels, texts, unit, axis_words(by))
    return _rows(all_series, levels, texts, unit, by)


def _best(
    all_series: Sequence[Series], unit: Quantity, by: str, *, single: bool
) -> str:
    """Return which mean is the best, or only what is drawn if none is better.

    If all points are of a `single` run, there is no mean.
    """
    means = [
        (point.mean, series.label, level)
        for series in all_series
        for level, point in series.points.items()
    ]
    drawn = f"{unit.words} by {plain(by)}"
    if not unit.better or len(means) < 2:
        return f"{drawn[:1].upper()}{drawn[1:]}"
    lowest = unit.better == "lower"
    mean, label, level = (min if lowest else max)(means, key=lambda each: each[0])
    where = label if level == "-" or by == "norm" else f"{label}, {plain(by)} {level}"
    which = ("Lowest" if lowest else "Highest") + ("" if single else " mean")
    return f"{which} {unit.words}: {where}, {unit.text(mean)}"


def histories_figure(groups: Sequence[Group], metric: str) -> Figure:
    """Draw a logged metric over optimizer steps, a curve for each group of runs.

    A curve is the mean over runs in windows of steps, with its 95% interval at some
    steps if there are several runs. Raises RequestError for a metric that no history
    has.
    """
    unit = quantity(metric)
    points = {
        group.label: {step: point.drawn(unit) for step, point in windows.items()}
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
    check_count("curves", len(all_series), MAX_CURVES)
    last = [
        replace(series, points={"-": [*series.points.values()][-1]})
        for series in all_series
    ]
    counts = [len(group.histories) for group in groups]
    texts = Texts(
        name=f"{unit.words} during training",
        title=f"{_best(last, unit, 'optimizer step', single=max(counts) == 1)} "
        "at the end of training",
        subtitle="One run per curve, mean in windows of steps, no interval"
        if max(counts) == 1
        else f"Mean over {count_range(counts)} runs in windows of steps, with its "
        "95% interval (Student's t)",
        description="\n".join(
            f"{series.label}: {unit.text(series.points['-'].mean)} at the end"
            for series in last
        ),
    )
    with style():
        handles = [series.legend_handle(line=True) for series in all_series]
        drawn = framed(texts, PANEL_HEIGHT, handles)
        axes = drawn.subplots()
        for series in all_series:
            draw_curves(axes, [series], markevery=max(1, len(series.points) // MARKERS))
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=TICK_STEPS))
        value_axis(axes, all_series, unit)
        axes.set_xlabel("optimizer step")
    return drawn


def _curves(
    all_series: Sequence[Series],
    levels: Sequence[str],
    texts: Texts,
    unit: Quantity,
    label: str,
) -> Figure:
    """Draw curves over the levels of a config key."""
    check_count("curves", len(all_series), MAX_CURVES)
    with style():
        handles = [series.legend_handle(line=True) for series in all_series]
        drawn = framed(texts, PANEL_HEIGHT, handles)
        axes = drawn.subplots()
        draw_curves(axes, all_series, dodge=dodge_of(levels, PAGE_WIDTH - 0.8))
        level_axis(axes, all_series)
        value_axis(axes, all_series, unit)
        axes.set_xlabel(label)
    return drawn


def _rows(
    all_series: Sequence[Series],
    levels: Sequence[str],
    texts: Texts,
    unit: Quantity,
    by: str,
) -> Figure:
    drawn_levels = [level for series in all_series for level in series.points]
    names = {
        level: norm_words(level) if by == "norm" else f"{plain(by)} {plain(level)}"
        for level in levels
    }
    if sorted(drawn_levels) == sorted(levels) and len(levels) == len(all_series):
        # Each series has one point, at a level of its own. So the level alone can name
        # the row.
        all_series = [
            replace(series, label=names[level], points={"-": point})
            for series in all_series
            for level, point in series.points.items()
        ]
        names = {"-": "-"}
    with style():
        return rows_figure(all_series, names, texts, unit)


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
