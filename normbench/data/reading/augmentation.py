"""Augmentation: random changes to images that depend on the seed, epoch and sample.

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
        raise ValueError("Each augmentation can be named once")
    return [name for name in get_args(Augmentation) if name in chosen]


Augmentations = Annotated[list[Augmentation], AfterValidator(_ordered)]
"""Type of the option: the augmentations in the order in which they are applied."""


@dataclass(frozen=True)
class InMemory(ImageSource):
    """All images of a data set in one tensor.

    `pixels` (N, C, H, W) are float32 or uint8. Batches of uint8 pixels are divided by
    255 and standardised by `mean` and `std` of each channel. Batches of a training
    epoch are augmented.
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


def with_augmentation(
    images: Tensor, augment: Sequence[Augmentation], seed: int
) -> Tensor | ImageSource:
    """Return `images` (N, C, H, W) float32 as a source that augments them in training.

    Return them unchanged if `augment` is empty.
    """
    return InMemory(images, augment=augment, seed=seed) if augment else images


def as_source(images: Tensor | ImageSource) -> ImageSource:
    """Return `images` as an ImageSource; a tensor is wrapped."""
    return InMemory(images) if isinstance(images, Tensor) else images


def standardised(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return (pixels / 255 - mean) / std, float32, for uint8 pixels (B, C, H, W)."""
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
    """Return the standardised images x (B, C, H, W) of samples `index` (B,), augmented.

    crop: pad each border by an eighth of the side, in the mean colour, and cut out a
    window of the original size. flip: mirror left and right with probability 1/2.
    cutout: fill a square of half the side with the mean colour; its centre is anywhere
    in the image, so a part of the square may be outside.
    """
    if not chosen:
        return x
    _, channels, height, width = x.shape
    pad_y, pad_x = height // 8, width // 8
    numbers = torch.from_numpy(uniform(seed, epoch, index.cpu().numpy(), 5))
    ranges = torch.tensor([2 * pad_y + 1, 2 * pad_x + 1, 2, height, width])
    drawn = (numbers * ranges).long().to(x.device, non_blocking=True)
    shift_y, shift_x, mirrored, centre_y, centre_x = drawn[:, :, None].unbind(1)
    rows = torch.arange(height, device=x.device).expand(len(x), -1)
    columns = torch.arange(width, device=x.device).expand(len(x), -1)
    hidden = _near(rows, centre_y, height // 4)[:, None, :, None]
    hidden = hidden & _near(columns, centre_x, width // 4)[:, None, None, :]
    if "flip" in chosen:
        columns = torch.where(mirrored == 1, width - 1 - columns, columns)
    if "crop" in chosen:
        x = F.pad(x, (pad_x, pad_x, pad_y, pad_y))
        rows, columns = rows + shift_y, columns + shift_x
    if "flip" in chosen or "crop" in chosen:
        samples = torch.arange(len(x), device=x.device)[:, None, None, None]
        channel = torch.arange(channels, device=x.device)[None, :, None, None]
        x = x[samples, channel, rows[:, None, :, None], columns[:, None, None, :]]
    return x.masked_fill(hidden, 0) if "cutout" in chosen else x


def _near(positions: Tensor, centre: Tensor, half: int) -> Tensor:
    """Return which positions are in the interval [centre - half, centre + half)."""
    return (positions >= centre - half) & (positions < centre + half)


def uniform(
    seed: int, epoch: int, index: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """Return uniform numbers in [0, 1) (B, count) for the samples `index` (B,).

    Each sample has its own stream of SplitMix64 (Steele, Lea & Flood 2014, "Fast
    Splittable Pseudorandom Number Generators").
    """
    digest = hashlib.sha256(f"augment {seed} {epoch}".encode()).digest()
    start = np.frombuffer(digest[:8], dtype=np.uint64)
    gamma = np.uint64(0x9E3779B97F4A7C15)
    streams = _mixed(start + index.astype(np.uint64) * gamma)
    counter = np.arange(1, count + 1, dtype=np.uint64) * gamma
    # A number has 32 bits, so that its product with an integer n is exact.
    # Otherwise, rounding could make the product equal to n.
    bits = _mixed(streams[:, None] + counter) >> np.uint64(32)
    return bits.astype(np.float64) * 2.0**-32


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply the output function of SplitMix64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
