"""Random changes to a batch of images: a function of the seed, the epoch, the sample.

crop, flip: He et al. 2016, "Deep Residual Learning for Image Recognition" (section
4.2); cutout: DeVries & Taylor 2017, "Improved Regularization of Convolutional Neural
Networks with Cutout".
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator
from torch import Tensor
from torch.nn import functional as F

from normbench.data.base import ImageSource

Augmentation = Literal["crop", "flip", "cutout"]


def _ordered(chosen: list[Augmentation]) -> list[Augmentation]:
    if len(set(chosen)) < len(chosen):
        raise ValueError("Each augmentation can be there once")
    return [name for name in get_args(Augmentation) if name in chosen]


Augmentations = Annotated[list[Augmentation], AfterValidator(_ordered)]
"""The type of an option; in the order in which they are done, however it is given."""


@dataclass(frozen=True)
class InMemory(ImageSource):
    """A whole data set as one tensor, of which a batch is an index.

    `pixels` (N, C, H, W): float32, given as they are, or uint8, given divided by 255
    and standardised by the channels' `mean` and `std`. In an epoch of training they are
    augmented.
    """

    pixels: Tensor
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    augment: Sequence[Augmentation] = ()
    seed: int = 0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        n, c, h, w = self.pixels.shape
        return n, c, h, w

    def to(self, device: torch.device) -> Self:
        return replace(self, pixels=self.pixels.to(device))

    def batch(self, index: Tensor, epoch: int | None = None) -> Tensor:
        x = self.pixels[index.to(self.pixels.device, non_blocking=True)]
        if x.dtype == torch.uint8:
            x = standardised(x, self.mean, self.std)
        if epoch is not None:
            x = augmented(x, self.augment, self.seed, epoch, index)
        return x


def augmenting(
    images: Tensor, augment: Sequence[Augmentation], seed: int
) -> Tensor | ImageSource:
    """`images` (N, C, H, W) float32 that training augments, if `augment` names how."""
    return InMemory(images, augment=augment, seed=seed) if augment else images


def source(images: Tensor | ImageSource) -> ImageSource:
    """The source of `images`, where they are a tensor."""
    return InMemory(images) if isinstance(images, Tensor) else images


def standardised(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(B, C, H, W) uint8 -> float32, (pixels / 255 - mean) / std of each channel."""
    constants = torch.tensor([mean, std]).to(pixels.device, non_blocking=True)
    constants = constants[:, :, None, None]
    return (pixels.float() / 255 - constants[0]) / constants[1]


def augmented(
    x: Tensor,
    chosen: Sequence[Augmentation],
    seed: int,
    epoch: int,
    index: Tensor,
) -> Tensor:
    """Standardised images x (B, C, H, W) of the samples `index` (B,), changed.

    crop: an eighth of the side is added to each border, in the mean colour, and a
    window of the size of the image is taken; flip: left and right are exchanged with
    probability 1/2; cutout: a square of half the side becomes the mean colour, with its
    centre anywhere in the image, so that part of it may be outside.
    """
    if not chosen:
        return x
    _, channels, height, width = x.shape
    high, wide = height // 8, width // 8
    u = torch.from_numpy(uniform(seed, epoch, index.cpu().numpy(), 5))
    ranges = torch.tensor([2 * high + 1, 2 * wide + 1, 2, height, width])
    drawn = (u * ranges).long().to(x.device, non_blocking=True)
    down, across, mirrored, y, x_ = drawn[:, :, None].unbind(1)
    rows = torch.arange(height, device=x.device).expand(len(x), -1)
    columns = torch.arange(width, device=x.device).expand(len(x), -1)
    hidden = _near(rows, y, height // 4)[:, None, :, None]
    hidden = hidden & _near(columns, x_, width // 4)[:, None, None, :]
    if "flip" in chosen:
        columns = torch.where(mirrored == 1, width - 1 - columns, columns)
    if "crop" in chosen:
        x = F.pad(x, (wide, wide, high, high))
        rows, columns = rows + down, columns + across
    if "flip" in chosen or "crop" in chosen:
        samples = torch.arange(len(x), device=x.device)[:, None, None, None]
        channel = torch.arange(channels, device=x.device)[None, :, None, None]
        x = x[samples, channel, rows[:, None, :, None], columns[:, None, None, :]]
    return x.masked_fill(hidden, 0) if "cutout" in chosen else x


def _near(positions: Tensor, centre: Tensor, half: int) -> Tensor:
    return (positions >= centre - half) & (positions < centre + half)


def uniform(
    seed: int, epoch: int, index: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) of each sample: (B,) -> (B, count).

    SplitMix64 (Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number
    Generators"), each sample with a stream of its own.
    """
    digest = hashlib.sha256(f"augment {seed} {epoch}".encode()).digest()
    start = np.frombuffer(digest[:8], dtype=np.uint64)
    gamma = np.uint64(0x9E3779B97F4A7C15)
    streams = _mixed(start + index.astype(np.uint64) * gamma)
    counter = np.arange(1, count + 1, dtype=np.uint64) * gamma
    # 32 bits: times a whole number they are exact, and so below it.
    bits = _mixed(streams[:, None] + counter) >> np.uint64(32)
    return bits.astype(np.float64) * 2.0**-32


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
