"""Measure over which axes the layer norms of a model take their statistics.

"LayerNorm" names several layers. `readings` runs a model on the meta device, which
computes only shapes, and notes the shape that each layer norm gets. On a copy of the
layer with real numbers, it then measures the axes of the statistics. torchvision and
timm have no text models: the tokens of their models are patches of images.
"""

from collections.abc import Sequence
from copy import deepcopy
from functools import partial

import torch
from torch import nn

from normbench.claims import zoos
from normbench.verdicts.counting import Reading

NAMES = ("layernorm", "rmsnorm", "simplenorm")
"""Parts of the lower-case names of classes that are layer norms.

LayerNorm without its mean is RMSNorm. timm's SimpleNorm divides by the standard
deviation and subtracts no mean.
"""
HEAD_NORMS = (
    *("q_norm", "k_norm", "v_norm", "norm_q", "norm_k", "norm_v"),
    *("sub_norm", "norm_act.0"),
)
"""Ends of the names of the layers that normalize each head of an attention apart.

Shapes do not tell heads from windows. "norm_act.0" is in torchvision's MViT, and
"sub_norm" in timm's differential attention.
"""
CUT_LENGTH = 4
"""Entries of a cut axis. The norm of two entries is constant, so two are too few."""


def is_layer_norm(module: nn.Module) -> bool:
    """Return whether a module is a layer norm, RMS norm or GroupNorm of one group."""
    name = type(module).__name__.lower()
    one_group = isinstance(module, nn.GroupNorm) and module.num_groups == 1
    kinds = (nn.LayerNorm, nn.RMSNorm)
    return one_group or isinstance(module, kinds) or any(n in name for n in NAMES)


def readings(model: nn.Module, sample_shape: zoos.SampleShape) -> list[Reading]:
    """Return the reading of each layer norm of a model, for two samples.

    `sample_shape` is called only if there is a layer norm. The model moves to the meta
    device. If it calls a layer several times, the first call counts. Raises what the
    forward of the model raises.
    """
    layers = {name: m for name, m in model.named_modules() if is_layer_norm(m)}
    if not layers:
        return []
    sample = sample_shape(model)
    shapes: dict[str, torch.Size] = {}

    def note(module: nn.Module, inputs: tuple[torch.Tensor], name: str) -> None:
        shapes.setdefault(name, inputs[0].shape)

    handles = [
        layer.register_forward_pre_hook(partial(note, name=name))
        for name, layer in layers.items()
    ]
    with torch.no_grad():
        model.to("meta").eval()(torch.empty(2, *sample, device="meta"))
    for handle in handles:
        handle.remove()
    by_layer: list[Reading] = []
    measured: dict[tuple[object, ...], set[int]] = {}
    for name, layer in layers.items():
        if name not in shapes:
            by_layer.append("not called")
            continue
        weights = [weight.shape for weight in layer.parameters()]
        kind = type(layer), layer.extra_repr(), shapes[name], *weights
        if kind not in measured:
            measured[kind] = axes(layer, shapes[name])
        by_layer.append(_reading(name, shapes[name], measured[kind], sample))
    return by_layer


def axes(layer: nn.Module, shape: Sequence[int]) -> set[int]:
    """Return the axes of the statistics of `layer` for an input of `shape`.

    An axis belongs to the statistics if the derivative of one output by the input is
    not zero at another index of this axis. The layer does not change. The input is cut
    to a few entries along each axis whose length the layer does not fix, so that large
    pictures take no memory.
    """
    copy = deepcopy(layer).to_empty(device="cpu").double().eval()
    for name, parameter in copy.named_parameters():
        nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = _smallest_input(copy, shape)
        x = torch.randn(sizes, dtype=torch.float64, requires_grad=True)
    # An activation behind the norm passes the derivative of the largest output.
    (gradient,) = torch.autograd.grad(copy(x).max(), x)
    used = gradient != 0
    return {
        axis
        for axis in range(x.ndim)
        if used.transpose(0, axis).flatten(1).any(1).sum() > 1
    }


def _smallest_input(layer: nn.Module, shape: Sequence[int]) -> list[int]:
    """Return the shape of two samples, cut along the axes that the layer allows."""
    sizes = [2, *shape[1:]]
    for axis in range(1, len(sizes)):
        cut = [*sizes]
        cut[axis] = min(sizes[axis], CUT_LENGTH)
        try:
            with torch.no_grad():
                layer(torch.zeros(cut, dtype=torch.float64))
        except Exception:  # the layer fixes the length: it is code of another package
            continue
        sizes = cut
    return sizes


def _reading(
    name: str, shape: Sequence[int], measured: set[int], sample: Sequence[int]
) -> Reading:
    """Return the reading of a layer from its measured axes.

    `sample` is the shape of the model's input. Raises ValueError for other axes.
    """
    real = [axis for axis in range(1, len(shape)) if shape[axis] > 1]
    kept = [shape[axis] for axis in range(1, len(shape)) if axis not in measured]
    if real and measured == set(real):
        return "vector" if len(real) == 1 else "C,H,W"
    if len(measured) != 1 or 0 in measured:
        raise ValueError(f"{name} has statistics over the axes {sorted(measured)}")
    if name.endswith(HEAD_NORMS):
        return "head"
    # A grid of positions has the aspect ratio of the picture.
    grid = len(kept) > 1 and kept[-2] * sample[-1] == kept[-1] * sample[-2]
    return "C at each position" if grid else "token"
