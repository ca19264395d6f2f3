"""Means with their intervals, as curves over numbers and as dots in rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from normbench.errors import RequestError
from normbench.report.figures.drawing import INK, PAPER
from normbench.report.figures.palette import Look, look

BAND = 0.2
"""Opacity of an interval that is an area."""
STEPS = (1, 2, 2.5, 5, 10)
"""Of ticks: what people count in."""
LINE = 9.5
"""Points from one direct label to the next."""
MOST_CURVES, MOST_ROWS = 16, 80
"""In one figure: more cannot be told apart."""
MOST_CHARACTERS = 30
"""Below an axis of one column, in one line."""
_MORE_MARKERS, _MORE_LINES = "DPv<>XpH", ("--", "-.", ":")


@dataclass(frozen=True)
class Point:
    """A mean and the ends of its interval, None for fewer than two runs."""

    mean: float
    low: float | None = None
    high: float | None = None

    def reach(self) -> tuple[float, float]:
        """How far below and above the mean the interval goes."""
        if self.low is None or self.high is None:
            return 0.0, 0.0
        return self.mean - self.low, self.high - self.mean


@dataclass(frozen=True)
class Series:
    """Points by level, drawn with one look; `hollow` if another series has it full."""

    label: str
    look: Look
    points: Mapping[str, Point]
    hollow: bool = False

    def style(self) -> dict[str, Any]:
        """Keyword arguments of matplotlib: colour and marker."""
        return {
            "color": self.look.colour,
            "marker": self.look.marker,
            "markerfacecolor": PAPER if self.hollow else self.look.colour,
        }

    def key(self) -> Line2D:
        """Its marker and name, for a legend."""
        return Line2D([], [], linestyle="none", label=self.label, **self.style())


def dressed(
    points: Mapping[str, Mapping[str, Point]], norms: Mapping[str, str]
) -> list[Series]:
    """A series for each label, with the look of its norm, `norms[label]`.

    Of several with one norm, the one with the norm's name, or else the first, has the
    norm's look; the others have its colour, but hollow markers and another line.
    """
    looks: dict[str, Look] = {}
    taken: dict[str, set[str]] = {}
    for label in sorted(points, key=lambda label: norms[label] != label):
        norm = norms[label]
        chosen = look(norm)
        rank = len(taken.setdefault(norm, set()))
        if rank:
            free = [marker for marker in _MORE_MARKERS if marker not in taken[norm]]
            line = _MORE_LINES[(rank - 1) % len(_MORE_LINES)]
            chosen = chosen._replace(marker=(free or ["o"])[0], line=line)
        taken[norm].add(chosen.marker)
        looks[label] = chosen
    return [
        Series(label, looks[label], of_label, looks[label] != look(norms[label]))
        for label, of_label in points.items()
    ]


def measured(metric: str) -> str:
    """A metric in words: "test error"."""
    split, _, name = metric.partition("/")
    return f"{split} {name}".replace("_", " ")


def axis_label(key: str) -> str:
    """A config key in words."""
    return key.replace("_", " ")


def numeric(levels: Sequence[str]) -> bool:
    """Whether the levels are two or more numbers above 0, for a logarithmic axis."""
    try:
        numbers = {float(level) for level in levels}
    except ValueError:
        return False
    return len(numbers) > 1 and min(numbers) > 0


def span(counts: Sequence[int]) -> str:
    """The least and the greatest count: "8", or "7-8"."""
    return "-".join(map(str, dict.fromkeys((min(counts), max(counts)))))


def curves(axes: Axes, series: Sequence[Series], markevery: int = 1) -> None:
    """Means over numbers, with bands and every `markevery`-th point marked.

    A dotted line goes through the only point of a series.
    """
    for each in series:
        ordered = sorted(each.points, key=float)
        x = np.array([float(level) for level in ordered])
        y = np.array([each.points[level].mean for level in ordered])
        below, above = np.array([each.points[level].reach() for level in ordered]).T
        color = each.look.colour
        if len(x) == 1:
            axes.axhline(y[0], color=color, linestyle=":", linewidth=0.9)
            axes.axhspan(
                y[0] - below[0], y[0] + above[0], color=color, alpha=BAND / 2, lw=0
            )
        else:
            axes.fill_between(x, y - below, y + above, color=color, alpha=BAND, lw=0)
        axes.plot(x, y, markevery=markevery, **each.style(), linestyle=each.look.line)
    axes.grid(visible=False, axis="x")


def level_axis(axes: Axes, series: Sequence[Series]) -> None:
    """Make x logarithmic, with a tick at each level."""
    levels = sorted({level for each in series for level in each.points}, key=float)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator([float(level) for level in levels]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if sum(len(level) + 2 for level in levels) > MOST_CHARACTERS:
        axes.tick_params(axis="x", rotation=45)


def label_ends(axes: Axes, series: Sequence[Series], height: float) -> None:
    """Name each curve at its right end, once the limits of the axes are settled.

    `height` is about that of the axes in inches, for labels that do not overlap.
    """
    axes.get_ylim()  # settles what is still to be scaled
    ends = [each.points[max(each.points, key=float)].mean for each in series]
    places = (axes.transData.transform((1.0, end)) for end in ends)
    shares = [float(axes.transAxes.inverted().transform(place)[1]) for place in places]
    for each, y in zip(series, spread(shares, LINE / (72 * height)), strict=True):
        axes.plot(
            [1.02, 1.06, 1.1],
            [y, y, y],
            transform=axes.transAxes,
            clip_on=False,
            markevery=[1],
            **each.style(),
            linestyle=each.look.line,
        )
        axes.text(
            1.13, y, each.label, transform=axes.transAxes, va="center", fontsize=7.5
        )


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Places near `wanted`, in their order, `gap` apart or more, in [0, 1] if they fit.

    Those that touch move together: a group is centred on the mean of what it wants.
    """
    groups: list[list[int]] = []
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])

    def start(group: Sequence[int]) -> float:
        middle = sum(wanted[i] for i in group) / len(group)
        height = gap * (len(group) - 1)
        return max(0.0, min(1.0 - height, middle - height / 2))

    for i in order:
        groups.append([i])
        while len(groups) > 1 and (
            start(groups[-1]) < start(groups[-2]) + gap * len(groups[-2])
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    places = [0.0] * len(wanted)
    for group in groups:
        for rank, i in enumerate(group):
            places[i] = start(group) + rank * gap
    return places


def rows(series: Sequence[Series], levels: Sequence[str]) -> dict[tuple[str, str], int]:
    """(label, level) -> line from the top: levels apart, series in them together."""
    placed: dict[tuple[str, str], int] = {}
    line = 0
    for level in levels:
        for each in series:
            if level in each.points:
                placed[each.label, level] = line
                line += 1
        line += len(levels) > 1
    return placed


def within_possible(axes: Axes, metric: str, axis: Literal["x", "y"]) -> None:
    """End the axis of an error or accuracy a little beyond 0 and 1."""
    if metric.rpartition("/")[2] not in ("error", "accuracy"):
        return
    low, high = axes.get_xlim() if axis == "x" else axes.get_ylim()
    edge = 0.03 * (high - low)
    limit = axes.set_xlim if axis == "x" else axes.set_ylim
    limit(max(low, -edge), min(high, 1 + edge))


def dots(
    axes: Axes, series: Sequence[Series], places: Mapping[tuple[str, str], int]
) -> None:
    """Draw each point in its row, with its interval; a line parts the levels."""
    for each in series:
        drawn = {
            places[each.label, level]: point
            for level, point in each.points.items()
            if (each.label, level) in places
        }
        if not drawn:
            continue
        axes.errorbar(
            [point.mean for point in drawn.values()],
            list(drawn),
            xerr=np.array([point.reach() for point in drawn.values()]).T,
            linestyle="none",
            elinewidth=1.3,
            **each.style(),
        )
    firsts: dict[str, int] = {}
    for (_, level), line in places.items():
        firsts.setdefault(level, line)
    for line in list(firsts.values())[1:]:
        axes.axhline(line - 1, color=INK, alpha=0.16, linewidth=0.5)
    bottom = max(places.values(), default=0)
    axes.set_ylim(bottom + 0.8, -0.8)
    hide_y_axis(axes)


def hide_y_axis(axes: Axes) -> None:
    """Leave only the labels of y, which name rows."""
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def name_rows(axes: Axes, places: Mapping[tuple[str, str], int]) -> None:
    """Name the rows: by level, or by series if there is one level."""
    levels = list(dict.fromkeys(level for _, level in places))
    if len(levels) == 1:
        ticks = {
            float(line): f"{label}@{level}".removesuffix("@-")
            for (label, level), line in places.items()
        }
    else:
        lines: dict[str, list[int]] = {}
        for (_, level), line in places.items():
            lines.setdefault(level, []).append(line)
        ticks = {fmean(some): level for level, some in lines.items()}
    axes.set_yticks(list(ticks), list(ticks.values()))


def check_count(what: str, count: int, most: int) -> None:
    """Raise RequestError if there are too many to tell apart."""
    if count > most:
        raise RequestError(
            f"{count} {what} are too many to tell apart (at most {most}); choose some "
            "with --where"
        )
