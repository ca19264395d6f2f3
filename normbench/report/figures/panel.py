"""One output entry of a norm and what it depends on, for a drawing or as text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]

MOST_POSITIONS = 9
MEASURED = Path(__file__).with_name("footprints.json")
"""What `normbench footprint NORM... --output` wrote; a test measures it again."""


@dataclass(frozen=True)
class Panel:
    """One output entry of a norm, and what it depends on."""

    title: str
    words: str
    spatial: tuple[int, ...]
    output: tuple[int, int, int]
    """Sample, channel, position; drawn best in the first sample and position."""
    value: Bools
    """(N, C, P): the inputs that its value depends on."""
    gradient: Bools
    """(N, C, P): the inputs that its gradient sees."""

    @property
    def count(self) -> int:
        """How many inputs it depends on, by value or gradient."""
        return int((self.value | self.gradient).sum())

    def kinds(self) -> NDArray[np.str_]:
        """(N, C, P): the key of COLOURS for each entry."""
        kinds = np.full(self.value.shape, "none", dtype="<U8")
        kinds[self.value & self.gradient] = "both"
        kinds[self.value & ~self.gradient] = "value"
        kinds[~self.value & self.gradient] = "gradient"
        kinds[self.output] = "output"
        return kinds

    def drawn_positions(self) -> range:
        """All positions, or of many only the output's row of the image."""
        positions = self.value.shape[2]
        if positions <= MOST_POSITIONS or not self.spatial:
            return range(positions)
        width = self.spatial[-1]
        start = self.output[2] // width * width
        return range(start, start + width)

    def plain(self) -> dict[str, Any]:
        """As JSON has it: a bit an entry, in hexadecimal."""
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
    """The panels that `normbench footprint --output` wrote to `footprint.json`."""
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
MARKS = "# all positions  + some  . none; the output is at @ (all) or O (some)"


def text(panels: Sequence[Panel], width: int) -> str:
    """The panels as grids of samples (rows) and channels (columns), side by side."""
    rows: list[list[list[str]]] = []
    used = width
    for block in map(_grid, panels):
        used += len(GAP) + len(block[0])
        if used > width:
            rows.append([])
            used = len(block[0])
        rows[-1].append(block)
    lines: list[str] = []
    for row in rows:
        lines += [GAP.join(parts).rstrip() for parts in zip_longest(*row, fillvalue="")]
        lines.append("")
    return "\n".join([*lines, MARKS])


def _grid(panel: Panel) -> list[str]:
    """Lines of one length."""
    either = panel.value | panel.gradient
    samples, channels = either.shape[:2]
    marks = np.where(either.all(2), "#", np.where(either.any(2), "+", "."))
    marks[panel.output[:2]] = "@" if either[panel.output[:2]].all() else "O"
    header = "N\\C " + " ".join(str(c % 10) for c in range(channels))
    body = [f"{n:>3} " + " ".join(marks[n]) for n in range(samples)]
    size = max(len(panel.title), len(header))
    return [line.ljust(size) for line in (panel.title, header, *body)]
