"""A figure of any runs: their means over a key."""

from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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
    measured,
    name_rows,
    numeric,
    rows,
    within_possible,
)


def of_cells(cells: Sequence[tuple[str, str, Cell]], by: str) -> Figure:
    """The mean of each cell over `by`: curves where that is numbers, dots otherwise.

    Each cell, all of one metric, is with the label and the norm of its series. Those
    without a mean are left out, and named below. Raises RequestError where none has
    one, and where there are too many to tell apart.
    """
    points: dict[str, dict[str, Point]] = {}
    norms: dict[str, str] = {}
    empty = []
    for label, norm, cell in cells:
        norms[label] = norm
        level = _level(cell.by[by])
        if cell.mean is None:
            empty.append(f"{label} at {level}")
        else:
            its = points.setdefault(label, {})
            its[level] = Point(cell.mean, cell.low, cell.high)
    if not points:
        raise RequestError("no cell has a run that is ok with this metric")
    metric = cells[0][2].metric
    levels = list(dict.fromkeys(_level(cell.by[by]) for _, _, cell in cells))
    counts = sorted({cell.n for _, _, cell in cells if cell.n})
    told = [f"mean and 95% interval over {_span(counts)} runs that are ok"]
    failures = sum(cell.failures for _, _, cell in cells)
    if failures:
        told.append(f"{failures} runs that diverged, failed or were skipped are not in")
    if empty:
        told.append(f"no mean: {', '.join(empty)}")
    with style():
        series = dressed(points, norms)
        title = f"{measured(metric)} by {axis_label(by)}"
        words = "\n".join([*_in_words(series), *told])
        over = _over_numbers if numeric(levels) else _in_rows
        made = over(series, levels, metric, axis_label(by), title, words)
        made.supxlabel("\n".join(told), x=0.01, ha="left", fontsize=SMALL)
    return made


def _over_numbers(
    series: Sequence[Series],
    levels: Sequence[str],
    metric: str,
    axis: str,
    title: str,
    words: str,
) -> Figure:
    check_count("curves", len(series), MOST_CURVES)
    height = max(2.3, 0.16 * len(series) + 0.8)
    made = figure(COLUMN, height, title, words)
    axes = made.subplots()
    curves(axes, series)
    within_possible(axes, metric, "y")
    label_ends(axes, series, height - 0.7)
    axes.set_ylabel(measured(metric))
    axes.set_xlabel(axis)
    return made


def _in_rows(
    series: Sequence[Series],
    levels: Sequence[str],
    metric: str,
    axis: str,
    title: str,
    words: str,
) -> Figure:
    one_each = all(len(each.points) == 1 for each in series)
    if one_each and len(series) == len(levels):  # each level is a series of its own
        named = {level: each for each in series for level in each.points}
        series = [
            Series(level, own.look, {"-": own.points[level]}, own.hollow)
            for level, own in named.items()
        ]
        levels = ["-"]
    places = rows(series, levels)
    check_count("rows", len(places), MOST_ROWS)
    step = 0.2 if len(levels) == 1 else 0.11
    keys = len(levels) > 1 and len(series) > 1
    height = (
        step * (max(places.values()) + 2) + 0.75 + 0.14 * keys * (-(-len(series) // 3))
    )
    made = figure(COLUMN, height, title, words)
    axes = made.subplots()
    dots(axes, series, places)
    within_possible(axes, metric, "x")
    name_rows(axes, places)
    axes.set_xlabel(measured(metric))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=list(STEPS)))
    if len(levels) > 1:
        axes.set_ylabel(axis)
    if keys:
        handles = [each.key() for each in series]
        made.legend(handles=handles, loc="outside upper center", ncols=3)
    return made


def _level(value: Any) -> str:
    return "none" if value is None else str(value)


def _span(counts: Sequence[int]) -> str:
    return "-".join(map(str, dict.fromkeys((counts[0], counts[-1]))))


def _in_words(series: Sequence[Series]) -> Iterator[str]:
    for each in series:
        told = (f"{level} {point.mean:.4g}" for level, point in each.points.items())
        yield f"{each.label}: {', '.join(told)}"
