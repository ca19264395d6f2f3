"""The pictures of style runs: content, and what each norm made of it.

A run of the task `style` leaves one picture: content crops and styles above, outputs
below. Runs whose upper half is the same redrew the same content.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
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


@dataclass(frozen=True)
class _Strip:
    """A run's picture: content and styles above, outputs below."""

    run: RunRecord
    above: Image.Image
    below: Image.Image
    styles: int
    crops: int


def gallery(material: Material) -> Gallery:
    """The pictures of the finished style runs, at most MOST of them.

    Of runs that differ only in the seed, the first; if there are too many, all norms
    get equal shares. Contents with more outputs come first.
    """
    files = {
        run_id: folder / PICTURE
        for run_id, folder in material.folders.items()
        if (folder / PICTURE).is_file()
    }
    runs = [record for record in material.records if record.run_id in files]
    strips: dict[bytes, list[_Strip]] = {}
    unreadable = []
    chosen = _in_turn(_first_seeds(runs))[:MOST]
    for run in sorted(chosen, key=_norm_first):
        try:
            strip = _strip(run, files[run.run_id])
        except (OSError, Unreadable):
            unreadable.append(run.run_id)
        else:
            strips.setdefault(strip.above.tobytes(), []).append(strip)
    contents = sorted(strips.values(), key=lambda same: -len(same))
    names = _names(
        [[_options(strip.run.config) for strip in same] for same in contents]
    )
    return Gallery(
        [_content(same, name) for same, name in zip(contents, names, strict=True)],
        len(runs) - len(chosen),
        unreadable,
    )


def _names(contents: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """For each content the options in which its runs agree and others differ."""

    def agree(runs: Sequence[Mapping[str, Any]], key: str) -> bool:
        return all(run.get(key) == runs[0].get(key) for run in runs)

    everything = [run for runs in contents for run in runs]
    keys = [
        key
        for key in dict.fromkeys(key for run in everything for key in run)
        if all(agree(runs, key) for runs in contents) and not agree(everything, key)
    ]
    return [
        ", ".join(f"{key} {runs[0][key]}" for key in keys if key in runs[0])
        for runs in contents
    ]


def _content(strips: Sequence[_Strip], what: str) -> Content:
    first = strips[0]
    side, styles, crops = first.above.height, first.styles, first.crops
    options = [_options(strip.run.config) for strip in strips]
    outputs = []
    for strip, chosen in zip(strips, options, strict=True):
        norm = chosen["norm"]
        same_norm = [other for other in options if other["norm"] == norm]
        differing = [
            f"{key} {value}"
            for key, value in chosen.items()
            if any(other.get(key) != value for other in same_norm)
        ]
        picture = _uri(strip.below.crop((0, 0, crops * side, side)))
        label = ", ".join([norm, *differing])
        outputs.append(Output(strip.run.run_id, norm, label, picture))
    return Content(what, _uri(first.above), first.above.size, styles, crops, outputs)


def _first_seeds(runs: Iterable[RunRecord]) -> list[RunRecord]:
    first: dict[str, RunRecord] = {}
    for run in sorted(runs, key=lambda run: (run.config.seed, run.run_id)):
        same = run.config.model_copy(update={"seed": 0}).model_dump_json()
        first.setdefault(same, run)
    return list(first.values())


def _in_turn(runs: Iterable[RunRecord]) -> list[RunRecord]:
    """The first of every norm, then the second of every norm, and so on."""
    by_norm: dict[str, list[RunRecord]] = {}
    for run in sorted(runs, key=_norm_first):
        by_norm.setdefault(run.config.norm.name, []).append(run)
    rounds = zip_longest(*by_norm.values())
    return [run for some in rounds for run in some if run is not None]


def _norm_first(run: RunRecord) -> tuple[str, str]:
    return run.config.norm.name, run.run_id


def _options(config: RunConfig) -> dict[str, Any]:
    """The keys that decide a run's numbers."""
    flat = query.flat(config).items()
    return {key: value for key, value in flat if key.split(".")[0] not in NOT_HASHED}


def _strip(run: RunRecord, file: Path) -> _Strip:
    """Raises as `untrusted.picture`, and Damaged if it is not a style run's picture."""
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
    return _Strip(run, above, below, len(styles), crops)


def _uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
