"""Make the norm that replaces one layer of a network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from normbench.errors import Incompatible
from normbench.models.layers import Layer
from normbench.norms.base import REGISTRY, Norm, make
from normbench.norms.groups import AUTO, auto_groups
from normbench.norms.placement import place

_HOOKS = [name for name in vars(nn.Module()) if "ward" in name and "hook" in name]
"""The attributes of a module with its forward and backward hooks."""


@dataclass(frozen=True)
class SwappedLayer:
    """One layer that was swapped: its name, its class before, and the norm after.

    `options` are those of the new norm, with the number of groups that a default or
    "auto" chose. `notes` say what could not be kept.
    """

    name: str
    before: str
    after: str
    channels: int
    options: dict[str, Any]
    notes: tuple[str, ...] = ()


def reason_to_leave(module: nn.Module, layer: Layer, norm: str) -> str:
    """Return why a layer has to stay as it is, or an empty text."""
    kind = type(module).__name__
    if layer.kind == "unknown":
        return f"the function of {kind} is unknown"
    if layer.kind == "grn" and norm not in ("keep", "grn"):
        return f"{kind} stands beside another norm and does not replace one"
    if norm == "keep" and layer.difference:
        return f"no norm equals {kind}: {layer.difference}"
    if is_parametrized(module):
        return f"the parameters of {kind} are parametrized"
    if layer.kind == "local_response":
        return f"{kind} does not know its number of channels"
    if layer.channels is None and channels_of(module) is None:
        return f"{kind} has no channels yet; call the model once first"
    return ""


def channels_of(module: nn.Module) -> int | None:
    """Return the length of the gain of a module, or None if it has none."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or is_lazy(weight) or weight.dim() != 1:
        return None
    return len(weight)


def replacement(
    name: str,
    module: nn.Module,
    layer: Layer,
    norm: str,
    options: Mapping[str, Any],
    keep_affine: bool,
    make: Callable[..., Norm] = make,
) -> tuple[nn.Module, SwappedLayer]:
    """Return a new norm for the place of `module`, and what to report about it.

    `make(kind, channels, **options)` makes the norm. Raises RequestError if the norm or
    the options do not fit the layer.
    """
    kind = resolve(norm, layer)
    channels = layer.channels or channels_of(module)
    assert channels is not None  # see reason_to_leave
    chosen = resolve_options(kind, layer, options, channels)
    contains_activation = REGISTRY.get(kind).contains_activation
    if REGISTRY.get(layer.kind).contains_activation and not contains_activation:
        raise Incompatible(
            f"{type(module).__name__} contains an activation, and norm={kind} does not"
        )
    # A norm may draw random initial weights. They must not change other draws.
    with torch.random.fork_rng(devices=[]):
        made = make(kind, channels, **chosen)
    notes = []
    after = {child: module.get_submodule(child) for child in layer.after}
    if contains_activation and layer.kind != kind:
        if after.pop("act", None) is None:
            notes.append("the norm contains an activation; a following one stays")
    place(made, layer.channel_axis, after)
    notes += adopt(made, module, layer, chosen, keep_affine)
    if layer.difference:
        notes.append(layer.difference)
    groups = getattr(made, "num_groups", None)
    if isinstance(groups, int) and chosen.get("group_size") is None:
        chosen["num_groups"] = groups
    details = SwappedLayer(
        name, type(module).__name__, kind, channels, chosen, tuple(notes)
    )
    return made, details


def resolve(norm: str, layer: Layer) -> str:
    """Return the norm that `norm` means for a layer."""
    if norm == "keep":
        return layer.kind
    if norm == "layer":
        return "layer_position" if layer.channel_axis == -1 else "layer_sample"
    return norm


def resolve_options(
    kind: str, layer: Layer, given: Mapping[str, Any], channels: int
) -> dict[str, Any]:
    """Return the options of the new norm: those of the layer, and those given.

    A norm of another kind has the epsilon, the momentum and the kind of affine map of
    the layer, as far as it has such options.
    """
    options = dict(given)
    if options.get("num_groups") == AUTO:
        options["num_groups"] = auto_groups(channels)
    if kind == layer.kind:
        inherited = dict(layer.options)
    else:
        known = REGISTRY.options(kind, {})
        inherited = {
            key: layer.options[key]
            for key in ("eps", "momentum", "affine")
            if key in known and layer.options.get(key) is not None
        }
        if layer.options.get("bias") is False and "bias" in known:
            inherited["bias"] = False
    if "group_size" in options:
        inherited.pop("num_groups", None)
    return inherited | options


def adopt(
    made: Norm,
    module: nn.Module,
    layer: Layer,
    options: Mapping[str, Any],
    keep_affine: bool,
) -> Sequence[str]:
    """Give a new norm the state of the layer that it replaces; return what is lost."""
    notes: list[str] = []
    same = layer.kind == made.name
    old = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    like = next((t for t in old.values() if t.is_floating_point()), None)
    if like is not None:
        made.to(device=like.device, dtype=like.dtype)
    new = {**dict(made.named_parameters()), **dict(made.named_buffers())}
    # In some layers the gain is 1 + weight.
    offset = int(_unit_offset(layer.options)) - int(_unit_offset(options))
    state: dict[str, Tensor] = {}
    shared: dict[str, Tensor] = {}
    for key, value in old.items():
        is_affine = key in ("weight", "bias")
        if (not keep_affine and is_affine) or not (same or is_affine):
            continue
        if key not in new:
            if is_affine and not _is_initial(key, value, layer):
                notes.append(f"norm={made.name} has no {key}; its values are lost")
        elif not (same and is_lazy(new[key])) and not _same_shape(new[key], value):
            notes.append(f"{key} has another shape; its values are lost")
        elif _can_share(value, new[key]) and not (offset and key == "weight"):
            shared[key] = value
        elif not value.is_meta:
            state[key] = value.detach() + offset if key == "weight" else value
    made.load_state_dict(state, strict=False)
    for key, parameter in shared.items():  # an optimizer goes on to train them
        owner, _, name = key.rpartition(".")
        setattr(made.get_submodule(owner), name, parameter)
    trainable = {key: p.requires_grad for key, p in module.named_parameters()}
    for key, parameter in made.named_parameters():
        if not is_lazy(parameter):  # whose trainability cannot be changed yet
            trains = trainable.get(key, any(trainable.values()))
            parameter.requires_grad_(trains)
    made.train(module.training)
    for key in _HOOKS:  # the new layer shares them, so that handles can remove them
        setattr(made, key, getattr(module, key))
    return notes


def _can_share(old: Tensor, new: Tensor) -> bool:
    """Return whether the new norm can have the parameter of the old layer itself."""
    return isinstance(old, nn.Parameter) and isinstance(new, nn.Parameter)


def _same_shape(a: Tensor, b: Tensor) -> bool:
    return not is_lazy(a) and a.shape == b.shape


def _unit_offset(options: Mapping[str, Any]) -> bool:
    return bool(options.get("unit_offset"))


def _is_initial(key: str, value: Tensor, layer: Layer) -> bool:
    """Return whether a gain or a bias has its initial values."""
    initial = int(key == "weight" and not _unit_offset(layer.options))
    return value.is_meta or bool((value == initial).all())
