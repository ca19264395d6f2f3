"""The table of the norms of a network: one row per layer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from normbench.models.forward import Observation
from normbench.models.layers import Layer, layers
from normbench.norms.base import REGISTRY
from normbench.norms.measure.sizes import values_in_statistic


@dataclass(frozen=True)
class LayerRow:
    """One normalization layer of a network.

    `kind` is the name of the norm that it computes ("unknown" for others), `type` its
    class. `groups` is the number of groups of channels. `input` is the shape of its
    first input, with the channels where the network has them, or None if the layer was
    not called. `values` is the number of values in its smallest statistic in all calls,
    and `samples` the number of samples in a statistic; None if unknown. `trainable`
    says whether a gain or a bias requires a gradient. `calls` counts the calls in one
    forward. `after` and `before` name the neighbours that pass on the same tensor.
    """

    name: str
    kind: str
    type: str
    channels: int | None
    groups: int | None
    input: tuple[int, ...] | None
    values: int | None
    samples: int | None
    eps: float | None
    momentum: float | None
    affine: bool
    trainable: bool
    mode: str
    calls: int
    after: str | None
    before: str | None


def layer_rows(model: nn.Module, observation: Observation) -> list[LayerRow]:
    """Return the rows of the norms of `model`, in the order of its modules."""
    return [
        _row(name, module, layer, observation) for name, module, layer in layers(model)
    ]


def _row(
    name: str, module: nn.Module, layer: Layer, observation: Observation
) -> LayerRow:
    seen = observation.norms[name]
    affine = [getattr(module, key, None) for key in ("weight", "bias")]
    parameters = [p for p in affine if isinstance(p, nn.Parameter)]
    eps = getattr(module, "eps", layer.options.get("eps"))
    momentum = getattr(module, "momentum", None)
    groups = _groups(module, layer)
    values = [_values(layer, groups, shape) for shape in seen.shapes]
    return LayerRow(
        name=name,
        kind=layer.kind,
        type=type(module).__name__,
        channels=layer.channels,
        groups=groups,
        input=seen.shapes[0] if seen.shapes else None,
        values=_smallest(values),
        samples=_smallest([_samples(layer, shape) for shape in seen.shapes]),
        eps=float(eps) if isinstance(eps, float) else None,
        momentum=momentum if isinstance(momentum, float) else None,
        affine=any(isinstance(value, torch.Tensor) for value in affine),
        trainable=any(p.requires_grad for p in parameters),
        mode="train" if module.training else "eval",
        calls=seen.calls,
        after=seen.after,
        before=seen.before,
    )


def _smallest(counts: Sequence[int | None]) -> int | None:
    """Return the smallest number, or None if there is none or one is unknown."""
    known = [count for count in counts if count is not None]
    return min(known) if known and len(known) == len(counts) else None


def _groups(module: nn.Module, layer: Layer) -> int | None:
    groups = getattr(module, "num_groups", None)
    if isinstance(groups, int):
        return groups
    return 1 if layer.kind == "layer_sample" else None


def _samples(layer: Layer, shape: Sequence[int]) -> int | None:
    """Return how many samples share a statistic."""
    if layer.kind == "unknown":
        return None
    return shape[0] if REGISTRY.get(layer.kind).uses_other_samples else 1


def _values(layer: Layer, groups: int | None, shape: Sequence[int]) -> int | None:
    """Return the number of values in the smallest statistic of a layer."""
    if layer.kind == "unknown" or len(shape) < 2:
        return None
    norm = REGISTRY.get(layer.kind)
    if layer.channel_axis == -1:
        shape = (shape[0], shape[-1], *shape[1:-1])
    options = {} if groups is None else {"num_groups": groups}
    try:
        of_a_sample = values_in_statistic(norm, options, shape)
    except ValueError:
        return None
    if norm.uses_other_samples:
        # A norm over samples and positions has one value of a sample per position.
        return shape[0] * (of_a_sample or math.prod(shape[2:]))
    return of_a_sample
