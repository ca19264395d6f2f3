"""Crops of four pictures of textures inside the package scikit-image.

Each picture is cut into 64 blocks of 64x64 pixels. The seed assigns every block to one
part, and a crop lies inside one block. So no pixel of a picture is in two parts.
"""

import math
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from normbench.data.base import Data, Fraction, Images, Splits, random_split
from normbench.data.reading.augmentation import Augmentations, with_augmentation
from normbench.data.reading.embedded import content_hash, package_file

FORMAT = 1
"""Version of the crops: increased whenever this code makes other crops."""

PICTURES = {
    "brick": "brick.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "immunohistochemistry": "ihc.png",
}
"""The file of every class. The fourth picture, a stained tissue, becomes grey."""

SIDE = 512
"""Side of every picture in pixels."""

BLOCK = 64
"""Side of a block in pixels."""

GRID = SIDE // BLOCK
"""Blocks in a row and in a column of a picture."""

# A changed crop is gain * x + offset + noise. Each picture has mean 0 and deviation 1
# before the change. The amount of noise makes a small CNN with BatchNorm err on about a
# tenth of the test crops after three epochs.
GAIN = 1.25
"""The gain, log-uniform between 1 / GAIN and GAIN, changes the contrast."""

OFFSET = 0.3
"""The offset, uniform between -OFFSET and OFFSET, changes the brightness."""

NOISE = 0.15
"""Standard deviation of the normal noise in each pixel."""

STD = 1.04
"""Constant for standardising: about the deviation of a large sample of crops."""


class Textures(Data, name="textures"):
    """Grey crops of brick, grass, gravel and a stained tissue, labelled with these.

    `images` (samples, 1, size, size), standardised by constants. All classes have the
    same number of crops in every part, up to one. A crop has a random position inside a
    random block of its part. Crops of one part may overlap, so that their errors are
    correlated: by default, the test crops of a class come from 19 blocks.

    A random gain and a random offset change the contrast and the brightness of each
    crop, and noise is added. With norm=batch, task.stem_stride=2 and three epochs of
    3,000 crops, a small CNN misclassifies about a tenth of the test crops. Source:
    scikit-image; the pictures are in the public domain or CC0.
    """

    kind = Images
    known_content = "2ba344fc7309ec342f21166f1e3a3740"
    packages = ("scikit-image", "pillow")

    def __init__(
        self,
        *,
        size: Annotated[int, Field(ge=8, le=BLOCK)] = 16,
        samples: PositiveInt = 5000,
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.3,
        augment: Augmentations = [],  # noqa: B006 - never changed
        fingerprint: str | None = None,
    ) -> None:
        self.size = size
        self.samples = samples
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.augment = augment
        self.fingerprint = fingerprint

    def hash_files(self) -> str:
        return content_hash(FORMAT, *(_path(file) for file in PICTURES.values()))

    def load(self, seed: int) -> Images:
        """Return all crops.

        Raises RequestError if the fractions leave a part without crops or blocks, or if
        scikit-image lacks a picture.
        """
        self.require_content(self.fingerprint)
        generator = torch.Generator().manual_seed(seed)
        splits = self._split(self.samples, "samples", generator)
        labels = torch.empty(self.samples, dtype=torch.int64)
        for index in splits.values():
            order = torch.randperm(len(index), generator=generator)
            labels[index] = order % len(PICTURES)
        top, left = self._positions(labels, splits, generator)
        crops = cut(_pictures(), labels, top, left, self.size)
        images = _changed(crops, generator)[:, None] / STD
        return Images(
            images=with_augmentation(images, self.augment, seed),
            labels=labels,
            classes=tuple(PICTURES),
            splits=splits,
        )

    def _split(self, count: int, unit: str, generator: torch.Generator) -> Splits:
        return random_split(
            count,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            generator=generator,
            unit=unit,
        )

    def _positions(
        self, labels: Tensor, splits: Splits, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw the top and the left pixel (N,) int64 of every crop."""
        unit = "blocks of a picture"
        blocks = [self._split(GRID**2, unit, generator) for _ in PICTURES]
        block = torch.empty_like(labels)
        for part, index in splits.items():
            choices = torch.stack([parts[part] for parts in blocks])
            drawn = torch.randint(choices.shape[1], index.shape, generator=generator)
            block[index] = choices[labels[index], drawn]
        within = torch.randint(
            BLOCK - self.size + 1, (2, len(labels)), generator=generator
        )
        return block // GRID * BLOCK + within[0], block % GRID * BLOCK + within[1]


def cut(
    pictures: Tensor, labels: Tensor, top: Tensor, left: Tensor, size: int
) -> Tensor:
    """Return crops (N, size, size) of `pictures` (K, H, W).

    Crop i comes from picture `labels[i]`, and its first pixel is at `top[i]`,
    `left[i]`; the three tensors are (N,) int64.
    """
    offsets = torch.arange(size)
    rows, columns = top[:, None] + offsets, left[:, None] + offsets
    return pictures[labels[:, None, None], rows[:, :, None], columns[:, None, :]]


def _changed(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Return `crops` (N, H, W) with a random contrast, brightness and noise."""
    uniform = 2 * torch.rand((2, len(crops), 1, 1), generator=generator) - 1
    gain = (uniform[0] * math.log(GAIN)).exp()
    noise = torch.randn(crops.shape, generator=generator)
    return gain * crops + OFFSET * uniform[1] + NOISE * noise


def _pictures() -> Tensor:
    """Return the pictures (4, 512, 512) float32, each with mean 0 and deviation 1."""
    from PIL import Image

    greys = []
    for file in PICTURES.values():
        with Image.open(_path(file)) as picture:
            greys.append(np.asarray(picture.convert("L")))
    pictures = torch.from_numpy(np.stack(greys)).double()
    mean = pictures.mean((1, 2), keepdim=True)
    std = pictures.std((1, 2), keepdim=True)
    return ((pictures - mean) / std).float()


def _path(file: str) -> Path:
    return package_file("scikit-image", "skimage", f"data/{file}")
