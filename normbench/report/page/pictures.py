"""The pictures of style runs: content, and what each norm made of it.

A run of the task `style` leaves one picture: content crops and styles above, outputs
below. Runs whose upper half is the same redrew the same content.
"""

import base64
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from normbench.config.schema import NOT_HASHED, RunConfig, RunRecord
from normbench.errors import Damaged, Unreadable
from normbench.records import query
from normbench.report.page.material import Material
from normbench.system import untrusted

PICTURE = "stylised.png"
MOST = 40
"""Pictures in a page, about 15 KiB each."""
QUALITY = 90
"""Of WebP, in which they travel; the PNG in the run's folder is exact."""
LONGEST = 16_383
"""Pixels of a side of a WebP picture at most."""


@dataclass(frozen=True)
class Output:
    """What one run made of the content: a strip of pictures, as a data URI."""

    run_id: str
    norm: str
    label: str
    picture: str


@dataclass(frozen=True)
class Content:
    """The same content and styles, and every output for it.

    `what` tells it from the other contents of a gallery, if there are any.
    """

    what: str
    picture: str
    size: tuple[int, int]
    styles: int
    crops: int
    outputs: list[Output]


@dataclass(frozen=True)
class Gallery:
    """All contents; `left_out` pictures are in the runs' folders alone."""

    contents: list[Content]
    left_out: int
    unreadable: list[str]


def gallery(material: Material) -> Gallery:
    """The pictures of the finished style runs, at most MOST of them.

    Of runs that differ in their seed alone, the first; where there are too many, every
    norm has as many as the others. Contents with more outputs come first.
    """
    runs = [
        each
        for each in material.records
        if each.run_id in material.folders
        and (material.folders[each.run_id] / PICTURE).is_file()
    ]
    strips: dict[bytes, list[Strip]] = {}
    unreadable = []
    chosen = _in_turn(_first_seeds(runs))[:MOST]
    for each in sorted(chosen, key=_norm_first):
        try:
            strip = _strip(each, material.folders[each.run_id] / PICTURE)
        except (OSError, Unreadable):
            unreadable.append(each.run_id)
        else:
            strips.setdefault(strip.above.tobytes(), []).append(strip)
    groups = sorted(strips.values(), key=lambda same: -len(same))
    contents = [
        _content(same, what) for same, what in zip(groups, _apart(groups), strict=True)
    ]
    return Gallery(contents, len(runs) - len(chosen), unreadable)


@dataclass(frozen=True)
class Strip:
    """A run's picture: content and styles above, outputs below."""

    run: RunRecord
    above: Image.Image
    below: Image.Image
    styles: int
    crops: int


def _apart(groups: Sequence[Sequence[Strip]]) -> list[str]:
    """What tells each content from the others: keys that all its runs agree in."""
    flat = [[_asked_for(strip.run.config) for strip in same] for same in groups]

    def agreed(runs: Sequence[Mapping[str, Any]], key: str) -> bool:
        return all(run.get(key) == runs[0].get(key) for run in runs)

    everything = [run for runs in flat for run in runs]
    keys = [
        key
        for key in dict.fromkeys(key for run in everything for key in run)
        if all(agreed(runs, key) for runs in flat) and not agreed(everything, key)
    ]
    return [
        ", ".join(f"{key} {runs[0][key]}" for key in keys if key in runs[0])
        for runs in flat
    ]


def _content(strips: Sequence[Strip], what: str) -> Content:
    first = strips[0]
    side, styles, crops = first.above.height, first.styles, first.crops
    labels = _labels([strip.run for strip in strips])
    outputs = [
        Output(
            strip.run.run_id,
            _norm(strip.run),
            label,
            _uri(strip.below.crop((0, 0, crops * side, side))),
        )
        for strip, label in zip(strips, labels, strict=True)
    ]
    return Content(what, _uri(first.above), first.above.size, styles, crops, outputs)


def _first_seeds(runs: Iterable[RunRecord]) -> list[RunRecord]:
    first: dict[str, RunRecord] = {}
    for each in sorted(runs, key=lambda run: (run.config.seed, run.run_id)):
        same = each.config.model_copy(update={"seed": 0}).model_dump_json()
        first.setdefault(same, each)
    return list(first.values())


def _in_turn(runs: Iterable[RunRecord]) -> list[RunRecord]:
    """The first of every norm, then the second of every norm, and so on."""
    seen: Counter[str] = Counter()
    ranked = []
    for each in sorted(runs, key=_norm_first):
        ranked.append((seen[_norm(each)], *_norm_first(each), each))
        seen[_norm(each)] += 1
    return [each for *_, each in sorted(ranked, key=lambda ranks: ranks[:3])]


def _labels(runs: Sequence[RunRecord]) -> list[str]:
    """Of each run its norm, and the keys in which runs of that norm differ."""
    flat = [_asked_for(each.config) for each in runs]
    labels = []
    for each, own in zip(runs, flat, strict=True):
        same_norm = [
            other
            for run, other in zip(runs, flat, strict=True)
            if _norm(run) == _norm(each)
        ]
        told = [
            f"{key} {value}"
            for key, value in own.items()
            if any(other.get(key) != value for other in same_norm)
        ]
        labels.append(", ".join([_norm(each), *told]))
    return labels


def _norm(each: RunRecord) -> str:
    return str(each.config.norm.name)


def _norm_first(each: RunRecord) -> tuple[str, str]:
    return _norm(each), each.run_id


def _asked_for(config: RunConfig) -> dict[str, Any]:
    """What decides a run's numbers."""
    return {
        key: value
        for key, value in query.flat(config).items()
        if key.partition(".")[0] not in NOT_HASHED
    }


def _strip(run: RunRecord, file: Path) -> Strip:
    """Raises as `reading.picture` does, and Damaged where it is no such picture."""
    whole = untrusted.picture(file)
    middle = whole.height // 2
    styles = run.config.data.options.get("styles", [])
    if max(whole.size) > LONGEST:
        raise Damaged(file, f"a side of it is longer than {LONGEST:,} pixels")
    if not isinstance(styles, list):
        raise Damaged(file, f"data.styles={styles!r} of its run is no list")
    crops = whole.width // middle - len(styles) if middle else 0
    if crops < 1:
        raise Damaged(file, "it has no content beside the styles of its run")
    whole = whole.convert("RGB")
    above = whole.crop((0, 0, whole.width, middle))
    below = whole.crop((0, middle, whole.width, 2 * middle))
    return Strip(run, above, below, len(styles), crops)


def _uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
