"""Images of low quality: a fixed half, or another share, of a data set.

An image x of low quality becomes

    y = mean(x) + CONTRAST * (blur(x) - mean(x)) + NOISE * z

blur is a binomial filter of 5x5 pixels (weights 1, 4, 6, 4, 1 over 16 in both
directions, reflected at the border), mean(x) is the mean of each channel of the image,
and z is independent normal noise. A change of contrast is a change of the standard
deviation that a norm divides by; noise and blur change its input at high frequencies.
"""

import hashlib
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

Share = Annotated[float, Field(ge=0, lt=1)]
"""Type of the option `low_quality`: the share of images with low quality."""

CONTRAST = 0.3
NOISE = 0.2
"""The standard deviation of the noise. Standardised images have about 1."""

_BINOMIAL = torch.tensor([1.0, 4, 6, 4, 1]) / 16


def with_low_quality(
    images: Tensor, share: float, seed: int
) -> tuple[Tensor, Tensor | None]:
    """Return `images` with a share of low quality, and their quality.

    `images` (N, C, H, W) float32 are standardised, with sides of at least 3 pixels.
    The quality (N,) int64 is 0 for low and 1 for high; it is None, and the images are
    unchanged, if the share is 0. round(share * N) images are of low quality, and the
    seed alone decides which, whatever their split or class.
    """
    if share == 0:
        return images, None
    # Another random stream than that of the split, which would decide the quality too.
    digest = hashlib.sha256(f"quality {seed}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
    low = torch.randperm(len(images), generator=generator)
    low = low[: round(share * len(images))]
    noise = torch.randn(images[low].shape, generator=generator)
    mean = images[low].mean((2, 3), keepdim=True)
    changed = images.clone()
    changed[low] = mean + CONTRAST * (_blurred(images[low]) - mean) + NOISE * noise
    quality = torch.ones(len(images), dtype=torch.int64)
    quality[low] = 0
    return changed, quality


def _blurred(images: Tensor) -> Tensor:
    """Return `images` (N, C, H, W) after the binomial filter."""
    kernel = (_BINOMIAL[:, None] * _BINOMIAL).view(1, 1, 5, 5)
    planes = F.pad(images.flatten(0, 1)[:, None], [2] * 4, mode="reflect")
    return F.conv2d(planes, kernel).view_as(images)
