"""What the checks know, and words that they share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from normbench.models.forward import Observation
from normbench.models.layers import readable
from normbench.models.rows import LayerRow
from normbench.norms.base import REGISTRY

SHOWN = 3
"""A finding names at most this many layers."""


@dataclass(frozen=True)
class Context:
    """What the checks know beside the rows of the layers.

    The fields are the arguments of `inspect`; `observation` has the copy of the model
    after the forward and the backward.
    """

    model: nn.Module
    observation: Observation
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None
    steps: int | None
    accumulate: int


Rows = Sequence[LayerRow]


def names(layers: Sequence[LayerRow | str]) -> str:
    """Return the names of the first layers, and how many others there are."""
    all_names = [x if isinstance(x, str) else x.name for x in layers]
    shown = [readable(name) for name in all_names[:SHOWN]]
    others = len(layers) - len(shown)
    if not others:
        return " and ".join(shown) if len(shown) < 3 else ", ".join(shown)
    return f"{', '.join(shown)} and {others} other{'s' if others > 1 else ''}"


def count(rows: Rows) -> str:
    """Return the number of layers in words."""
    return f"{len(rows)} layer{'s' if len(rows) > 1 else ''}"


def uses_batch(row: LayerRow) -> bool:
    """Return whether the statistics of a layer contain several samples."""
    return row.kind != "unknown" and REGISTRY.get(row.kind).uses_other_samples
