"""Means over numbers, such as batch sizes, drawn as curves with their intervals."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

from normbench.report.figures.series import TICK_STEPS, Series
from normbench.report.figures.units import Quantity

DODGE = 0.035
"""Distance between the points of two series at one level, in inches."""
DECADE = 10.0
"""An axis is logarithmic if the largest value is this many times the smallest."""
TICK_GAP = 0.09
"""Smallest distance between two labelled levels, as a share of the axis."""
SEED_OPACITY = 0.35


def draw_curves(
    axes: Axes,
    all_series: Sequence[Series],
    *,
    dodge: float = 0.0,
    markevery: int = 1,
) -> None:
    """Draw means with intervals; every `markevery`-th point has a marker and interval.

    `dodge` is the distance of two series in powers of two. The dots of the seeds are on
    the left of their mean. A series `across` all levels gets a dotted line.
    """
    for series in all_series:
        levels = sorted(series.points, key=float)
        points = [series.points[level] for level in levels]
        x = np.array([_place(level, series, all_series, dodge) for level in levels])
        seeds = [
            (place * 2 ** (-0.45 * dodge), value)
            for place, point in zip(x, points, strict=True)
            for value in point.seeds
        ]
        colour = series.look.colour
        if seeds:
            places, values = np.array(seeds).T
            axes.scatter(
                places, values, 4, color=colour, alpha=SEED_OPACITY, linewidths=0
            )
        if series.across and len(levels) == 1:
            mean = points[0].mean
            axes.axhline(mean, color=colour, linestyle=":", linewidth=0.9)
        shown = slice(markevery // 2, None, markevery)
        axes.errorbar(
            x[shown],
            [point.mean for point in points[shown]],
            yerr=np.array([point.errors() for point in points[shown]]).T,
            linestyle="none",
            elinewidth=1.1,
            capsize=1.8,
            capthick=0.9,
            **series.style(),
        )
        if len(levels) > 1:
            means = [point.mean for point in points]
            axes.plot(x, means, color=colour, linestyle=series.look.line)
    axes.grid(visible=False, axis="x")


def _place(
    level: str, series: Series, all_series: Sequence[Series], dodge: float
) -> float:
    """Return the x of a point, with the points of one level side by side."""
    together = [other for other in all_series if level in other.points]
    place = together.index(series) - (len(together) - 1) / 2
    factor: float = 2.0 ** (dodge * place)
    return float(level) * factor


def dodge_of(levels: Sequence[str], width: float) -> float:
    """Return the `dodge` of curves on axes of `width` inches, in powers of two."""
    numbers = [float(level) for level in levels]
    return 1.2 * DODGE * float(np.log2(max(numbers) / min(numbers))) / width


def value_axis(axes: Axes, all_series: Sequence[Series], quantity: Quantity) -> None:
    """Make y logarithmic if its values span a decade, and limit it to what is possible.

    The label says so.
    """
    ends = [p.ends() for series in all_series for p in series.points.values()]
    low, high = min(a for a, _ in ends), max(b for _, b in ends)
    label = quantity.label
    if low > 0 and high >= DECADE * low:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        label += ", log scale"
    else:
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=TICK_STEPS))
        bottom, top = axes.get_ylim()
        edge = 0.03 * (top - bottom)
        if quantity.low is not None:
            bottom = max(bottom, quantity.low - edge)
        if quantity.high is not None:
            top = min(top, quantity.high + edge)
        axes.set_ylim(bottom, top)
    axes.set_ylabel(label)


def level_axis(axes: Axes, all_series: Sequence[Series]) -> None:
    """Make x logarithmic, with a tick at each level; labels do not touch."""
    levels = sorted({float(level) for each in all_series for level in each.points})
    axes.set_xscale("log", base=2)
    low, high = levels[0], levels[-1]
    room = (high / low) ** 0.06 * 2 ** (0.12 * len(all_series) ** 0.5)
    axes.set_xlim(low / room, high * room)
    span = np.log2(high * room**2 / low)
    labelled: list[float] = []
    for level in reversed(levels):
        if not labelled or np.log2(labelled[-1] / level) >= TICK_GAP * span:
            labelled.append(level)
    axes.xaxis.set_major_locator(FixedLocator(levels))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        lambda value, _: f"{value:g}" if value in labelled else ""
    )
