"""Means with their intervals and single seeds, by level, and their looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.lines import Line2D

from normbench.errors import RequestError
from normbench.report.figures.drawing import BACKGROUND
from normbench.report.figures.palette import Look, look
from normbench.report.figures.units import Quantity

TICK_STEPS = (1, 2, 2.5, 5, 10)
"""Steps between ticks, times a power of ten (`steps` of MaxNLocator)."""
MAX_CURVES, MAX_ROWS = 16, 80
"""Limits of one figure, so that readers can distinguish its parts."""
_MORE_MARKERS, _MORE_LINES = "DPv<>XpH", ("--", "-.", ":")


@dataclass(frozen=True)
class Point:
    """A mean, the ends of its interval, and the values of single seeds.

    A single run has a mean, but no interval. All numbers are in one unit.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    seeds: Sequence[float] = ()

    def errors(self) -> tuple[float, float]:
        """Return the lengths of the interval below and above the mean."""
        if self.low is None or self.high is None:
            return 0.0, 0.0
        return self.mean - self.low, self.high - self.mean

    def ends(self) -> tuple[float, float]:
        """Return the smallest and the largest value that is drawn."""
        known = [v for v in (self.mean, self.low, self.high) if v is not None]
        return min(*known, *self.seeds, self.mean), max(*known, *self.seeds, self.mean)

    def drawn(self, quantity: Quantity) -> "Point":
        """Return the point in the unit of an axis; an impossible end is cut."""

        def scaled(value: float | None) -> float | None:
            if value is None:
                return None
            value *= quantity.factor
            if quantity.low is not None:
                value = max(value, quantity.low)
            return value if quantity.high is None else min(value, quantity.high)

        return Point(
            self.mean * quantity.factor,
            scaled(self.low),
            scaled(self.high),
            [value * quantity.factor for value in self.seeds],
        )

    def is_cut(self, quantity: Quantity) -> bool:
        """Return whether `drawn` cuts the interval."""
        if self.low is None or self.high is None:
            return False
        low, high = self.low * quantity.factor, self.high * quantity.factor
        below = quantity.low is not None and low < quantity.low
        return below or (quantity.high is not None and high > quantity.high)


@dataclass(frozen=True)
class Series:
    """Points by level, with one look.

    Markers are `hollow` if another series has the same colour with filled markers. A
    series with one level is drawn `across` all levels if they do not change its norm.
    """

    label: str
    look: Look
    points: Mapping[str, Point]
    hollow: bool = False
    across: bool = False

    def style(self) -> dict[str, Any]:
        """Return colour and marker as keyword arguments of matplotlib."""
        return {
            "color": self.look.colour,
            "marker": self.look.marker,
            "markerfacecolor": BACKGROUND if self.hollow else self.look.colour,
        }

    def legend_handle(self, *, line: bool = False) -> Line2D:
        """Return the marker and the name of the series, for a legend.

        With `line`, the line of the series too, if it has any.
        """
        handle = Line2D([], [], linestyle="none", label=self.label, **self.style())
        if line and len(self.points) > 1:
            handle.set_linestyle(self.look.line)  # type: ignore[arg-type]  # a str
        elif line and self.across:
            handle.set_linestyle(":")
        return handle


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


def check_count(what: str, count: int, maximum: int) -> None:
    """Raise RequestError if a figure would have more than `maximum` rows or curves."""
    if count > maximum:
        raise RequestError(
            f"{count} {what} are too many for one figure (at most {maximum}); choose "
            "fewer with --where"
        )
