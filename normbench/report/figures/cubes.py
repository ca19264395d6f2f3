"""Footprints as cubes (after Wu & He 2018, figure 2): samples x channels x positions.

Entries that the marked output entry depends on are coloured, as measured. Equal panels
give equal files.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from normbench.report.figures.drawing import save, style
from normbench.report.figures.panel import Panel

Point = tuple[float, float]

# Okabe & Ito's colours: told apart with any colour vision, and by their lightness.
COLOURS = {
    "none": "#e9ecef",
    "both": "#0072b2",
    "value": "#e69f00",
    "gradient": "#cc79a7",
    "output": "#d55e00",
}
MEANING = {
    "output": "one output entry",
    "both": "input entries it depends on",
    "value": "its value alone depends on these",
    "gradient": "its gradient alone sees these",
}
SHADE = {"top": 1.0, "front": 0.9, "side": 0.78}
EDGE = "#868e96"
PER_ROW = 4
SMALL = 7.5
UNIT = 34
"""Of a page, for one unit of an edge of a cube."""

# Where one axis of the cube, corner to corner, leads on paper.
ALONG_C: Point = (3.2, -0.85)
ALONG_N: Point = (1.85, 1.05)
ALONG_P: Point = (0.0, -3.0)


@dataclass(frozen=True)
class Face:
    """One visible side of one cell."""

    side: str
    kind: str
    corners: tuple[Point, Point, Point, Point]


def faces(panel: Panel) -> Iterator[Face]:
    """The visible sides of the cells: top, front (sample 0), side (last channel)."""
    kinds = panel.kinds()[:, :, panel.drawn_positions()]
    samples, channels, positions = kinds.shape
    steps = [
        np.array(along) / size
        for along, size in zip((ALONG_N, ALONG_C, ALONG_P), kinds.shape, strict=True)
    ]

    def face(side: str, kind: str, at: tuple[int, int, int], a: int, b: int) -> Face:
        corner = sum(count * step for count, step in zip(at, steps, strict=True))
        u, v = steps[a], steps[b]
        points = [corner, corner + u, corner + u + v, corner + v]
        first, second, third, fourth = ((float(x), float(y)) for x, y in points)
        return Face(side, str(kind), (first, second, third, fourth))

    for n in range(samples):
        for c in range(channels):
            yield face("top", kinds[n, c, 0], (n, c, 0), 0, 1)
    for c in range(channels):
        for p in range(positions):
            yield face("front", kinds[0, c, p], (0, c, p), 1, 2)
    for n in range(samples):
        for p in range(positions):
            yield face("side", kinds[n, -1, p], (n, channels, p), 0, 2)


def draw(panels: Sequence[Panel], folder: Path) -> list[Path]:
    """Write footprint.svg and footprint.png with all panels to `folder`.

    Creates the folder. Raises RequestError if it cannot be written.
    """
    with style():
        return save(_figure(panels), folder / "footprint")


@dataclass(frozen=True)
class Cube:
    """One panel as shapes for a page, in a box of `width` x `height`.

    Each of `shapes` is the kind of its entries, its colour, and the data of its path.
    """

    panel: Panel
    shapes: list[tuple[str, str, str]]
    width: float
    height: float


def cube(panel: Panel) -> Cube:
    """The shapes of a panel."""
    seen = list(faces(panel))
    corners = np.array([face.corners for face in seen])
    (left, low), (right, top) = corners.min((0, 1)), corners.max((0, 1))
    grouped: dict[tuple[str, str], list[str]] = {}
    for face in seen:
        points = (
            f"{(x - left) * UNIT:.1f} {(top - y) * UNIT:.1f}" for x, y in face.corners
        )
        paths = grouped.setdefault((face.kind, to_hex(colour(face))), [])
        paths.append(f"M{'L'.join(points)}Z")
    shapes = [(kind, fill, " ".join(paths)) for (kind, fill), paths in grouped.items()]
    return Cube(panel, shapes, (right - left) * UNIT, (top - low) * UNIT)


def legend(panels: Sequence[Panel]) -> dict[str, str]:
    """The kinds of entries that `panels` have, each with its meaning."""
    present = {str(kind) for panel in panels for kind in np.unique(panel.kinds())}
    return {kind: text for kind, text in MEANING.items() if kind in present}


def _figure(panels: Sequence[Panel]) -> Figure:
    columns = min(PER_ROW, len(panels))
    rows = -(-len(panels) // columns)
    most = max(len(_caption(panel).splitlines()) for panel in panels)
    head, foot = 0.34 + 1.25 * SMALL * most / 72, 0.36
    width, height = max(2.55 * columns, 5.1), (2.25 + head) * rows
    figure = Figure(figsize=(width, height + foot))
    lines = (f"{p.title}: {p.words}, {p.count} of {p.value.size}" for p in panels)
    figure.set_label("\n".join(["What one output entry depends on", *lines]))
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=0.005,
        right=0.995,
        top=1 - head / (height + foot),
        bottom=foot / (height + foot),
        wspace=0.02,
        hspace=head / 2.25,
    )
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, panels, strict=False):
        _cube(axes, panel)
    figure.legend(
        handles=[
            Patch(facecolor=COLOURS[kind], edgecolor=EDGE, label=meaning)
            for kind, meaning in legend(panels).items()
        ],
        loc="lower center",
        ncols=4,
        fontsize=9,
        handlelength=1.1,
        handleheight=1.1,
    )
    return figure


def _cube(axes: Axes, panel: Panel) -> None:
    seen = list(faces(panel))
    axes.add_collection(
        PolyCollection(
            [face.corners for face in seen],
            facecolors=[colour(face) for face in seen],
            edgecolors=EDGE,
            linewidths=0.5,
            joinstyle="round",
        )
    )
    axes.set_aspect("equal")
    axes.set_xlim(-0.75, ALONG_C[0] + ALONG_N[0] + 0.35)
    axes.set_ylim(ALONG_C[1] + ALONG_P[1] - 0.45, ALONG_N[1] + 0.15)
    label: dict[str, Any] = {"fontsize": 10, "ha": "center", "va": "center"}
    spatial = "H, W" if len(panel.spatial) == 2 else "T"
    axes.text(-0.22, ALONG_P[1] / 2, spatial, rotation=90, **label)
    axes.text(ALONG_C[0] / 2 - 0.1, ALONG_C[1] / 2 + ALONG_P[1] - 0.27, "C", **label)
    axes.text(
        ALONG_C[0] + ALONG_N[0] / 2 + 0.17,
        ALONG_C[1] + ALONG_N[1] / 2 + ALONG_P[1] - 0.24,
        "N",
        **label,
    )
    caption = _caption(panel)
    axes.set_title(caption, fontsize=SMALL, loc="center", pad=2, linespacing=1.2)
    axes.annotate(
        panel.title,
        (0.5, 1.0),
        (0, 1.25 * SMALL * len(caption.splitlines()) + 7),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="center",
        fontsize=11.5,
        fontweight="bold",
    )


def _caption(panel: Panel) -> str:
    return f"{_wrapped(panel.words)}\n{panel.count} of {panel.value.size} entries"


def _wrapped(words: str, width: int = 37) -> str:
    """Lines that end at a comma, and where nothing else helps inside of a clause."""
    lines = [""]
    for clause in re.split(r"(?<=[,:]) | (?=\+)", words):
        longer = f"{lines[-1]} {clause}".strip()
        if len(longer) > width and lines[-1]:
            lines.append(clause)
        else:
            lines[-1] = longer
    return "\n".join(textwrap.fill(line, width) for line in lines)


def colour(face: Face) -> tuple[float, float, float]:
    """Its kind's colour, darker on the sides that the light does not reach."""
    red, green, blue = to_rgb(COLOURS[face.kind])
    shade = SHADE[face.side]
    return red * shade, green * shade, blue * shade
