"""Replace the norms of any network by another norm, and back."""

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from normbench.errors import RequestError
from normbench.models.forward import Example, call, copied_model, quietly
from normbench.models.layers import Layer, layers, readable
from normbench.models.replacement import SwappedLayer, reason_to_leave, replacement
from normbench.norms.base import Norm
from normbench.norms.groups import AUTO_RULE

Where = str | Callable[[str, nn.Module], bool]
"""Which norms to swap: a regular expression for a part of their names, or a predicate
of the name and the module."""


@dataclass
class SwapReport:
    """The result of `swap`.

    `model` has the new norms. `layers` were swapped; `left` maps the name of each other
    norm to the reason why it stayed. `rule` explains the options that were chosen.
    `str` of the report is a line for each of these layers.
    """

    model: nn.Module
    layers: list[SwappedLayer]
    left: dict[str, str]
    rule: str = ""
    _old: list[tuple[str, nn.Module, nn.Module]] = field(
        default_factory=list, repr=False
    )
    _fast_paths: list[tuple[nn.Module, str, object]] = field(
        default_factory=list, repr=False
    )

    def __str__(self) -> str:
        count = f"{len(self.layers)} layer{'s' if len(self.layers) != 1 else ''}"
        lines = [f"{count} of {type(self.model).__name__} swapped"]
        for layer in self.layers:
            options = ", ".join(f"{k}={v}" for k, v in layer.options.items())
            new = f"{layer.after}({', '.join([str(layer.channels), options])})"
            notes = "".join(f"; {note}" for note in layer.notes)
            lines.append(f"{readable(layer.name)}: {layer.before} -> {new}{notes}")
        for name, reason in self.left.items():
            lines.append(f"{readable(name)} stays: {reason}")
        return "\n".join([*lines, *filter(None, [self.rule])])

    def undo(self) -> nn.Module:
        """Put the layers of before the swap back into `model`, and return it.

        Parameters that old and new layers share keep their values, and running
        statistics are those of before the swap. Raises RequestError if a later swap
        replaced a norm of this one; undo that swap first.
        """
        for name, _, made in self._old:
            if self.model.get_submodule(name) is not made:
                raise RequestError(
                    f"a later swap replaced layer {readable(name)}; undo that swap "
                    "first"
                )
        for name, module, _ in self._old:
            self.model = put(self.model, name, module)
        for module, attribute, value in self._fast_paths:
            setattr(module, attribute, value)
        self._old, self._fast_paths = [], []
        return self.model

    def drift(self, example: Example) -> dict[str, float]:
        """Return how far the swap moved the output of each swapped layer, by name.

        This is the root mean square of the change, relative to that of the output
        before, in evaluation mode. It contains the changes of earlier layers.
        """
        before = copy.deepcopy(self)
        names = [layer.name for layer in self.layers]
        old = _outputs(before.undo(), names, example)
        new = _outputs(copy.deepcopy(self.model), names, example)
        return {
            name: float(_rms(new[name] - x) / _rms(x).clamp(min=1e-30))
            for name, x in old.items()
            if name in new and new[name].shape == x.shape
        }


def _outputs(
    model: nn.Module, names: Sequence[str], example: Example
) -> dict[str, Tensor]:
    """Return the output of the first call of each named layer in evaluation mode."""
    outputs: dict[str, Tensor] = {}

    def noted(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if name not in outputs and isinstance(output, Tensor):
                outputs[name] = output.detach().clone()

        return hook

    for name in names:
        model.get_submodule(name).register_forward_hook(noted(name))
    with quietly(), torch.no_grad():
        call(model.eval(), example)
    return outputs


def _rms(x: Tensor) -> Tensor:
    return x.double().square().mean().sqrt()


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
    gain and bias: the parameters themselves, so that an optimizer goes on to train
    them. It has the same epsilon and momentum unless `options` set them. If the old
    layer computes the same function, it has a copy of the running statistics too.

    `num_groups="auto"` chooses the groups by `AUTO_RULE`. With `in_place=False`, a copy
    of the model is changed. If the model itself is the norm, the new one is in the
    report only. After an error, the model is as it was. Layers that cannot be swapped
    are in `left` of the report, with the reason.

    Raises RequestError if no layer matches, if a name or an option is unknown, or if a
    layer cannot be swapped; the message names the layer.
    """
    if not in_place:
        model = copied_model(model)
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
            raise type(error)(f"layer {readable(name)}: {error}") from None
        new.append((name, made))
        swapped.append(details)
    old = [(name, model.get_submodule(name), made) for name, made in new]
    for name, made in new:
        model = put(model, name, made)
    rule = AUTO_RULE if num_groups == "auto" else ""
    return SwapReport(model, swapped, left, rule, old, turn_off_fast_paths(model))


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
        names = ", ".join(readable(name) for name, _, _ in every[:5])
        raise RequestError(
            f"where={where} selects none of the {len(every)} norms of the model; their "
            f"names are {names}{', ...' if len(every) > 5 else ''}"
        )
    return chosen


def turn_off_fast_paths(model: nn.Module) -> list[tuple[nn.Module, str, object]]:
    """Make Transformer layers of torch call their norms; return what was changed.

    In evaluation without gradients, torch.nn.TransformerEncoderLayer may compute a
    LayerNorm from the parameters of its norms instead of calling them, and
    torch.nn.TransformerEncoder packs its input for that. The result has modules, names
    of attributes, and their values before.
    """
    changed: list[tuple[nn.Module, str, object]] = []
    for module in model.modules():
        if not isinstance(module, nn.TransformerEncoder | nn.TransformerEncoderLayer):
            continue
        if not any(isinstance(child, Norm) for child in module.modules()):
            continue
        if isinstance(module, nn.TransformerEncoder):
            attribute, value = "use_nested_tensor", False
        else:  # without such an activation, torch takes the usual path
            attribute, value = "activation_relu_or_gelu", False
        changed.append((module, attribute, getattr(module, attribute)))
        setattr(module, attribute, value)
    return changed


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
