"""Decode pictures from the user's files, and cut squares from them."""

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
"""Pillow's names of the formats that are decoded, whatever suffix a file has.

Other formats are refused: for EPS, Pillow would start another program.
"""

BITS_PER_SAMPLE = 258
"""The number of a TIFF tag."""

_PILLOW = re.compile("PIL")

log = logging.getLogger(__name__)


class UnreadablePicture(RequestError):
    """The picture in `path` cannot be decoded for the reason `why`."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(path, why)
        self.path, self.why = path, why

    def __str__(self) -> str:
        return f"{shown(self.path)} {self.why}"


@cache
def decoders() -> tuple[str, ...]:
    """Return the FORMATS that the installed Pillow decodes (AVIF since 11.3)."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def read_picture(path: Path) -> "Image":
    """Decode the picture in `path` as "RGB", or "RGBA" if some of it is transparent.

    The picture is rotated as its EXIF orientation says. Of an animation, the first
    frame is used. Values of 12 and 16 bits are reduced to their upper eight bits. The
    function may be called in several threads. Raises UnreadablePicture if the picture
    cannot be decoded, has more pixels than Pillow considers safe, or has signed or
    32-bit values.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    # Ignore the warnings of Pillow in the whole process, because `catch_warnings` is
    # not thread-safe. Add the filter only once.
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
        why = f"has more than {Image.MAX_IMAGE_PIXELS} pixels, which is not safe"
        raise UnreadablePicture(path, f"{why}; make it smaller") from None
    except UnidentifiedImageError:
        why = f"cannot be decoded: its format is none of {', '.join(decoders())}"
        raise UnreadablePicture(path, why) from None
    except Exception as error:  # Pillow raises many types for damaged files
        why = shown(" ".join(str(error).split()))
        raise UnreadablePicture(path, f"cannot be decoded: {why}") from None
    if bits is None:
        raise UnreadablePicture(
            path,
            "has signed or 32-bit values, and it is unknown which value is white; save "
            "it with 8 or 16 bits",
        )
    if bits > 8:
        grey = np.asarray(picture) >> bits - 8
        picture = Image.fromarray(grey.astype(np.uint8))
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def _bits(picture: "Image") -> int | None:
    """Return the bits of a grey value, or None if the value of white is unknown."""
    if picture.mode.startswith("I;16"):
        tags = getattr(picture, "tag_v2", {})
        return 12 if tags.get(BITS_PER_SAMPLE) == (12,) else 16
    if picture.mode == "I" and picture.format in {"PNG", "PPM"}:
        return 16  # Pillow scales every PGM of more than 8 bits to 16 bits
    return None if picture.mode in {"I", "F"} else 8


def on_white(picture: "Image") -> "Image":
    """Return `picture` as "RGB", with white behind its transparent parts."""
    if picture.mode != "RGBA":
        return picture
    from PIL import Image

    background = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(background, picture).convert("RGB")


def read_scaled(path: Path, shorter_side: int) -> "Image":
    """Decode the picture in `path`, on white, and scale it to this shorter side.

    Raises UnreadablePicture, also if the longer side would become too long.
    """
    from PIL import Image

    picture = on_white(read_picture(path))
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
            f"{size[0]}x{size[1]} pixels",
        )
    # Lanczos widens its window when it shrinks a picture, which avoids aliasing.
    return picture.resize(size, Image.Resampling.LANCZOS)


def pixels(picture: "Image") -> Tensor:
    """Return an "RGB" picture as a tensor (3, H, W) uint8."""
    return torch.from_numpy(np.asarray(picture).transpose(2, 0, 1).copy())


def centre_square(path: Path, side: int) -> Tensor:
    """Scale the picture in `path` and return its centre (3, side, side) uint8.

    Raises UnreadablePicture.
    """
    picture = read_scaled(path, side)
    left, top = ((length - side) // 2 for length in picture.size)
    return pixels(picture.crop((left, top, left + side, top + side)))


def random_crops(
    pictures: Sequence[Tensor], side: int, count: int, generator: torch.Generator
) -> list[Tensor]:
    """Return `count` random crops (3, side, side) from `pictures` (3, H, W) each.

    Each picture gives the same number of crops, or one more. Their order is random.
    """
    return [
        _random_crop(pictures[i % len(pictures)], side, generator)
        for i in torch.randperm(count, generator=generator).tolist()
    ]


def _random_crop(picture: Tensor, side: int, generator: torch.Generator) -> Tensor:
    top, left = (
        int(torch.randint(length - side + 1, (), generator=generator))
        for length in picture.shape[1:]
    )
    return picture[:, top : top + side, left : left + side]


def require_fit(crop: int, shorter_side: int) -> None:
    """Raise RequestError if crops are larger than the scaled photographs."""
    if crop > shorter_side:
        raise RequestError(
            f"data.crop={crop} does not fit into data.shorter_side={shorter_side}"
        )


def skip(broken: Sequence[str], total: str, *, strict: bool) -> None:
    """Log that the pictures `broken` are skipped.

    Each entry of `broken` is a path and the reason. `total` describes all pictures,
    such as "10 images". Raises RequestError if `strict`.
    """
    if not broken:
        return
    message = f"{len(broken)} of {total} cannot be read: {shortened(broken, 3)}"
    if strict:
        raise RequestError(f"data.strict=true, and {message}")
    log.warning("skipped: %s", message)
