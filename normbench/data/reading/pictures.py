"""Decode a picture in one of the user's files: upright, in RGB, and not too large."""

import logging
import math
import re
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from normbench.data.reading.files import shortened, shown
from normbench.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats that are decoded, whatever the suffix of a file is.

Other formats are refused: for EPS, Pillow would start a program of the system.
"""

BITS_PER_SAMPLE = 258
"""A tag of TIFF files."""

_PILLOW = re.compile("PIL")

log = logging.getLogger(__name__)


class UnreadablePicture(RequestError):
    """The file at `path` is not a picture that can be decoded, because of `why`."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(path, why)
        self.path, self.why = path, why

    def __str__(self) -> str:
        return f"{shown(self.path)} {self.why}"


@cache
def decoders() -> tuple[str, ...]:
    """Return those of FORMATS that this Pillow decodes: AVIF came with 11.3."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def opened(path: Path) -> "Image":
    """Decode the picture in `path` as "RGB", or "RGBA" if some of it is transparent.

    The picture is turned as its EXIF orientation says. Of several frames the first is
    used, and of 12 and 16 bits the upper eight. Safe to call in several threads. Raises
    UnreadablePicture, also for more pixels than Pillow considers safe, before decoding
    them, and for values whose white is unknown.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    # For the whole process: `warnings.catch_warnings` is not safe in threads.
    if ("ignore", None, Warning, _PILLOW, 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PILLOW.pattern)
    try:
        with Image.open(path, formats=decoders()) as file:
            if file.width * file.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise Image.DecompressionBombError
            file.load()
            bits = _bits(file)
            picture = ImageOps.exif_transpose(file)
    except Image.DecompressionBombError:
        why = f"has more than {Image.MAX_IMAGE_PIXELS} pixels, which is not safe; "
        raise UnreadablePicture(path, f"{why}make it smaller") from None
    except UnidentifiedImageError:
        why = f"cannot be decoded: it is none of {', '.join(decoders())}"
        raise UnreadablePicture(path, why) from None
    except Exception as error:  # Pillow raises many types for damaged files
        why = shown(" ".join(str(error).split()))
        raise UnreadablePicture(path, f"cannot be decoded: {why}") from None
    if bits is None:
        raise UnreadablePicture(
            path,
            "has signed values, or values of 32 bits, of which the white one is "
            "unknown; save it with 8 or 16 bits",
        )
    if bits > 8:
        grey = np.asarray(picture) >> bits - 8
        picture = Image.fromarray(grey.astype(np.uint8))
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def _bits(picture: "Image") -> int | None:
    """Return the bits of a grey value as decoded, None if white is unknown."""
    if picture.mode.startswith("I;16"):
        tags = getattr(picture, "tag_v2", {})
        return 12 if tags.get(BITS_PER_SAMPLE) == (12,) else 16
    if picture.mode == "I" and picture.format in {"PNG", "PPM"}:
        return 16  # Pillow scales a PGM with another white to 16 bits
    return None if picture.mode in {"I", "F"} else 8


def on_white(picture: "Image") -> "Image":
    """Return `picture` as "RGB", with white behind its transparent parts."""
    if picture.mode != "RGBA":
        return picture
    from PIL import Image

    ground = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(ground, picture).convert("RGB")


def scaled(path: Path, shorter_side: int) -> "Image":
    """Decode the picture in `path`, on white, and scale its shorter side to this.

    Raises UnreadablePicture, also for a picture so narrow that it would be too large.
    """
    from PIL import Image

    picture = on_white(opened(path))
    width, height = picture.size
    scale = shorter_side / min(width, height)
    size = (
        max(shorter_side, round(width * scale)),
        max(shorter_side, round(height * scale)),
    )
    if size[0] * size[1] > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise UnreadablePicture(
            path,
            f"is too narrow: its {width}x{height} pixels would become "
            f"{size[0]}x{size[1]}",
        )
    # Lanczos widens its window when it shrinks a picture, which avoids aliasing.
    return picture.resize(size, Image.Resampling.LANCZOS)


def pixels(picture: "Image") -> Tensor:
    """Return an "RGB" picture as (3, H, W) uint8."""
    return torch.from_numpy(np.asarray(picture).transpose(2, 0, 1).copy())


def centre_square(path: Path, side: int) -> Tensor:
    """Return the centre of the picture in `path`, scaled to (3, side, side) uint8.

    Raises UnreadablePicture.
    """
    picture = scaled(path, side)
    left, top = ((length - side) // 2 for length in picture.size)
    return pixels(picture.crop((left, top, left + side, top + side)))


def random_crop(picture: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Return a square (3, side, side) at a random position of `picture` (3, H, W)."""
    top, left = (
        int(torch.randint(length - side + 1, (), generator=generator))
        for length in picture.shape[1:]
    )
    return picture[:, top : top + side, left : left + side]


def require_fit(crop: int, shorter_side: int) -> None:
    """Raise RequestError if a crop is larger than the picture that it is cut from."""
    if crop > shorter_side:
        raise RequestError(
            f"data.crop={crop} does not fit into data.shorter_side={shorter_side}"
        )


def skip(broken: Sequence[str], among: str, *, strict: bool) -> None:
    """Log which pictures `among` others are skipped: the path of each and the reason.

    Raises RequestError if `strict`.
    """
    if not broken:
        return
    message = f"{len(broken)} of {among} cannot be read: {shortened(broken, 3)}"
    if strict:
        raise RequestError(f"data.strict=true, and {message}")
    log.warning("skipped: %s", message)
