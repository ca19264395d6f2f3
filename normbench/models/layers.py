"""Recognise the normalization layers of torch, torchvision, timm and Transformers.

A layer is recognised by its class. Subclasses count as their base class, so that the
layers of most libraries are covered. Layers of other base classes, such as the RMSNorm
of each model of Hugging Face, are recognised by the name of the class.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

from normbench.norms.base import Norm
from normbench.norms.ghost import Ghost

Value = bool | int | float | None
"""The value of an option of a norm."""

FLOAT32_EPS = torch.finfo(torch.float32).eps
"""The epsilon of torch.nn.RMSNorm in float32 if its `eps` is None."""

_WITH_ACTIVATION = {
    "EvoNorm2dB0": "evonorm_b0",
    "EvoNorm2dS0": "evonorm_s0",
    "FilterResponseNormTlu2d": "filter_response",
}
"""Classes of timm that normalize and apply a non-linearity in one formula."""

_NORM_NAME = re.compile(r"Norm(Act)?(\d+d)?(B\d|S\d)?a?(Fp32|Tlu2d)?$")
"""Matches the class names of layers that normalize, by the usual conventions."""


@dataclass(frozen=True)
class Layer:
    """A normalization layer of any package, in the terms of this package.

    `kind` is the name of the norm that computes the same function, or "unknown".
    `options` are the options with which that norm equals the layer. `channel_axis` is
    the axis of the channels in its input, 1 or -1. `after` are the children that the
    layer applies to the result, in their order, such as the activation of a layer of
    timm. `difference` says in which respect the layer differs from that norm; it is
    empty if it does not differ.
    """

    kind: str
    channels: int | None
    options: dict[str, Value] = field(default_factory=dict)
    channel_axis: int = 1
    after: tuple[str, ...] = ()
    difference: str = ""


def layers(model: nn.Module) -> Iterator[tuple[str, nn.Module, Layer]]:
    """Yield the name, the module and the description of each norm of `model`.

    A module that is registered under several names is yielded once, with its first
    name. The parts of a norm are not yielded.
    """
    inside: str | None = None
    quantized: str | None = None
    for name, module in model.named_modules():
        if inside is not None and name.startswith(inside):
            continue
        if type(module).__module__.startswith("torch.ao."):
            quantized = f"{name}." if name else ""
        layer = describe(module)
        if layer is not None and quantized is not None and name.startswith(quantized):
            layer = Layer("unknown", layer.channels)  # its owner reads its tensors
        if layer is not None:
            inside = f"{name}."
            yield name, module, layer


def readable(name: str) -> str:
    """Return the name of a module for a sentence: a name such as 1.0 gets quotes."""
    if not name:
        return "the model"
    return name if re.search("[^\\d.]", name) else f'"{name}"'


def describe(module: nn.Module) -> Layer | None:
    """Return the description of a normalization layer, or None for other modules."""
    if isinstance(module, Ghost):
        module = module.norm
    if isinstance(module, Norm):
        return Layer(module.name, module.channels, channel_axis=module.channel_axis)
    for base, describe_base in _BASES.items():
        if isinstance(module, base):
            return describe_base(module)
    return _by_name(module)


def _batch(module: nn.Module) -> Layer:
    assert isinstance(module, _BatchNorm)
    options: dict[str, Value] = {
        "eps": module.eps,
        "affine": module.affine,
        "momentum": module.momentum,
        "track_running_stats": module.track_running_stats,
    }
    differences = []
    if isinstance(module, nn.SyncBatchNorm):
        differences.append("it shares its statistics between processes")
    if type(module).__name__ == "SplitBatchNorm2d":
        differences.append("it has separate statistics for parts of the batch")
    return Layer(
        "batch",
        module.num_features or None,  # a lazy layer has 0 features
        options,
        after=_children(module),
        difference=", and ".join(differences),
    )


def _instance(module: nn.Module) -> Layer:
    assert isinstance(module, _InstanceNorm)
    difference = "it has running statistics" if module.track_running_stats else ""
    return Layer(
        "instance",
        module.num_features or None,
        {"eps": module.eps, "affine": module.affine},
        difference=difference,
    )


def _group(module: nn.Module) -> Layer:
    assert isinstance(module, nn.GroupNorm)
    options: dict[str, Value] = {"eps": module.eps, "affine": module.affine}
    if module.num_groups == 1:
        return Layer(
            "layer_sample", module.num_channels, options, after=_children(module)
        )
    options["num_groups"] = module.num_groups
    return Layer("group", module.num_channels, options, after=_children(module))


def _layer(module: nn.Module) -> Layer:
    assert isinstance(module, nn.LayerNorm)
    shape = module.normalized_shape
    if len(shape) > 1:
        affine = module.elementwise_affine and module.bias is not None
        difference = "" if affine else "it has no affine map"
        return Layer("layer_shape", shape[0], {"eps": module.eps}, 1, (), difference)
    options: dict[str, Value] = {
        "eps": module.eps,
        "affine": module.elementwise_affine,
        "bias": module.bias is not None or not module.elementwise_affine,
    }
    return Layer(
        "layer_position", shape[0], options, _channel_axis(module), _children(module)
    )


def _rms(module: nn.Module) -> Layer:
    assert isinstance(module, nn.RMSNorm)
    shape, eps = module.normalized_shape, module.eps
    if len(shape) > 1:
        return Layer("unknown", None, difference="it normalizes several axes")
    return Layer(
        "rms",
        shape[0],
        {
            "eps": FLOAT32_EPS if eps is None else eps,
            "affine": module.elementwise_affine,
        },
        -1,
    )


def _local_response(module: nn.Module) -> Layer:
    assert isinstance(module, nn.LocalResponseNorm)
    options: dict[str, Value] = {
        "size": module.size,
        "alpha": module.alpha / module.size,
        "beta": module.beta,
        "k": module.k,
    }
    return Layer("local_response", None, options)


_BASES = {
    _BatchNorm: _batch,
    _InstanceNorm: _instance,
    nn.GroupNorm: _group,
    nn.LayerNorm: _layer,
    nn.RMSNorm: _rms,
    nn.LocalResponseNorm: _local_response,
}


def _by_name(module: nn.Module) -> Layer | None:
    """Return the description of a layer of another base class by its name."""
    name = type(module).__name__
    if type(module).__module__.startswith("torch.nn.utils."):
        return None  # a parametrization of a weight
    weight = getattr(module, "weight", None)
    eps = getattr(module, "eps", getattr(module, "variance_epsilon", None))
    options: dict[str, Value] = {} if not isinstance(eps, float) else {"eps": eps}
    channels = None
    if isinstance(weight, torch.Tensor) and not is_lazy(weight) and weight.dim() == 1:
        channels = len(weight)
    if name == "GlobalResponseNorm":
        axis = 1 if getattr(module, "channel_dim", -1) == 1 else -1
        return Layer("grn", channels, options, axis)
    if name in ("FrozenBatchNorm2d", "FrozenBatchNormAct2d"):
        return Layer("frozen_batch", channels, options, after=_children(module))
    is_rms = re.search("rms_?norm", name, re.I) or name.endswith("T5LayerNorm")
    is_layer = name.endswith("LayerNorm")
    is_known = bool(is_rms) or is_layer or name in _WITH_ACTIVATION
    if not (is_known or _NORM_NAME.search(name)) or not _is_one_layer(module):
        return None
    after = _children(module)
    if name in _WITH_ACTIVATION:
        difference = "its parameters may have other names"
        return Layer(_WITH_ACTIVATION[name], channels, options, difference=difference)
    if not is_known:
        return Layer("unknown", channels, after=after)
    options["affine"] = channels is not None
    if "Gemma" in name:  # the gain is 1 + weight
        options["unit_offset"] = True
    kind = "rms" if is_rms else "layer_position"
    return Layer(kind, channels, options, _channel_axis(module), after)


def _is_one_layer(module: nn.Module) -> bool:
    """Return whether a module has no layer inside, except for an activation.

    A module such as `PreNorm`, which contains a norm and what follows it, has one.
    """
    children = list(module.modules())[1:]
    parameters = (p for child in children for p in child.parameters())
    flat = all(is_lazy(p) or p.dim() < 2 for p in parameters)
    return flat and not any(map(describe, children))


def _channel_axis(module: nn.Module) -> int:
    """Return 1 for the classes whose name says that they have two spatial axes."""
    return 1 if re.search(r"\dd", type(module).__name__) else -1


def _children(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the children that a norm of timm applies to its result."""
    children = dict(module.named_children())
    return tuple(
        name
        for name in ("drop", "act")
        if name in children and not isinstance(children[name], nn.Identity)
    )
