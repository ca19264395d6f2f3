"""The hand-written digits inside the package scikit-learn: 1,797 images, 8x8 pixels."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from normbench.data.base import Data, Fraction, Images, random_split
from normbench.data.reading.augmentation import Augmentations, with_augmentation
from normbench.data.reading.embedded import content_hash, package_file

FORMAT = 1
"""Version of the images: increased whenever this code makes other images."""

WHITE = 16
"""The largest value of a pixel in the file."""

# The mean and the standard deviation of all pixels in [0, 1]. Both are constants, so
# that no part of the split influences another part.
MEAN, STD = 0.3053, 0.3761


class Digits(Data, name="digits"):
    """1,797 handwritten digits, 174 to 183 of each class.

    `images` (1797, 1, size, size) are standardised by constants. With size 14 or 16,
    the 8x8 pixels are interpolated bilinearly, and pixels at the border are repeated
    beyond it. The split is random: digits of one person may be in several parts.
    Source: Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998, UCI
    Machine Learning Repository, CC BY 4.0), the test part of that data set.
    """

    kind = Images
    known_content = "3429bd11ca8a3bf3dd4bf9ef7659f0b9"
    packages = ("scikit-learn",)

    def __init__(
        self,
        *,
        size: Literal[8, 14, 16] = 8,
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.3,
        augment: Augmentations = [],  # noqa: B006 - never changed
        fingerprint: str | None = None,
    ) -> None:
        self.size = size
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.augment = augment
        self.fingerprint = fingerprint

    def hash_files(self) -> str:
        return content_hash(FORMAT, _path())

    def load(self, seed: int) -> Images:
        """Return all images; raise RequestError if the fractions leave a part empty."""
        self.require_content(self.fingerprint)
        pixels, labels = _parse()
        images = (pixels.float() / WHITE - MEAN) / STD
        if self.size != 8:
            size = (self.size, self.size)
            images = F.interpolate(images, size, mode="bilinear", align_corners=False)
        return Images(
            images=with_augmentation(images, self.augment, seed),
            labels=labels,
            classes=tuple("0123456789"),
            splits=random_split(
                len(images),
                val_fraction=self.val_fraction,
                test_fraction=self.test_fraction,
                generator=torch.Generator().manual_seed(seed),
            ),
        )


def _parse() -> tuple[Tensor, Tensor]:
    """Return pixels (1797, 1, 8, 8), from 0 to 16, and labels (1797,), both int64.

    A line of the file has 64 pixels, row by row, and the label.
    """
    rows = torch.from_numpy(np.loadtxt(_path(), dtype=np.int64, delimiter=","))
    return rows[:, :64].reshape(-1, 1, 8, 8), rows[:, 64].clone()


def _path() -> Path:
    return package_file("scikit-learn", "sklearn", "datasets/data/digits.csv.gz")
