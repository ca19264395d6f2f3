"""Random inputs of a network."""

from collections.abc import Sequence

import torch
from torch import Tensor as Tensor
from torch.nn import Module as Module


def random_input(shape: Sequence[int], dtype: str, vocabulary: int = 0) -> Tensor:
    """Return an input of `shape`: N(0, 1), or token ids below `vocabulary` for int64.

    `dtype` is the name of a type of torch. Every call returns the same values.
    """
    generator = torch.Generator().manual_seed(0)
    if dtype == "int64":
        return torch.randint(0, vocabulary, tuple(shape), generator=generator)
    return torch.randn(tuple(shape), generator=generator).to(getattr(torch, dtype))
