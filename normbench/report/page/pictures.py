"""The style gallery of a page: the outputs of style runs for the same content.

A style run writes one picture file, whose tiles are squares. Its upper half has the
content crops, then the styles. Its lower half has the output below each crop, and blank
tiles below the styles. Runs with equal upper halves belong together.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from PIL import Image

from normbench.config.schema import RunConfig, RunRecord, is_hashed
from normbench.errors import Damaged, Unreadable
from normbench.records import query
from normbench.report.page.material import Material
from normbench.system import untrusted

PICTURE = "stylised.png"
MAX_PICTURES = 40
"""Limit for a page; a picture has about 15 KiB."""
QUALITY = 90
"""Quality of the WebP pictures in a page; the PNG in a run's folder is exact."""
MAX_WEBP_SIDE = 16_383
"""The most pixels that WebP allows per side."""


@dataclass(frozen=True)
class Output:
    """The output of one run: a strip of pictures as a data URI."""

    run_id: str
    norm: str
    label: str
    picture: str


@dataclass(frozen=True)
class Content:
    """Content crops and styles, and the outputs of all runs for them.

    `difference` lists the options that distinguish the runs of this Content from the
    runs of the other ones in the gallery; it is "" if there are none.
    """

    difference: str
    picture: str
    size: tuple[int, int]
    styles: int
    crops: int
    outputs: list[Output]


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
    return Gallery(
        contents=[
            _content(same, difference)
            for same, difference in zip(contents, differences, strict=True)
        ],
        left_out=len(runs) - len(chosen),
        unreadable=unreadable,
    )


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
    inputs, styles, crops = strips[0].inputs, strips[0].styles, strips[0].crops
    tile = inputs.height
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
        picture = _uri(strip.outputs.crop((0, 0, crops * tile, tile)))
        label = ", ".join([norm, *differing])
        outputs.append(Output(strip.run.run_id, norm, label, picture))
    return Content(difference, _uri(inputs), inputs.size, styles, crops, outputs)


def _first_seeds(runs: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the run with the lowest seed of runs that differ only in the seed."""
    first: dict[str, RunRecord] = {}
    for run in sorted(runs, key=lambda run: (run.config.seed, run.run_id)):
        without_seed = run.config.model_copy(update={"seed": 0}).model_dump_json()
        first.setdefault(without_seed, run)
    return list(first.values())


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
    styles = run.config.data.options.get("styles", [])
    if max(picture.size) > MAX_WEBP_SIDE:
        raise Damaged(file, f"a side has more than {MAX_WEBP_SIDE:,} pixels")
    if not isinstance(styles, list):
        raise Damaged(file, f"data.styles={styles!r} of the run is not a list")
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
