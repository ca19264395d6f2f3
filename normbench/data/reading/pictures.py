"""One picture in a file of the user's: read, turned upright, of a bounded size."""

import logging
import math
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
"""Pillow's names of what is decoded, whatever a file is called. Others are not: of EPS,
Pillow would start a program of the system.
"""

BITS_PER_SAMPLE = 258
"""The tag of a TIFF."""

log = logging.getLogger(__name__)


class Unreadable(RequestError):
    """The file is no picture that can be read; the message says why."""


@cache
def decoders() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow has: AVIF came with 11.3."""
    from PIL import Image

    Image.init()
    return tuple(each for each in FORMATS if each in Image.OPEN)


def opened(path: Path) -> "Image":
    """The picture in `path`: "RGB", or "RGBA" where some of it is transparent.

    Upright, as its EXIF orientation says; the first of several; of 12 and 16 bits, the
    upper eight. Raises Unreadable, for more pixels than Pillow takes for safe too,
    before they are decoded, and for values of which nobody can say which is white.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = shown(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            # Pillow warns of what may be a bomb, and refuses twice that.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=decoders()) as file:
                file.load()
                bits = _bits(file)
                picture = ImageOps.exif_transpose(file)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise Unreadable(
            f"{name} has more pixels than the {Image.MAX_IMAGE_PIXELS} that are taken "
            "for safe; make it smaller"
        ) from None
    except UnidentifiedImageError:
        raise Unreadable(
            f"{name} is no picture that can be read: its content is none of "
            f"{', '.join(decoders())}"
        ) from None
    except Exception as error:  # Pillow's decoders raise whatever a damaged file hits
        told = shown(" ".join(str(error).split()))
        raise Unreadable(f"{name} is no picture that can be read: {told}") from None
    if bits is None:
        raise Unreadable(
            f"{name} has values that are signed, or of 32 bits: which of them is white "
            "is not known; save it with 8 or 16 bits"
        )
    if bits > 8:
        grey = np.asarray(picture) >> bits - 8
        picture = Image.fromarray(grey.astype(np.uint8))
    transparent = picture.has_transparency_data
    return picture.convert("RGBA" if transparent else "RGB")


def _bits(picture: "Image") -> int | None:
    """Of a grey value, as Pillow has decoded it; None where white may be any number."""
    if picture.mode.startswith("I;16"):
        tags = getattr(picture, "tag_v2", {})
        return 12 if tags.get(BITS_PER_SAMPLE) == (12,) else 16
    if picture.mode == "I" and picture.format in {"PNG", "PPM"}:
        return 16  # of a PGM whose white is another number, Pillow has made this
    return None if picture.mode in {"I", "F"} else 8


def on_white(picture: "Image") -> "Image":
    """ "RGB", with white behind what is transparent."""
    if picture.mode != "RGBA":
        return picture
    from PIL import Image

    ground = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(ground, picture).convert("RGB")


def scaled(path: Path, shorter_side: int) -> "Image":
    """The picture in `path`, on white, with a shorter side of so many pixels.

    Raises Unreadable, for a picture so narrow that it becomes too large, too.
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
        raise Unreadable(
            f"{shown(path)} is too narrow: its {width}x{height} pixels would become "
            f"{size[0]}x{size[1]}"
        )
    # Lanczos widens its window when it shrinks: no aliasing.
    return picture.resize(size, Image.Resampling.LANCZOS)


def pixels(picture: "Image") -> Tensor:
    """An "RGB" picture as (3, H, W) uint8."""
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    width, height = picture.size
    return flat.view(height, width, 3).permute(2, 0, 1).contiguous()


def centre_square(path: Path, side: int) -> Tensor:
    """The centre of the picture in `path`, scaled to (3, side, side) uint8.

    Raises Unreadable.
    """
    picture = scaled(path, side)
    left, top = ((length - side) // 2 for length in picture.size)
    return pixels(picture.crop((left, top, left + side, top + side)))


def random_crop(picture: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A square (3, side, side) from anywhere in `picture` (3, H, W)."""
    top, left = (
        int(torch.randint(length - side + 1, (), generator=generator))
        for length in picture.shape[1:]
    )
    return picture[:, top : top + side, left : left + side]


def require_fit(crop: int, shorter_side: int) -> None:
    """Raise RequestError where a crop is larger than what it is cut from."""
    if crop > shorter_side:
        raise RequestError(
            f"data.crop={crop} does not fit into data.shorter_side={shorter_side}"
        )


def skip(broken: Sequence[str], among: str, *, strict: bool) -> None:
    """Say which pictures `among` others are left out: a path and a reason of each.

    Raises RequestError where `strict` says that none may be.
    """
    if not broken:
        return
    told = f"{len(broken)} of {among} cannot be read: {shortened(broken, 3)}"
    if strict:
        raise RequestError(f"data.strict=true, and {told}")
    log.warning("skipped: %s", told)
