"""Figures of footprints: an input of a norm as a cube of samples, channels, positions.

One output entry is marked, and the measured input entries that it depends on are
coloured (after Wu & He 2018, figure 2). Equal panels give equal files.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from normbench.report.figures.drawing import save, style
from normbench.report.figures.panel import Panel

Point = tuple[float, float]
Floats = NDArray[np.float64]

# Okabe & Ito's colours. They differ in lightness too, for readers who see no colours.
COLOURS = {
    "none": "#e9ecef",
    "both": "#0072b2",
    "value": "#e69f00",
    "gradient": "#cc79a7",
    "output": "#d55e00",
}
MEANINGS = {
    "output": "one output entry",
    "both": "input entries it depends on",
    "value": "input entries that only its value depends on",
    "gradient": "input entries that only its gradient depends on",
}
BRIGHTNESS = {"top": 1.0, "front": 0.9, "side": 0.78}
EDGE_COLOUR = "#868e96"
CUBES_PER_ROW = 4
CAPTION_SIZE = 7.5
"""Font size in points of the captions."""
PIXELS_PER_UNIT = 34
"""Size of a cube in a page, in CSS pixels per unit of the vectors below."""

# The vectors on paper of the three edges of a cube.
EDGE_C: Point = (3.2, -0.85)
EDGE_N: Point = (1.85, 1.05)
EDGE_P: Point = (0.0, -3.0)


@dataclass(frozen=True)
class Face:
    """One visible side of one entry: "top", "front" or "side"."""

    side: str
    kind: str
    corners: tuple[Point, Point, Point, Point]


def faces(panel: Panel) -> Iterator[Face]:
    """Yield the visible sides of the entries.

    The top has all samples and channels, the front has sample 0, the side has the last
    channel.
    """
    kinds = panel.kinds()[:, :, panel.drawn_positions()]
    samples, channels, positions = kinds.shape
    step_n = np.array(EDGE_N) / samples
    step_c = np.array(EDGE_C) / channels
    step_p = np.array(EDGE_P) / positions

    def face(side: str, kind: str, corner: Floats, u: Floats, v: Floats) -> Face:
        points = [corner, corner + u, corner + u + v, corner + v]
        first, second, third, fourth = ((float(x), float(y)) for x, y in points)
        return Face(side, str(kind), (first, second, third, fourth))

    for n in range(samples):
        for c in range(channels):
            corner = n * step_n + c * step_c
            yield face("top", kinds[n, c, 0], corner, step_n, step_c)
    for c in range(channels):
        for p in range(positions):
            corner = c * step_c + p * step_p
            yield face("front", kinds[0, c, p], corner, step_c, step_p)
    for n in range(samples):
        for p in range(positions):
            corner = n * step_n + channels * step_c + p * step_p
            yield face("side", kinds[n, -1, p], corner, step_n, step_p)


def draw(panels: Sequence[Panel], folder: Path) -> list[Path]:
    """Write footprint.svg and footprint.png with all panels to `folder`.

    Creates the folder. Raises RequestError if it is not writable.
    """
    with style():
        return save(_figure(panels), folder / "footprint")


@dataclass(frozen=True)
class Cube:
    """One panel as SVG paths for a page, in a box of `width` x `height` pixels.

    Each of `shapes` is (kind of its entries, colour, path data).
    """

    panel: Panel
    shapes: list[tuple[str, str, str]]
    width: float
    height: float


def cube(panel: Panel) -> Cube:
    """Return a panel as SVG paths."""
    scale = PIXELS_PER_UNIT
    visible = list(faces(panel))
    corners = np.array([face.corners for face in visible])
    (left, bottom), (right, top) = corners.min((0, 1)), corners.max((0, 1))
    paths_of: dict[tuple[str, str], list[str]] = {}
    for face in visible:
        points = (
            f"{(x - left) * scale:.1f} {(top - y) * scale:.1f}" for x, y in face.corners
        )
        paths = paths_of.setdefault((face.kind, to_hex(colour(face))), [])
        paths.append(f"M{'L'.join(points)}Z")
    shapes = [(kind, fill, " ".join(paths)) for (kind, fill), paths in paths_of.items()]
    return Cube(panel, shapes, (right - left) * scale, (top - bottom) * scale)


def legend(panels: Sequence[Panel]) -> dict[str, str]:
    """Return the meaning of each kind of entry that occurs in `panels`."""
    present = {str(kind) for panel in panels for kind in np.unique(panel.kinds())}
    return {kind: text for kind, text in MEANINGS.items() if kind in present}


def _figure(panels: Sequence[Panel]) -> Figure:
    columns = min(CUBES_PER_ROW, len(panels))
    rows = ceil(len(panels) / columns)
    caption_lines = max(len(_caption(panel).splitlines()) for panel in panels)
    # In inches: the space above each cube, and the space below all of them.
    head = 0.34 + 1.25 * CAPTION_SIZE * caption_lines / 72
    foot = 0.36
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
            Patch(facecolor=COLOURS[kind], edgecolor=EDGE_COLOUR, label=meaning)
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
    visible = list(faces(panel))
    axes.add_collection(
        PolyCollection(
            [face.corners for face in visible],
            facecolors=[colour(face) for face in visible],
            edgecolors=EDGE_COLOUR,
            linewidths=0.5,
            joinstyle="round",
        )
    )
    axes.set_aspect("equal")
    axes.set_xlim(-0.75, EDGE_C[0] + EDGE_N[0] + 0.35)
    axes.set_ylim(EDGE_C[1] + EDGE_P[1] - 0.45, EDGE_N[1] + 0.15)
    label: dict[str, Any] = {"fontsize": 10, "ha": "center", "va": "center"}
    spatial = "H, W" if len(panel.spatial) == 2 else "T"
    axes.text(-0.22, EDGE_P[1] / 2, spatial, rotation=90, **label)
    axes.text(EDGE_C[0] / 2 - 0.1, EDGE_C[1] / 2 + EDGE_P[1] - 0.27, "C", **label)
    axes.text(
        EDGE_C[0] + EDGE_N[0] / 2 + 0.17,
        EDGE_C[1] + EDGE_N[1] / 2 + EDGE_P[1] - 0.24,
        "N",
        **label,
    )
    caption = _caption(panel)
    axes.set_title(caption, fontsize=CAPTION_SIZE, loc="center", pad=2, linespacing=1.2)
    axes.annotate(
        panel.title,
        (0.5, 1.0),
        (0, 1.25 * CAPTION_SIZE * len(caption.splitlines()) + 7),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="center",
        fontsize=11.5,
        fontweight="bold",
    )


def _caption(panel: Panel) -> str:
    return f"{_wrapped(panel.words)}\n{panel.count} of {panel.value.size} entries"


def _wrapped(text: str, width: int = 37) -> str:
    """Break lines after a comma or colon, or before a "+".

    A clause that is longer than a line breaks at any space.
    """
    lines = [""]
    for clause in re.split(r"(?<=[,:]) | (?=\+)", text):
        longer = f"{lines[-1]} {clause}".strip()
        if len(longer) > width and lines[-1]:
            lines.append(clause)
        else:
            lines[-1] = longer
    return "\n".join(textwrap.fill(line, width) for line in lines)


def colour(face: Face) -> tuple[float, float, float]:
    """Return the colour of a face as RGB in [0, 1]; front and side are darker."""
    red, green, blue = to_rgb(COLOURS[face.kind])
    brightness = BRIGHTNESS[face.side]
    return red * brightness, green * brightness, blue * brightness
