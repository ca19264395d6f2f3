"""Random photographs for tests of the style task."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from normbench.data.base import Photographs

CROPS, SIDE = 24, 32


def smooth(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Return random pictures with structure at two scales."""
    coarse = torch.rand(count, 3, side // 8, side // 8, generator=generator)
    fine = torch.rand(count, 3, side, side, generator=generator)
    coarse = F.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)
    return 0.8 * coarse + 0.2 * fine


def random_photographs() -> Photographs:
    """Return random crops, one style and splits."""
    generator = torch.Generator().manual_seed(0)
    train, val, test = torch.split(torch.arange(CROPS), [16, 3, 5])
    return Photographs(
        crops=smooth(CROPS, SIDE, generator),
        styles=smooth(1, 48, generator),
        key="random",
        splits={"train": train, "val": val, "test": test},
    )


def with_styles(photographs: Photographs, styles: int) -> Photographs:
    """Return the same crops with several style pictures."""
    generator = torch.Generator().manual_seed(1)
    pictures = smooth(styles, SIDE, generator)
    return replace(photographs, styles=pictures, key=f"{styles} styles")
