"""Photographs and style pictures inside the package scikit-image."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal, get_args

import torch
from pydantic import AfterValidator, Field, PositiveInt
from torch import Tensor

from normbench.data.base import SHOWN_SIDE, Data, Photographs
from normbench.data.reading.appearance import FORMAT as APPEARANCE
from normbench.data.reading.appearance import equalize_luminance, impose_style
from normbench.data.reading.cache import Parsed, cached, digest
from normbench.data.reading.embedded import (
    content_hash,
    package_file,
    with_parsed,
)
from normbench.data.reading.pictures import (
    centre_square,
    pixels,
    random_crops,
    read_picture,
    read_scaled,
    require_fit,
)
from normbench.data.splits import consecutive_split

FORMAT = 1
KNOWN_PIXELS = "8e123d1a69443cf7fe4bf937cae3b58a"
"""Hash of the pixels of all pictures at the default size. Never change it."""

# motorcycle_right.png is left out, because it shows the scene of motorcycle_left.png.
# Two parts, such as training and validation, must not show the same scene.
CONTENT = (
    "astronaut.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
CAT = "chelsea.png"
PHOTOGRAPHS = (*CONTENT, CAT)
SHOWN = ("china.jpg", "flower.jpg")
"""Photographs in scikit-learn (CC BY 2.0) that are only shown, never trained with."""
STYLES = {
    "immunohistochemistry": "ihc.png",
    "brick": "brick.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
}
StyleName = Literal["immunohistochemistry", "brick", "grass", "gravel"]
STYLE_CROP = 256
"""The side, in pixels, of the centre square that is cut from a style picture."""
STYLE_SIDE = 128
"""The side, in pixels, of the same square after scaling."""


def _distinct(names: list[StyleName]) -> list[StyleName]:
    if len(set(names)) < len(names):
        raise ValueError("Each style can be named once")
    return names


class PhotographCrops(Data, name="photographs"):
    """Square crops of seven colour photographs, and one or several style pictures.

    `crops` have the shape (train + val + test, 3, crop, crop). `styles` (S, 3, 128,
    128) have the order of the option `styles`. The network is to redraw crop i in style
    i mod S. The test crops come from the photograph of a cat. If `held_out` is
    "by_seed", they come from photograph number seed mod 7 in the order of PHOTOGRAPHS,
    so that results over seeds do not rest on one photograph. The seed draws the
    positions of the crops and the photograph for validation. The training crops come
    from the other five photographs, in equal numbers if possible. Source: scikit-image.
    The pictures are in the public domain or CC0. The motorcycle (from the Middlebury
    stereo set of 2014) is an exception: it has no stated licence.

    `content` names a change to each crop: none (raw), equalised luminance (contrast),
    or the statistics of its style picture (style); see
    `normbench.data.reading.appearance`. The crops of all parts are changed. The network
    is to redraw the changed crops and to keep their content.

    `shown` (3, 3, 256, 256) are the centres of the test photograph and of two
    photographs of scikit-learn, with the same change.
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
        held_out: Literal["cat", "by_seed"] = "cat",
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
        self.held_out = held_out
        self.crop = crop
        self.shorter_side = shorter_side
        self.train_crops = train_crops
        self.val_crops = val_crops
        self.test_crops = test_crops
        self.fingerprint = fingerprint

    def hash_files(self) -> str:
        """Hash all photographs and style pictures, whether or not they are used.

        The hash covers the files, and the pixels that Pillow decodes and scales.
        """
        everything = PhotographCrops(styles=[*get_args(StyleName)])._pictures()
        pixels = digest({"appearance": APPEARANCE}, everything)[:32]
        return with_parsed(_content_hash(), pixels, KNOWN_PIXELS)

    def load(self, seed: int) -> Photographs:
        """Return all crops; raise RequestError if scikit-image lacks a picture."""
        self.require_content(self.fingerprint)
        pictures = self._pictures()
        generator = torch.Generator().manual_seed(seed)
        test = CAT
        if self.held_out == "by_seed":
            test = PHOTOGRAPHS[seed % len(PHOTOGRAPHS)]
        others = [name for name in PHOTOGRAPHS if name != test]
        order = torch.randperm(len(others), generator=generator).tolist()
        validation, *training = [others[i] for i in order]
        sources = {"train": training, "val": [validation], "test": [test]}
        counts = {
            "train": self.train_crops,
            "val": self.val_crops,
            "test": self.test_crops,
        }
        crops: list[Tensor] = []
        for part, count in counts.items():
            chosen = [pictures[name] for name in sources[part]]
            crops += random_crops(chosen, self.crop, count, generator)
        styles = torch.stack([pictures[name] for name in self.styles])
        # The key is a hash of pixels, because another decoder may give other pixels.
        key = digest({"format": FORMAT, "seed": seed, **vars(self)}, pictures)
        return Photographs(
            crops=self._with_content(torch.stack(crops), styles, key).float() / 255,
            styles=styles.float() / 255,
            key=key,
            splits=consecutive_split(counts),
            shown=self._with_content(_shown(test), styles, f"{key} shown") / 255,
        )

    def _with_content(self, crops: Tensor, styles: Tensor, key: str) -> Tensor:
        """Return `crops` (N, 3, H, W) uint8, changed as the option `content` says."""
        if self.content == "raw":
            return crops

        def make() -> Parsed:
            raw = crops.float() / 255
            if self.content == "contrast":
                changed = equalize_luminance(raw)
            else:
                changed = torch.empty_like(raw)
                for i, style in enumerate(styles.float() / 255):
                    # Every S-th crop has this style.
                    crops_of_style = slice(i, None, len(styles))
                    changed[crops_of_style] = impose_style(raw[crops_of_style], style)
            return Parsed({"crops": (changed * 255).round().to(torch.uint8)})

        identity = {
            "format": APPEARANCE,
            "photographs": key,
            "torch": torch.__version__,
        }
        return cached(f"photographs-{self.content}", identity, make).tensors["crops"]

    def _pictures(self) -> dict[str, Tensor]:
        """Return the scaled pictures, (3, H, W) uint8, by file name or style name."""
        paths = {name: _path(name) for name in PHOTOGRAPHS}
        paths |= {name: _path(STYLES[name]) for name in self.styles}
        identity = {
            "format": FORMAT,
            "pillow": version("pillow"),
            "shorter_side": self.shorter_side,
            "content": _content_hash(),
            "styles": sorted(self.styles),
        }
        return cached("photographs", identity, lambda: self._parse(paths)).tensors

    def _parse(self, paths: dict[str, Path]) -> Parsed:
        from PIL import Image

        pictures = {}
        for name, path in paths.items():
            if name not in STYLES:
                pictures[name] = pixels(read_scaled(path, self.shorter_side))
                continue
            picture = read_picture(path)
            left, top = ((side - STYLE_CROP) // 2 for side in picture.size)
            box = (left, top, left + STYLE_CROP, top + STYLE_CROP)
            size = (STYLE_SIDE, STYLE_SIDE)
            square = picture.resize(size, Image.Resampling.LANCZOS, box)
            pictures[name] = pixels(square)
        return Parsed(pictures)


def _content_hash() -> str:
    names = (*PHOTOGRAPHS, *STYLES.values())
    return content_hash(FORMAT, *(_path(name) for name in names))


def _shown(test: str) -> Tensor:
    """Return the photograph `test` and those in SHOWN, (3, 3, 256, 256) uint8."""
    shown = (
        package_file("scikit-learn", "sklearn", f"datasets/images/{name}")
        for name in SHOWN
    )
    paths = (_path(test), *shown)
    identity = {
        "format": FORMAT,
        "pillow": version("pillow"),
        "side": SHOWN_SIDE,
        "content": content_hash(FORMAT, *paths),
    }

    def make() -> Parsed:
        squares = [centre_square(path, SHOWN_SIDE) for path in paths]
        return Parsed({"squares": torch.stack(squares)})

    return cached("photographs-shown", identity, make).tensors["squares"]


def _path(name: str) -> Path:
    return package_file("scikit-image", "skimage", f"data/{name}")
