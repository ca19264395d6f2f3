"""Figures of the cells of a design: a panel for each metric, as curves or as rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, exp2, lcm, log2
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from normbench.report.figures.curves import (
    dodge_of,
    draw_curves,
    level_axis,
    value_axis,
)
from normbench.report.figures.drawing import NOTE_SIZE, PAGE_WIDTH, TEXT_COLOUR
from normbench.report.figures.layout import Texts, balanced, framed, wrapped
from normbench.report.figures.names import (
    arm_names,
    axis_words,
    level_key,
    level_names,
)
from normbench.report.figures.rows import draw_rows, fit_ticks, name_rows, rows_of
from normbench.report.figures.series import Series, numeric
from normbench.report.figures.units import Quantity
from normbench.verdicts.design import Design
from normbench.verdicts.verdict import DesignVerdict

PANEL_HEIGHT = 2.15
"""Height in inches of a panel of curves with its labels."""
LABEL_WIDTH = 1.75
"""Width in inches of the labels of rows."""


@dataclass(frozen=True)
class Panel:
    """What one panel of a figure of cells shows; `title` is "" for our own runs."""

    quantity: Quantity
    series: Sequence[Series]
    metric: str = ""
    title: str = ""


@dataclass(frozen=True)
class Content:
    """The content of a figure of cells."""

    design: DesignVerdict
    registered: Design | None
    panels: Sequence[Panel]
    levels: Sequence[str]
    texts: Texts


def cells_figure(content: Content) -> Figure:
    """Draw the cells of a design: curves if its levels are numbers, otherwise rows."""
    return _curves(content) if numeric(content.levels) else _rows(content)


def _grid(count: int) -> list[int]:
    """Return the number of panels in each line: at most three, and no empty place."""
    lines = ceil(count / 3) if count != 4 else 2
    return [count // lines + (index < count % lines) for index in range(lines)]


def _places(figure: Figure, counts: Sequence[int]) -> list[Axes]:
    """Add axes for lines of panels; the lines have equal widths."""
    columns = lcm(*counts)
    grid = figure.add_gridspec(len(counts), columns)
    return [
        figure.add_subplot(
            grid[line, index * columns // count : (index + 1) * columns // count]
        )
        for line, count in enumerate(counts)
        for index in range(count)
    ]


def _curves(content: Content) -> Figure:
    """Draw a panel of curves for each metric, and one for published curves."""
    counts = _grid(len(content.panels))
    handles: dict[str, Line2D] = {}
    for panel in content.panels:
        for series in panel.series:
            handles.setdefault(series.label, series.legend_handle(line=True))
    published = [panel.title for panel in content.panels if panel.title]
    width = PAGE_WIDTH / counts[-1] - 0.75
    head = _title_lines(published[0], width) if published else []
    height = PANEL_HEIGHT * len(counts) + len(head) * 0.12
    drawn = framed(content.texts, height, list(handles.values()))
    for axes, panel in zip(_places(drawn, counts), content.panels, strict=True):
        ours = not panel.title
        draw_curves(
            axes, panel.series, dodge=dodge_of(content.levels, width) if ours else 0.0
        )
        level_axis(axes, panel.series)
        if panel.title:
            axes.set_title("\n".join(head), fontsize=NOTE_SIZE)
        else:
            _crossings(axes, panel.metric, content.design)
            _expected_slopes(axes, panel, content.registered)
        value_axis(axes, panel.series, panel.quantity)
        axes.set_ylabel("\n".join(balanced(axes.get_ylabel(), 1.6, 8)))
        label = axis_words(level_key(content.registered))
        axes.set_xlabel("\n".join(balanced(label, width, 8)))
    return drawn


def _title_lines(title: str, width: float) -> list[str]:
    return wrapped(title, width, NOTE_SIZE)


def _crossings(axes: Axes, metric: str, design: DesignVerdict) -> None:
    """Shade the interval of each crossover of `metric`."""
    left, right = axes.get_xlim()
    limits = {"before": left, "after": right}
    for crossing in design.crossovers:
        if crossing.metric == metric:
            low, high = (
                limits[level] if isinstance(level, str) else level
                for level in (crossing.low, crossing.high)
            )
            axes.axvspan(low, high, color=TEXT_COLOUR, alpha=0.1, lw=0, zorder=0)
            axes.set_xlim(left, right)


def _expected_slopes(axes: Axes, panel: Panel, registered: Design | None) -> None:
    """Draw the slopes that contrasts of a metric expect."""
    for contrast in registered.contrasts if registered else ():
        if contrast.metric != panel.metric or contrast.slope is None:
            continue
        if contrast.scale != "log2" or not contrast.expected:
            continue
        (name,) = arm_names(registered, [contrast.slope]).values()
        for series in panel.series:
            if series.label == name:
                levels = [float(level) for level in series.points]
                x = np.geomspace(min(levels), max(levels), 30)
                # The line goes through the geometric mean of the points.
                mean_x = exp2(fmean(log2(value) for value in levels))
                mean_y = exp2(fmean(log2(p.mean) for p in series.points.values()))
                y = mean_y * (x / mean_x) ** contrast.expected
                axes.plot(x, y, color=TEXT_COLOUR, linestyle="--", linewidth=0.8)
                title = f"dashed: slope {contrast.expected:g}"
                axes.set_title(title, fontsize=NOTE_SIZE)


def _rows(content: Content) -> Figure:
    """Draw a panel of rows for each metric, and one for published means."""
    counts = _grid(len(content.panels))
    levels = level_names(content.registered, content.levels)
    ours = content.panels[0].series
    rows = rows_of(ours, levels, LABEL_WIDTH)
    width = (PAGE_WIDTH - LABEL_WIDTH - 0.2) / counts[0] - 0.6
    labels = [
        balanced(panel.quantity.label, width + 0.3, 8) for panel in content.panels
    ]
    published = [panel.title for panel in content.panels if panel.title]
    head = _title_lines(published[0], width + 0.3) if published else []
    axis = 0.3 + 0.14 * max(map(len, labels))
    height = (rows.height + axis) * len(counts) + 0.12 * len(head)
    drawn = framed(content.texts, height)
    all_axes = _places(drawn, counts)
    starts = [sum(counts[:line]) for line in range(len(counts))]
    for index, (axes, panel) in enumerate(zip(all_axes, content.panels, strict=True)):
        shown = panel.series if not panel.title else _in_rows(panel.series, ours)
        draw_rows(axes, shown, rows, panel.quantity)
        axes.set_xlabel("\n".join(labels[index]))
        fit_ticks(axes, width)
        if panel.title:
            axes.set_title("\n".join(head), fontsize=NOTE_SIZE)
        if index in starts:
            name_rows(axes, rows)
        else:
            axes.set_yticks([])
    return drawn


def _in_rows(published: Sequence[Series], ours: Sequence[Series]) -> list[Series]:
    """Return published series with the labels of our series of the same norm."""
    labels = {series.look.colour: series.label for series in reversed(ours)}
    return [
        replace(series, label=labels[series.look.colour])
        for series in published
        if series.look.colour in labels
    ]
