"""The style gallery of a page: the outputs of style runs for the same content.

A style run writes one picture file, whose tiles are squares. Its upper half has the
held-out photographs, then the styles. Its lower half has the output below each
photograph, and blank tiles below the styles. Runs with equal upper halves belong
together. The gallery shows a few photographs. Each is a row with the photograph, its
style, and the output of each run.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from PIL import Image

from normbench.config.schema import RunConfig, RunRecord, is_hashed
from normbench.errors import Damaged, Unreadable
from normbench.records import query
from normbench.report.page.columns import evenly_spaced
from normbench.report.page.material import Material
from normbench.system import untrusted

PICTURE = "stylised.png"
MAX_PICTURES = 40
"""Limit of runs in a page."""
MAX_CHARACTERS = 3 * 2**19
"""Limit for the pictures of a page, as text; one with 256 pixels needs about 20 KiB."""
MAX_ROWS = 3
"""Photographs in the gallery, for each group of runs."""
MAX_SIDE = 256
"""Larger pictures are made smaller."""
QUALITY = 80
"""Quality of the WebP pictures in a page; the PNG in a run's folder is exact."""
MAX_WEBP_SIDE = 16_383
"""The most pixels that WebP allows per side."""


@dataclass(frozen=True)
class Output:
    """A column of the gallery: runs of one norm that differ at most in the seed."""

    run_id: str
    norm: str
    label: str


@dataclass(frozen=True)
class Row:
    """A photograph, its style and the output of each column, as data URIs."""

    content: str
    style: str
    outputs: list[str]


@dataclass(frozen=True)
class Content:
    """Content crops and styles, and the outputs of all runs for them.

    `difference` lists the options that distinguish the runs of this Content from the
    runs of the other ones in the gallery; it is "" if there are none. `side` is the
    side of the recorded pictures in pixels.
    """

    difference: str
    side: int
    outputs: list[Output]
    rows: list[Row]


@dataclass(frozen=True)
class Gallery:
    """All contents; `left_out` counts the pictures that the page leaves out.

    `unreadable` are the run ids of pictures that could not be read.
    """

    contents: list[Content]
    left_out: int
    unreadable: list[str]


@dataclass(frozen=True)
class _Strip:
    """The picture of a run, with the numbers of its `styles` and `crops`."""

    run: RunRecord
    inputs: Image.Image
    outputs: Image.Image
    styles: int
    crops: int


def gallery(material: Material) -> Gallery:
    """Return the pictures of the finished style runs, at most MAX_PICTURES.

    Of runs that differ only in the seed, the first counts. If there are too many, all
    norms get equal shares. Contents with more outputs come first.
    """
    files = {
        run_id: folder / PICTURE
        for run_id, folder in material.folders.items()
        if (folder / PICTURE).is_file()
    }
    runs = [record for record in material.records if record.run_id in files]
    strips: dict[bytes, list[_Strip]] = {}
    unreadable = []
    chosen = _round_robin(_first_seeds(runs))[:MAX_PICTURES]
    for run in sorted(chosen, key=_norm_and_id):
        try:
            strip = _strip(run, files[run.run_id])
        except (OSError, Unreadable):
            unreadable.append(run.run_id)
        else:
            strips.setdefault(strip.inputs.tobytes(), []).append(strip)
    contents = sorted(strips.values(), key=len, reverse=True)
    differences = _differences(
        [[_options(strip.run.config) for strip in same] for same in contents]
    )
    made, left_out, room = [], len(runs) - len(chosen), MAX_CHARACTERS
    for content in _joined(list(map(_content, contents, differences))):
        rows = content.rows
        while rows and (size := _characters(rows)) > room:
            rows = rows[:-1]
        if rows:
            made.append(replace(content, rows=rows))
            room -= size
        else:
            left_out += len(content.outputs)
    return Gallery(contents=made, left_out=left_out, unreadable=unreadable)


def _characters(rows: Sequence[Row]) -> int:
    return sum(
        len(uri) for row in rows for uri in (row.content, row.style, *row.outputs)
    )


def _joined(contents: Iterable[Content]) -> list[Content]:
    """Join contents whose runs differ only in the seed, and so in the photograph.

    A joined content has the first row of each content, then the second, and so on, at
    most MAX_ROWS.
    """
    same: dict[tuple[Any, ...], list[Content]] = {}
    for content in contents:
        labels = tuple(output.label for output in content.outputs)
        key = (content.difference, content.side, labels)
        same.setdefault(key, []).append(content)
    joined = []
    for group in same.values():
        rounds = zip_longest(*(content.rows for content in group))
        rows = [row for each_round in rounds for row in each_round if row is not None]
        joined.append(replace(group[0], rows=rows[:MAX_ROWS]))
    return joined


def _differences(contents: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return for each content the options that distinguish it from the others.

    `contents[i]` has the options of each run of content i. An option counts if it is
    equal in all runs of each content, but not equal in all contents.
    """

    def equal(runs: Sequence[Mapping[str, Any]], key: str) -> bool:
        return all(run.get(key) == runs[0].get(key) for run in runs)

    all_runs = [run for runs in contents for run in runs]
    keys = [
        key
        for key in dict.fromkeys(key for run in all_runs for key in run)
        if all(equal(runs, key) for runs in contents) and not equal(all_runs, key)
    ]
    return [
        ", ".join(f"{key} {runs[0][key]}" for key in keys if key in runs[0])
        for runs in contents
    ]


def _content(strips: Sequence[_Strip], difference: str) -> Content:
    """Make a content from strips with equal inputs.

    The label of an output is its norm, with the options in which it differs from other
    outputs of the same norm.
    """
    first = strips[0]
    side = first.inputs.height
    all_options = [_options(strip.run.config) for strip in strips]
    outputs = []
    for strip, options in zip(strips, all_options, strict=True):
        norm = options["norm"]
        same_norm = [other for other in all_options if other["norm"] == norm]
        differing = [
            f"{key} {value}"
            for key, value in options.items()
            if any(other.get(key) != value for other in same_norm)
        ]
        label = ", ".join([norm, *differing])
        outputs.append(Output(strip.run.run_id, norm, label))
    rows = []
    for crop in evenly_spaced(first.crops, MAX_ROWS):
        rows.append(
            Row(
                content=_uri(_tile(first.inputs, crop)),
                style=_uri(_tile(first.inputs, first.crops + crop % first.styles)),
                outputs=[_uri(_tile(strip.outputs, crop)) for strip in strips],
            )
        )
    return Content(difference, side, outputs, rows)


def _tile(strip: Image.Image, number: int) -> Image.Image:
    """Return square `number` of a strip, with a side of at most MAX_SIDE pixels."""
    side = strip.height
    tile = strip.crop((number * side, 0, (number + 1) * side, side))
    return tile if side <= MAX_SIDE else tile.resize((MAX_SIDE, MAX_SIDE))


def _first_seeds(runs: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the run with the lowest seed of runs that differ only in the seed.

    If the seed also chooses the held-out photograph, the first MAX_ROWS runs count.
    """
    first: dict[str, list[RunRecord]] = {}
    for run in sorted(runs, key=lambda run: (run.config.seed, run.run_id)):
        without_seed = run.config.model_copy(update={"seed": 0}).model_dump_json()
        first.setdefault(without_seed, []).append(run)
    return [
        run
        for same in first.values()
        for run in same[: MAX_ROWS if _held_out_by_seed(same[0]) else 1]
    ]


def _held_out_by_seed(run: RunRecord) -> bool:
    return run.config.data.options.get("held_out") == "by_seed"


def _round_robin(runs: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the first run of every norm, then the second of every norm, and so on."""
    by_norm: dict[str, list[RunRecord]] = {}
    for run in sorted(runs, key=_norm_and_id):
        by_norm.setdefault(run.config.norm.name, []).append(run)
    rounds = zip_longest(*by_norm.values())
    return [run for each_round in rounds for run in each_round if run is not None]


def _norm_and_id(run: RunRecord) -> tuple[str, str]:
    return run.config.norm.name, run.run_id


def _options(config: RunConfig) -> dict[str, Any]:
    """Return the config keys that can change the numbers of a run."""
    flat = query.flat(config).items()
    return {key: value for key, value in flat if is_hashed(key)}


def _strip(run: RunRecord, file: Path) -> _Strip:
    """Read the picture of a run.

    Raises what `untrusted.picture` raises, and Damaged if the file is not the picture
    of a style run.
    """
    picture = untrusted.picture(file)
    middle = picture.height // 2  # also the width of a tile
    options = run.config.data.options
    styles = options.get("styles") or options.get("style_paths") or ["the only style"]
    if max(picture.size) > MAX_WEBP_SIDE:
        raise Damaged(file, f"a side has more than {MAX_WEBP_SIDE:,} pixels")
    if not isinstance(styles, list):
        raise Damaged(file, f"the styles {styles!r} of the run are not a list")
    crops = picture.width // middle - len(styles) if middle else 0
    if crops < 1:
        raise Damaged(file, "the picture has no content, only the styles of the run")
    picture = picture.convert("RGB")
    inputs = picture.crop((0, 0, picture.width, middle))
    outputs = picture.crop((0, middle, picture.width, 2 * middle))
    return _Strip(run, inputs, outputs, len(styles), crops)


def _uri(picture: Image.Image) -> str:
    """Return a picture as a data URI in WebP."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
