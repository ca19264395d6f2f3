"""Means of things without an order, such as norms, drawn as a row each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from normbench.report.figures.curves import SEED_OPACITY
from normbench.report.figures.drawing import STYLE, TEXT_COLOUR
from normbench.report.figures.layout import Texts, balanced, framed
from normbench.report.figures.series import MAX_ROWS, TICK_STEPS, Series, check_count
from normbench.report.figures.units import Quantity

LINE = 0.155
"""Height of a line of a row in inches."""
GAP = 0.5
"""Space between two rows, in lines."""


@dataclass(frozen=True)
class Rows:
    """Rows of (label of a series, level), in lines of text from the top.

    `ticks` are the labels of rows, and `headers` are the levels above their rows.
    """

    places: Mapping[tuple[str, str], float]
    ticks: Mapping[float, str]
    headers: Mapping[float, str]
    lines: float

    @property
    def height(self) -> float:
        """The height of the rows in inches."""
        return LINE * self.lines


def rows_of(
    all_series: Sequence[Series], levels: Mapping[str, str], width: float
) -> Rows:
    """Return a row for each point; `levels` maps levels to words.

    Several levels are headers of their rows. Labels have at most `width` inches.
    """
    places: dict[tuple[str, str], float] = {}
    ticks: dict[float, str] = {}
    headers: dict[float, str] = {}
    top = 0.0
    for level, words in levels.items():
        shown = [series for series in all_series if level in series.points]
        if not shown:
            continue
        if len(levels) > 1:
            headers[top + 0.5] = words
            top += 1 + GAP / 2
        for series in shown:
            label = balanced(series.label, width, STYLE["ytick.labelsize"])
            middle = top + len(label) / 2
            places[series.label, level] = middle
            ticks[middle] = "\n".join(label)
            top += len(label) + GAP
        if len(levels) > 1:
            top += GAP
    return Rows(places, ticks, headers, top)


def rows_figure(
    all_series: Sequence[Series],
    levels: Mapping[str, str],
    texts: Texts,
    quantity: Quantity,
) -> Figure:
    """Draw a figure of one panel of rows. Raises RequestError if they are too many."""
    rows = rows_of(all_series, levels, 1.9)
    check_count("rows", len(rows.places), MAX_ROWS)
    label = balanced(quantity.label, 4.0, 8)
    drawn = framed(texts, rows.height + 0.3 + 0.14 * len(label))
    axes = drawn.subplots()
    draw_rows(axes, all_series, rows, quantity)
    name_rows(axes, rows)
    fit_ticks(axes, 4.5)
    axes.set_xlabel("\n".join(label))
    return drawn


def draw_rows(
    axes: Axes, all_series: Sequence[Series], rows: Rows, quantity: Quantity | None
) -> None:
    """Draw each point in its row with its interval and the seeds below it.

    With `quantity`, the mean is written at the right, and the axis is labelled.
    """
    lowest, highest = [], []
    for series in all_series:
        for level, point in series.points.items():
            place = rows.places.get((series.label, level))
            if place is None:
                continue
            axes.errorbar(
                [point.mean],
                [place - (0.15 if point.seeds else 0.0)],
                xerr=np.array([point.errors()]).T,
                linestyle="none",
                elinewidth=1.2,
                capsize=1.8,
                capthick=0.9,
                **series.style(),
            )
            if point.seeds:
                axes.scatter(
                    point.seeds,
                    [place + 0.35] * len(point.seeds),
                    s=4,
                    color=series.look.colour,
                    alpha=SEED_OPACITY,
                    linewidths=0,
                )
            low, high = point.ends()
            lowest.append(low)
            highest.append(high)
            if quantity is not None:
                axes.text(
                    1.02,
                    place,
                    quantity.text(point.mean),
                    transform=axes.get_yaxis_transform(),
                    va="center",
                    fontsize=6.5,
                )
    for place in list(rows.headers)[1:]:
        axes.axhline(
            place - 0.5 - GAP / 2, color=TEXT_COLOUR, alpha=0.16, linewidth=0.5
        )
    axes.set_ylim(rows.lines, -GAP / 2)
    hide_y_axis(axes)
    if quantity is not None and lowest:
        span = max(highest) - min(lowest) or abs(highest[0]) or 1.0
        left, right = min(lowest) - 0.06 * span, max(highest) + 0.06 * span
        if quantity.low is not None:
            left = max(left, quantity.low - 0.03 * span)
        if quantity.high is not None:
            right = min(right, quantity.high + 0.03 * span)
        axes.set_xlim(left, right)
        axes.set_xlabel(quantity.label)


def fit_ticks(axes: Axes, width: float) -> None:
    """Choose the ticks of x for axes of about `width` inches."""
    count = max(2, min(6, int(width / 0.45)))
    axes.xaxis.set_major_locator(MaxNLocator(count, steps=TICK_STEPS))


def name_rows(axes: Axes, rows: Rows) -> None:
    """Write the labels of rows, and the levels above them in bold."""
    named = {**rows.ticks, **rows.headers}
    axes.set_yticks(list(named), list(named.values()))
    for label, place in zip(axes.get_yticklabels(), named, strict=True):
        label.set_fontweight("bold" if place in rows.headers else "normal")


def hide_y_axis(axes: Axes) -> None:
    """Hide the y axis except its labels, which name rows."""
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
