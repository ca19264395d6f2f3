"""Crops of the photographs shipped inside scikit-image, and style pictures."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field, PositiveInt
from torch import Tensor

from normbench.data.base import Data, Photographs, Splits
from normbench.data.reading.appearance import FORMAT as APPEARANCE
from normbench.data.reading.appearance import equalize_luminance, impose_style
from normbench.data.reading.cache import Parsed, cached, digest
from normbench.data.reading.embedded import content_hash, package_file
from normbench.data.reading.pictures import pixels, random_crop, require_fit

FORMAT = 1

# motorcycle_right.png is the same scene as motorcycle_left.png, so it cannot be in
# another part than it.
CONTENT = (
    "astronaut.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
HELD_OUT = "chelsea.png"
STYLES = {
    "immunohistochemistry": "ihc.png",
    "brick": "brick.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
}
StyleName = Literal["immunohistochemistry", "brick", "grass", "gravel"]
STYLE_PART = 256
"""Side of the centre square of a style picture that is used, in its own pixels."""
STYLE_SIDE = 128
"""Side of that square after scaling."""


def _distinct(names: list[StyleName]) -> list[StyleName]:
    if len(set(names)) < len(names):
        raise ValueError("Each style can be there once")
    return names


class PhotographCrops(Data, name="photographs"):
    """Square crops of seven colour photographs, and one or several style pictures.

    `crops` (train + val + test, 3, crop, crop); `styles` (S, 3, 128, 128), in the order
    that they are named in: crop i is to be drawn in style i mod S. Test crops
    are always of the cat. The seed draws the positions and the photograph that is kept
    for validation; the training crops are of the other five, as evenly as their number
    allows. Source: scikit-image; public domain or CC0, but for the motorcycle (from the
    Middlebury stereo set of 2014), of which no licence is stated.

    `content` says what is done to each crop: nothing (raw), its luminance equalised
    (contrast), or the statistics of its own style imposed on it (style); see
    `normbench.data.reading.appearance`. It is then the picture that is to be redrawn,
    in training and held out, and its content is what is to be kept.
    """

    kind = Photographs
    known_content = "4c18cf57c7e6e61ec989f1ae77928da2"
    packages = ("scikit-image", "pillow")

    def __init__(
        self,
        *,
        styles: Annotated[
            list[StyleName], Field(min_length=1), AfterValidator(_distinct)
        ] = ["immunohistochemistry"],  # noqa: B006 - never changed
        content: Literal["raw", "contrast", "style"] = "raw",
        crop: PositiveInt = 64,
        shorter_side: PositiveInt = 128,
        train_crops: PositiveInt = 800,
        val_crops: PositiveInt = 64,
        test_crops: PositiveInt = 64,
        fingerprint: str | None = None,
    ) -> None:
        require_fit(crop, shorter_side)
        self.styles = styles
        self.content = content
        self.crop = crop
        self.shorter_side = shorter_side
        self.train_crops = train_crops
        self.val_crops = val_crops
        self.test_crops = test_crops
        self.fingerprint = fingerprint

    def hash_files(self) -> str:
        """Of every photograph and style picture there is, whichever are used."""
        names = (*CONTENT, HELD_OUT, *STYLES.values())
        return content_hash(FORMAT, *(_path(name) for name in names))

    def load(self, seed: int) -> Photographs:
        """All crops; RequestError if scikit-image lacks a photograph."""
        self.require_content(self.fingerprint)
        pictures = self._pictures()
        generator = torch.Generator().manual_seed(seed)
        validation, *training = torch.randperm(
            len(CONTENT), generator=generator
        ).tolist()
        sources = {
            "train": [CONTENT[i] for i in training],
            "val": [CONTENT[validation]],
            "test": [HELD_OUT],
        }
        counts = {
            "train": self.train_crops,
            "val": self.val_crops,
            "test": self.test_crops,
        }
        crops: list[Tensor] = []
        splits: Splits = {}
        for part, count in counts.items():
            splits[part] = torch.arange(len(crops), len(crops) + count)
            for i in torch.randperm(count, generator=generator).tolist():
                name = sources[part][i % len(sources[part])]
                crops.append(random_crop(pictures[name], self.crop, generator))
        styles = torch.stack([pictures[name] for name in self.styles])
        # The pixels, not the files: another decoder or resampling is another key.
        key = digest({"format": FORMAT, "seed": seed, **vars(self)}, pictures)
        return Photographs(
            crops=self._with_content(torch.stack(crops), styles, key).float() / 255,
            styles=styles.float() / 255,
            key=key,
            splits=splits,
        )

    def _with_content(self, crops: Tensor, styles: Tensor, key: str) -> Tensor:
        """(N, 3, H, W) uint8, as `content` says; 8 bits as any picture has."""
        if self.content == "raw":
            return crops

        def make() -> Parsed:
            raw = crops.float() / 255
            if self.content == "contrast":
                made = equalize_luminance(raw)
            else:
                made = torch.empty_like(raw)
                for i, style in enumerate(styles.float() / 255):
                    own = slice(i, None, len(styles))
                    made[own] = impose_style(raw[own], style)
            return Parsed({"crops": (made * 255).round().to(torch.uint8)})

        identity = {
            "format": APPEARANCE,
            "photographs": key,
            "torch": torch.__version__,
        }
        return cached(f"photographs-{self.content}", identity, make).tensors["crops"]

    def _pictures(self) -> dict[str, Tensor]:
        """The scaled pictures, (3, H, W) uint8, by file name; styles by their own."""
        paths = {name: _path(name) for name in (*CONTENT, HELD_OUT)}
        paths |= {name: _path(STYLES[name]) for name in self.styles}
        identity = {
            "format": FORMAT,
            "pillow": version("pillow"),
            "shorter_side": self.shorter_side,
            "content": self.hash_files(),
            "styles": sorted(self.styles),
        }
        return cached("photographs", identity, lambda: self._parse(paths)).tensors

    def _parse(self, paths: dict[str, Path]) -> Parsed:
        from PIL import Image

        pictures = {}
        for name, path in paths.items():
            with Image.open(path, formats=("JPEG", "PNG")) as file:
                picture = file.convert("RGB")
            width, height = picture.size
            if name in STYLES:
                left, top = (width - STYLE_PART) // 2, (height - STYLE_PART) // 2
                box = (left, top, left + STYLE_PART, top + STYLE_PART)
                size = (STYLE_SIDE, STYLE_SIDE)
            else:
                box = (0, 0, width, height)
                scale = self.shorter_side / min(width, height)
                size = (round(width * scale), round(height * scale))
            # Lanczos widens its window when it shrinks: no aliasing.
            scaled = picture.resize(size, Image.Resampling.LANCZOS, box)
            pictures[name] = pixels(scaled)
        return Parsed(pictures)


def _path(name: str) -> Path:
    return package_file("scikit-image", "skimage", f"data/{name}")
