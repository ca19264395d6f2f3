"""A network of the user's own: its norms from a factory, its inputs and its output."""

import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn

from normbench.errors import Incompatible, RequestError
from normbench.models.layers import Layer, layers, readable
from normbench.models.replacement import reason_to_leave, replacement
from normbench.models.swapping import put, turn_off_fast_paths
from normbench.norms.base import REGISTRY, Norm
from normbench.norms.factory import NormFactory
from normbench.norms.ghost import Ghost

MASK_NAMES = ("attention_mask", "mask")
"""Parameters of a forward that get the mask of a text, the first that exists."""


class Classifier(nn.Module):
    """Calls `network` with the inputs of a task, and returns logits (B, classes).

    `forward` takes images (B, C, H, W), or tokens (B, T) and their mask (B, T) bool. It
    raises RequestError if the output of the network has another form. `name` is the
    name of the network in this message.
    """

    def __init__(self, network: nn.Module, name: str, classes: int) -> None:
        super().__init__()
        self.network, self.name, self.classes = network, name, classes
        self.mask_name = mask_name(network)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        arguments = masks(self.mask_name, mask)
        output: Any
        if torch.compiler.is_compiling():  # redirect_stdout would break the graph
            output = self.network(x, **arguments)
        else:
            output = self._call(x, arguments)
        logits = output if isinstance(output, Tensor) else getattr(output, "logits", 0)
        if not isinstance(logits, Tensor) or logits.shape != (len(x), self.classes):
            raise RequestError(self._wrong_output(output, logits, len(x)))
        return logits

    def _call(self, x: Tensor, arguments: dict[str, Tensor]) -> Any:
        try:
            with redirect_stdout(sys.stderr):  # --json prints to standard output
                return self.network(x, **arguments)
        except SystemExit as error:  # which would end the program without a record
            raise RuntimeError(f"{self.name} calls sys.exit({error.code})") from error

    def _wrong_output(self, output: object, logits: object, samples: int) -> str:
        kind = type(output).__name__
        if isinstance(logits, Tensor):
            attribute = "" if logits is output else ".logits"
            kind += f"{attribute} of shape {tuple(logits.shape)}"
        return (
            f"task.model={self.name} returns {kind}, but {samples} samples of "
            f"{self.classes} classes need a Tensor of shape "
            f"{(samples, self.classes)}, or an object with such a Tensor as .logits; "
            f"if the factory has an option for it, set it, such as "
            f"task.model_options.num_classes={self.classes}"
        )


def mask_name(network: nn.Module) -> str | None:
    """Return the parameter of the forward of `network` that takes a mask, or None."""
    parameters = inspect.signature(network.forward).parameters
    return next((name for name in MASK_NAMES if name in parameters), None)


def masks(name: str | None, mask: Tensor | None) -> dict[str, Tensor]:
    """Return the argument `name` of a forward for a `mask`: int64 or bool."""
    if name is None or mask is None:
        return {}
    return {name: mask.long() if name == "attention_mask" else mask}


def with_norms(
    network: nn.Module, factory: NormFactory, where: str | None, *, has_masks: bool
) -> tuple[nn.Module, list[str]]:
    """Replace the norms of `network` by norms of `factory`; return it and the rest.

    The rest are sentences about norms that stay although their run could go wrong. With
    the norm "keep", and for norms whose name `where` does not match, the new norm is
    the one that equals the layer. `has_masks` says whether the inputs are padded.

    Raises RequestError if no norm can be replaced, and Incompatible if the new norm
    does not fit a layer; the message names the layer.
    """
    if has_masks and _needs_mask(factory.name):
        raise Incompatible(
            "its statistics leave out padding, but a network of your own does not "
            "pass the mask to its norms"
        )
    every = list(layers(network))
    chosen = {name for name, _, _ in every if _matches(where, name)}
    if where is not None and not chosen:
        raise RequestError(
            f"task.where={where} matches none of the {len(every)} norms of the "
            f"network: {', '.join(readable(name) for name, _, _ in every[:5])}"
        )
    new: dict[str, nn.Module] = {}
    left: dict[str, str] = {}
    for name, module, layer in every:
        norm = factory.name if name in chosen else "keep"
        reason = reason_to_leave(module, layer, norm)
        if reason:
            left[name] = reason
            continue
        try:
            new[name] = _made(name, module, layer, norm, factory)
        except RequestError as error:
            raise type(error)(f"layer {readable(name)}: {error}") from None
    if factory.name != "keep" and not chosen & new.keys():
        reasons = "; ".join(left.values()) or "it has none"
        raise RequestError(
            f"norm={factory.name} replaces no norm of the network: {reasons}; use "
            "norm=keep"
        )
    sentences = list(_sentences(every, left, chosen if factory.name != "keep" else ()))
    for name, module in new.items():
        network = put(network, name, module)
    turn_off_fast_paths(network)
    return network, sentences


def _matches(where: str | None, name: str) -> bool:
    try:
        return where is None or re.search(where, name) is not None
    except re.error as error:
        raise RequestError(
            f"task.where={where} is not a regular expression: {error}"
        ) from None


def _needs_mask(norm: str) -> bool:
    """Return whether a norm takes statistics of several positions, the real ones."""
    cls = REGISTRY.get(norm)
    return cls.honours_mask and "all positions" in cls.axes


def _made(
    name: str, module: nn.Module, layer: Layer, norm: str, factory: NormFactory
) -> nn.Module:
    """Return a new norm of `factory` in the layout of the layer `module`.

    Raises RequestError or Incompatible if it does not fit.
    """
    if factory.noise is not None and (layer.channel_axis != 1 or layer.after):
        raise Incompatible(
            f"norm_noise needs norms with the channels in the second axis and without "
            f"an activation inside, unlike {type(module).__name__}; use "
            "norm_noise.kind=none"
        )
    made: list[nn.Module] = []

    def make(kind: str, channels: int, **options: Any) -> Norm:
        made.append(factory.other(kind, options)(channels))
        last = factory.modules[-1]
        return last.norm if isinstance(last, Ghost) else last

    options = factory.options if norm != "keep" else {}
    replacement(name, module, layer, norm, options, True, make)
    return made[0]


def _sentences(
    every: list[tuple[str, nn.Module, Layer]],
    left: dict[str, str],
    asked: set[str] | tuple[()],
) -> Iterator[str]:
    """Yield a sentence for each norm that stays and was asked for or is unsafe."""
    for name, module, layer in every:
        if name not in left:
            continue
        norm = f"the norm {readable(name)} ({type(module).__name__})"
        stays = f"{norm} stays as it is, because {left[name]}"
        if layer.kind != "unknown" and REGISTRY.get(layer.kind).uses_other_samples:
            yield (
                f"{stays}; norm_batch does not apply to it, and its running statistics "
                "are not recomputed in an evaluation"
            )
        elif name in asked:
            yield stays
