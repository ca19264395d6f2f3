"""Measured footprints as inline SVG: `footprints.json` is what the command measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.colors import to_hex

from normbench.report.figures.cubes import COLOURS, MEANING, Face, colour, faces
from normbench.report.figures.panel import Panel, read

MEASURED = Path(__file__).with_name("footprints.json")
"""Written by `normbench footprint NORM... --output`; a test measures it again."""
UNIT = 34
"""Of the picture, an unit of a cube's edges."""


@dataclass(frozen=True)
class Cube:
    """One cube: shapes of one colour each, in a box of `width` x `height`."""

    panel: Panel
    shapes: list[tuple[str, str, str]]
    """Kind, colour, and the path's data."""
    width: float
    height: float


def cubes() -> list[Cube]:
    """A cube for each measured panel."""
    return [_cube(panel) for panel in read(MEASURED)]


def legend(drawn: Sequence[Cube]) -> dict[str, str]:
    """Colours that occur, and what they mean."""
    present = {kind for cube in drawn for kind, _, _ in cube.shapes}
    return {COLOURS[kind]: text for kind, text in MEANING.items() if kind in present}


def _cube(panel: Panel) -> Cube:
    seen = list(faces(panel))
    corners = [corner for face in seen for corner in face.corners]
    left, right = min(x for x, _ in corners), max(x for x, _ in corners)
    low, top = min(y for _, y in corners), max(y for _, y in corners)

    def place(x: float, y: float) -> str:
        return f"{(x - left) * UNIT:.1f} {(top - y) * UNIT:.1f}"

    grouped: dict[tuple[str, str], list[Face]] = {}
    for face in seen:
        grouped.setdefault((face.kind, to_hex(colour(face))), []).append(face)
    shapes = [
        (kind, fill, " ".join(_outline(face, place) for face in those))
        for (kind, fill), those in grouped.items()
    ]
    return Cube(panel, shapes, (right - left) * UNIT, (top - low) * UNIT)


def _outline(face: Face, place: Callable[[float, float], str]) -> str:
    return "M" + "L".join(place(x, y) for x, y in face.corners) + "Z"
