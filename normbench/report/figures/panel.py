"""Footprints as data and as text: the input entries that an output entry depends on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]

MAX_POSITIONS = 9
"""A cube with more positions shows only the image row of the output entry."""
MEASURED = Path(__file__).with_name("footprints.json")
"""Written by `normbench footprint NORM... --output`; a test repeats the measurement."""


@dataclass(frozen=True)
class Panel:
    """One output entry of a norm, and the input entries that it depends on.

    The input has N samples, C channels and P positions; `spatial` is its spatial shape.
    """

    title: str
    words: str
    """The dependence in words."""
    spatial: tuple[int, ...]
    output: tuple[int, int, int]
    """The output entry: sample, channel, position."""
    value: Bools
    """(N, C, P): the input entries that the value of the output depends on."""
    gradient: Bools
    """(N, C, P): the input entries that the gradient of the output depends on."""

    @property
    def count(self) -> int:
        """The number of input entries that the value or the gradient depends on."""
        return int((self.value | self.gradient).sum())

    def kinds(self) -> NDArray[np.str_]:
        """Return the kind of each entry, a key of `cubes.COLOURS`, as (N, C, P)."""
        kinds = np.full(self.value.shape, "none", dtype="<U8")
        kinds[self.value & self.gradient] = "both"
        kinds[self.value & ~self.gradient] = "value"
        kinds[~self.value & self.gradient] = "gradient"
        kinds[self.output] = "output"
        return kinds

    def drawn_positions(self) -> range:
        """Return the positions that a cube shows."""
        positions = self.value.shape[2]
        if positions <= MAX_POSITIONS or not self.spatial:
            return range(positions)
        width = self.spatial[-1]
        start = self.output[2] // width * width
        return range(start, start + width)

    def plain(self) -> dict[str, Any]:
        """Return the panel for a JSON file; arrays have one bit per entry, in hex."""
        return {
            "title": self.title,
            "words": self.words,
            "spatial": list(self.spatial),
            "output": list(self.output),
            "shape": list(self.value.shape),
            "value": np.packbits(self.value).tobytes().hex(),
            "gradient": np.packbits(self.gradient).tobytes().hex(),
        }


def read(file: Path) -> list[Panel]:
    """Read the panels that `normbench footprint --output` wrote to a JSON file."""
    return [_panel(plain) for plain in json.loads(file.read_text(encoding="utf-8"))]


def _panel(plain: Mapping[str, Any]) -> Panel:
    def entries(name: str) -> Bools:
        packed = np.frombuffer(bytes.fromhex(plain[name]), np.uint8)
        size = int(np.prod(plain["shape"]))
        return np.unpackbits(packed, count=size).astype(bool).reshape(plain["shape"])

    sample, channel, position = plain["output"]
    return Panel(
        title=plain["title"],
        words=plain["words"],
        spatial=tuple(plain["spatial"]),
        output=(sample, channel, position),
        value=entries("value"),
        gradient=entries("gradient"),
    )


GAP = "   "
MARK_LEGEND = (
    "# all positions  + some  . none; the output is at @ (as #) or O (not all)"
)


def panels_text(panels: Sequence[Panel], width: int) -> str:
    """Return the panels as grids, several side by side if `width` has room.

    The rows of a grid are samples, its columns are channels.
    """
    rows: list[list[list[str]]] = []
    used = width  # so that the first grid begins a row
    for grid in map(_grid, panels):
        used += len(GAP) + len(grid[0])
        if used > width:
            rows.append([])
            used = len(grid[0])
        rows[-1].append(grid)
    lines: list[str] = []
    for row in rows:
        lines += [GAP.join(parts).rstrip() for parts in zip_longest(*row, fillvalue="")]
        lines.append("")
    return "\n".join([*lines, MARK_LEGEND])


def _grid(panel: Panel) -> list[str]:
    """Return the lines of one grid, all of the same length."""
    depends = panel.value | panel.gradient
    samples, channels = depends.shape[:2]
    marks = np.where(depends.all(2), "#", np.where(depends.any(2), "+", "."))
    output = panel.output[:2]
    marks[output] = "@" if depends[output].all() else "O"
    header = "N\\C " + " ".join(str(c % 10) for c in range(channels))
    body = [f"{n:>3} " + " ".join(marks[n]) for n in range(samples)]
    size = max(len(panel.title), len(header))
    return [line.ljust(size) for line in (panel.title, header, *body)]
