"""Means with their intervals, drawn as curves over numbers or as dots in rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from normbench.errors import RequestError
from normbench.report.figures.drawing import BACKGROUND, TEXT_COLOUR
from normbench.report.figures.palette import Look, look

BAND_OPACITY = 0.2
"""Opacity of an interval that is an area."""
TICK_STEPS = (1, 2, 2.5, 5, 10)
"""Steps between ticks, times a power of ten (`steps` of MaxNLocator)."""
LABEL_GAP = 9.5
"""Distance in points between the labels of two curves."""
MAX_CURVES, MAX_ROWS = 16, 80
"""Limits of one figure, so that readers can distinguish its parts."""
MAX_TICK_CHARACTERS = 30
"""The tick labels of an axis are rotated if they have more characters in total."""
_MORE_MARKERS, _MORE_LINES = "DPv<>XpH", ("--", "-.", ":")


@dataclass(frozen=True)
class Point:
    """A mean and the ends of its interval; a single run has a mean, but no interval."""

    mean: float
    low: float | None = None
    high: float | None = None

    def errors(self) -> tuple[float, float]:
        """Return the lengths of the interval below and above the mean."""
        if self.low is None or self.high is None:
            return 0.0, 0.0
        return self.mean - self.low, self.high - self.mean


@dataclass(frozen=True)
class Series:
    """Points by level, with one look.

    Markers are `hollow` if another series has the same colour with filled markers.
    """

    label: str
    look: Look
    points: Mapping[str, Point]
    hollow: bool = False

    def style(self) -> dict[str, Any]:
        """Return colour and marker as keyword arguments of matplotlib."""
        return {
            "color": self.look.colour,
            "marker": self.look.marker,
            "markerfacecolor": BACKGROUND if self.hollow else self.look.colour,
        }

    def legend_handle(self) -> Line2D:
        """Return the marker and the name of the series, for a legend."""
        return Line2D([], [], linestyle="none", label=self.label, **self.style())


def styled_series(
    points: Mapping[str, Mapping[str, Point]], norms: Mapping[str, str]
) -> list[Series]:
    """Make a series for each label, with the look of its norm, `norms[label]`.

    If several labels have the same norm, one label gets the look of the norm: the
    label that equals the name of the norm, otherwise the first label. The other labels
    get the same colour, but hollow markers of other shapes, and other lines.
    """
    looks: dict[str, Look] = {}
    markers_of: dict[str, set[str]] = {}
    # False sorts before True: a label that equals the name of its norm comes first.
    for label in sorted(points, key=lambda label: norms[label] != label):
        norm = norms[label]
        series_look = look(norm)
        used = markers_of.setdefault(norm, set())
        if used:
            free = [marker for marker in _MORE_MARKERS if marker not in used]
            line = _MORE_LINES[(len(used) - 1) % len(_MORE_LINES)]
            series_look = series_look._replace(marker=(free or ["o"])[0], line=line)
        used.add(series_look.marker)
        looks[label] = series_look
    # The last argument is `hollow`: whether the look differs from that of the norm.
    return [
        Series(label, looks[label], by_level, looks[label] != look(norms[label]))
        for label, by_level in points.items()
    ]


def metric_label(metric: str) -> str:
    """Return a metric in words, such as "test error"."""
    split, _, name = metric.partition("/")
    return f"{split} {name}".replace("_", " ")


def axis_label(key: str) -> str:
    """Return a config key in words."""
    return key.replace("_", " ")


def numeric(levels: Sequence[str]) -> bool:
    """Return whether a logarithmic axis suits: several levels, all numbers above 0."""
    try:
        numbers = {float(level) for level in levels}
    except ValueError:
        return False
    return len(numbers) > 1 and min(numbers) > 0


def count_range(counts: Sequence[int]) -> str:
    """Return the smallest and the largest count, such as "7-8", or "8" if equal."""
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low}-{high}"


def draw_curves(axes: Axes, all_series: Sequence[Series], markevery: int = 1) -> None:
    """Draw means over numbers with bands; every `markevery`-th point has a marker.

    A series with a single point gets a dotted line across the axes.
    """
    for series in all_series:
        levels = sorted(series.points, key=float)
        points = [series.points[level] for level in levels]
        x = np.array([float(level) for level in levels])
        y = np.array([point.mean for point in points])
        below, above = np.array([point.errors() for point in points]).T
        band: dict[str, Any] = {"color": series.look.colour, "lw": 0}
        if len(x) == 1:
            axes.axhline(y[0], color=series.look.colour, linestyle=":", linewidth=0.9)
            low, high = y[0] - below[0], y[0] + above[0]
            axes.axhspan(low, high, alpha=BAND_OPACITY / 2, **band)
        else:
            axes.fill_between(x, y - below, y + above, alpha=BAND_OPACITY, **band)
        line = series.look.line
        axes.plot(x, y, markevery=markevery, **series.style(), linestyle=line)
    axes.grid(visible=False, axis="x")


def level_axis(axes: Axes, all_series: Sequence[Series]) -> None:
    """Make x logarithmic, with a tick at each level."""
    levels = sorted({level for each in all_series for level in each.points}, key=float)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator([float(level) for level in levels]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if sum(len(level) + 2 for level in levels) > MAX_TICK_CHARACTERS:
        axes.tick_params(axis="x", rotation=45)


def label_ends(axes: Axes, all_series: Sequence[Series], height: float) -> None:
    """Write the name of each curve at its right end; the axes' limits must be final.

    `height` is the approximate height of the axes in inches. It converts LABEL_GAP
    from points to a share of the axes.
    """
    axes.get_ylim()  # applies pending autoscaling
    ends = [each.points[max(each.points, key=float)].mean for each in all_series]
    pixels = [axes.transData.transform((1.0, end)) for end in ends]
    shares = [float(axes.transAxes.inverted().transform(p)[1]) for p in pixels]
    places = spread_out(shares, LABEL_GAP / (72 * height))  # 72 points are an inch
    for series, y in zip(all_series, places, strict=True):
        axes.plot(
            [1.02, 1.06, 1.1],
            [y, y, y],
            transform=axes.transAxes,
            clip_on=False,
            markevery=[1],  # only the middle one of the three points has a marker
            **series.style(),
            linestyle=series.look.line,
        )
        axes.text(
            1.13, y, series.label, transform=axes.transAxes, va="center", fontsize=7.5
        )


def spread_out(wanted: Sequence[float], gap: float) -> list[float]:
    """Return places near `wanted`, at least `gap` apart and in the same order.

    The places are in [0, 1] if [0, 1] has room for all gaps. Places that would be too
    close form a group. A group is centred on the mean of its wanted places.
    """
    groups: list[list[int]] = []  # of indices into `wanted`

    def start(group: Sequence[int]) -> float:  # the place of its first member
        middle = sum(wanted[i] for i in group) / len(group)
        height = gap * (len(group) - 1)
        return max(0.0, min(1.0 - height, middle - height / 2))

    def too_close(first: Sequence[int], second: Sequence[int]) -> bool:
        return start(second) < start(first) + gap * len(first)

    for i in sorted(range(len(wanted)), key=lambda i: wanted[i]):
        groups.append([i])
        while len(groups) > 1 and too_close(groups[-2], groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    places = [0.0] * len(wanted)
    for group in groups:
        for rank, i in enumerate(group):
            places[i] = start(group) + rank * gap
    return places


def row_places(
    all_series: Sequence[Series], levels: Sequence[str]
) -> dict[tuple[str, str], int]:
    """Return the row of each (label, level), counted from the top.

    The series of a level are in adjacent rows, with an empty row between two levels.
    """
    places: dict[tuple[str, str], int] = {}
    row = 0
    for level in levels:
        for series in all_series:
            if level in series.points:
                places[series.label, level] = row
                row += 1
        if len(levels) > 1:
            row += 1
    return places


def rows_height(places: Mapping[tuple[str, str], int]) -> float:
    """Return the height in inches of axes with these rows and an x label.

    If there are several levels, a level has one label for all its rows. So the rows
    need less height than rows that have a label each.
    """
    levels = {level for _, level in places}
    per_row = 0.11 if len(levels) > 1 else 0.2
    return per_row * (max(places.values()) + 2) + 0.75


def limit_to_possible(axes: Axes, metric: str, axis: Literal["x", "y"]) -> None:
    """Limit the axis of an error or an accuracy to [0, 1], plus a small edge."""
    if metric.rpartition("/")[2] not in ("error", "accuracy"):
        return
    low, high = axes.get_xlim() if axis == "x" else axes.get_ylim()
    edge = 0.03 * (high - low)
    set_limits = axes.set_xlim if axis == "x" else axes.set_ylim
    set_limits(max(low, -edge), min(high, 1 + edge))


def draw_dots(
    axes: Axes, all_series: Sequence[Series], places: Mapping[tuple[str, str], int]
) -> None:
    """Draw each point in its row with its interval, and a line between two levels."""
    for series in all_series:
        points = {
            places[series.label, level]: point
            for level, point in series.points.items()
            if (series.label, level) in places
        }
        if not points:
            continue
        axes.errorbar(
            [point.mean for point in points.values()],
            list(points),
            xerr=np.array([point.errors() for point in points.values()]).T,
            linestyle="none",
            elinewidth=1.3,
            **series.style(),
        )
    first_rows: dict[str, int] = {}
    for (_, level), row in places.items():
        first_rows.setdefault(level, row)
    for row in list(first_rows.values())[1:]:
        # The row above the first row of a level is empty.
        axes.axhline(row - 1, color=TEXT_COLOUR, alpha=0.16, linewidth=0.5)
    bottom = max(places.values(), default=0)
    axes.set_ylim(bottom + 0.8, -0.8)  # row 0 is at the top
    hide_y_axis(axes)


def hide_y_axis(axes: Axes) -> None:
    """Hide the y axis except its labels, which name rows."""
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def name_rows(axes: Axes, places: Mapping[tuple[str, str], int]) -> None:
    """Label the rows with their levels, or with their series if there is one level."""
    levels = {level for _, level in places}
    if len(levels) == 1:
        # A design without levels has one level, which is named "-".
        ticks = {
            float(row): f"{label}@{level}".removesuffix("@-")
            for (label, level), row in places.items()
        }
    else:
        rows_of: dict[str, list[int]] = {}
        for (_, level), row in places.items():
            rows_of.setdefault(level, []).append(row)
        ticks = {fmean(rows): level for level, rows in rows_of.items()}
    axes.set_yticks(list(ticks), list(ticks.values()))


def check_count(what: str, count: int, maximum: int) -> None:
    """Raise RequestError if a figure would have more than `maximum` rows or curves."""
    if count > maximum:
        raise RequestError(
            f"{count} {what} are too many for one figure (at most {maximum}); choose "
            "fewer with --where"
        )
