"""Replace the norms of any network by another norm, and back."""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normbench.errors import Incompatible, RequestError
from normbench.models.layers import Layer, layers
from normbench.norms.base import REGISTRY, Norm, make
from normbench.norms.placement import place

MAX_GROUPS = 32
"""The number of groups of `num_groups="auto"` if there are enough channels (Wu & He
2018)."""
MIN_GROUP_SIZE = 4
"""The fewest channels in a group of `num_groups="auto"`."""
AUTO_RULE = (
    f"num_groups=auto takes the largest divisor of the channels that is at most "
    f"{MAX_GROUPS} and leaves at least {MIN_GROUP_SIZE} channels in a group, or 1"
)

Where = str | Callable[[str, nn.Module], bool]
"""Which norms to swap: a regular expression for a part of their names, or a predicate
of the name and the module."""

_HOOKS = [name for name in vars(nn.Module()) if "ward" in name and "hook" in name]
"""The attributes of a module with its forward and backward hooks."""


@dataclass(frozen=True)
class SwappedLayer:
    """One layer that was swapped: its name, its class before, and the norm after.

    `options` are those of the new norm. `notes` say what could not be kept.
    """

    name: str
    before: str
    after: str
    channels: int
    options: dict[str, Any]
    notes: tuple[str, ...] = ()


@dataclass
class SwapReport:
    """The result of `swap`.

    `model` has the new norms. `layers` were swapped; `left` maps the name of each other
    norm to the reason why it stayed. `rule` explains the options that were chosen.
    """

    model: nn.Module
    layers: list[SwappedLayer]
    left: dict[str, str]
    rule: str = ""
    _old: list[tuple[str, nn.Module]] = field(default_factory=list, repr=False)

    def undo(self) -> nn.Module:
        """Put the layers of before the swap back into `model`, and return it.

        They have their own values: training after the swap did not change them.
        """
        for name, module in self._old:
            self.model = put(self.model, name, module)
        self._old = []
        return self.model


def swap(
    model: nn.Module,
    norm: str,
    *,
    where: Where | None = None,
    keep_affine: bool = True,
    in_place: bool = True,
    num_groups: int | Literal["auto"] | None = None,
    **options: Any,
) -> SwapReport:
    """Replace the norms of `model` by new norms, and report what was done.

    `norm` and `options` are those of `norms.make`; "keep" takes for each layer the norm
    of this package that equals it. "layer" means `layer_position` for a layer with the
    channels in the last axis, and `layer_sample` for others. A new norm has the name,
    hooks, device, dtype, training mode and trainability of the old layer, and applies
    the same activation if the old layer had one. With `keep_affine` it has the same
    gain and bias. It has the same epsilon and momentum unless `options` set them. If
    the old layer computes the same function, the running statistics are kept too.

    `num_groups="auto"` chooses the groups by `AUTO_RULE`. With `in_place=False`, a copy
    of the model is changed. Either all layers are swapped, or the model stays as it is.

    Raises RequestError if no layer matches, if a name or an option is unknown, or if a
    layer cannot be swapped; the message names the layer.
    """
    if not in_place:
        model = copy.deepcopy(model)
    new: list[tuple[str, nn.Module]] = []
    swapped: list[SwappedLayer] = []
    left: dict[str, str] = {}
    selected = _selected(model, where)
    for name, module, layer in selected:
        reason = reason_to_leave(module, layer, norm)
        if reason:
            left[name] = reason
            continue
        given = dict(options)
        if num_groups is not None:
            given["num_groups"] = num_groups
        try:
            made, details = replacement(name, module, layer, norm, given, keep_affine)
        except RequestError as error:
            raise type(error)(f"layer {name or 'the model'}: {error}") from None
        new.append((name, made))
        swapped.append(details)
    old = [(name, model.get_submodule(name)) for name, _ in new]
    for name, made in new:
        model = put(model, name, made)
    rule = AUTO_RULE if num_groups == "auto" else ""
    return SwapReport(model, swapped, left, rule, old)


def _selected(
    model: nn.Module, where: Where | None
) -> list[tuple[str, nn.Module, Layer]]:
    """Return the norms of `model` that `where` selects; raise RequestError if none."""
    every = list(layers(model))
    if not every:
        raise RequestError(f"{type(model).__name__} has no normalization layer")
    if isinstance(where, str):
        try:
            pattern = re.compile(where)
        except re.error as error:
            raise RequestError(
                f"where={where!r} is not a regular expression: {error}"
            ) from None
        chosen = [entry for entry in every if pattern.search(entry[0])]
    elif where is not None:
        chosen = [entry for entry in every if where(entry[0], entry[1])]
    else:
        chosen = every
    if not chosen:
        names = ", ".join(name for name, _, _ in every[:5])
        raise RequestError(
            f"where={where} selects none of the {len(every)} norms of the model; their "
            f"names are {names}{', ...' if len(every) > 5 else ''}"
        )
    return chosen


def reason_to_leave(module: nn.Module, layer: Layer, norm: str) -> str:
    """Return why a layer has to stay as it is, or an empty text."""
    kind = type(module).__name__
    if layer.kind == "unknown":
        return f"the function of {kind} is unknown"
    if norm == "keep" and layer.difference:
        return f"no norm equals {kind}: {layer.difference}"
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
    notes += adopt(made, module, layer, keep_affine)
    if layer.difference:
        notes.append(layer.difference)
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

    Options that only the old layer has are left out.
    """
    options = dict(given)
    if options.get("num_groups") == "auto":
        options["num_groups"] = auto_groups(channels)
    known = REGISTRY.options(kind, {})
    inherited = dict(layer.options) if kind == layer.kind else {}
    kept: dict[str, Any] = {
        key: layer.options[key] for key in ("eps", "momentum") if key in layer.options
    }
    if layer.options.get("affine") is False:
        kept["affine"] = False
    merged = {k: v for k, v in {**kept, **inherited}.items() if k in known}
    if "group_size" in options:
        merged.pop("num_groups", None)
    return merged | options


def auto_groups(channels: int) -> int:
    """Return the number of groups of `AUTO_RULE`."""
    most = min(MAX_GROUPS, channels // MIN_GROUP_SIZE)
    return next((n for n in range(most, 0, -1) if channels % n == 0), 1)


def adopt(
    made: Norm, module: nn.Module, layer: Layer, keep_affine: bool
) -> Sequence[str]:
    """Give a new norm the state of the layer that it replaces; return what is lost."""
    notes: list[str] = []
    same = layer.kind == made.name
    old = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    like = next((t for t in old.values() if t.is_floating_point()), None)
    if like is not None:
        made.to(device=like.device, dtype=like.dtype)
    new = {**dict(made.named_parameters()), **dict(made.named_buffers())}
    with torch.no_grad():
        for key, value in old.items():
            is_affine = key in ("weight", "bias")
            if (not keep_affine and is_affine) or not (same or is_affine):
                continue
            if key not in new:
                if is_affine and not _is_initial(key, value):
                    notes.append(f"norm={made.name} has no {key}; its values are lost")
            elif is_lazy(new[key]) or new[key].shape != value.shape:
                notes.append(f"{key} has another shape; its values are lost")
            elif not value.is_meta:
                new[key].copy_(value)
    trainable = {key: p.requires_grad for key, p in module.named_parameters()}
    for key, parameter in made.named_parameters():
        if is_lazy(parameter):  # its trainability cannot be changed yet
            continue
        parameter.requires_grad_(trainable.get(key, any(trainable.values())))
    made.train(module.training)
    for key in _HOOKS:  # the new layer shares them, so that handles can remove them
        setattr(made, key, getattr(module, key))
    return notes


def _is_initial(key: str, value: Tensor) -> bool:
    """Return whether a gain or a bias has its initial values."""
    return value.is_meta or bool((value == (1 if key == "weight" else 0)).all())


def put(model: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """Put `module` in the place `name` of a model, and return the model.

    The place of the model itself has an empty name. A module that is registered at
    several places is replaced at each of them.
    """
    if not name:
        return module
    old = model.get_submodule(name)
    for parent in list(model.modules()):
        for child, registered in list(parent._modules.items()):
            if registered is old:
                parent._modules[child] = module
    return model
