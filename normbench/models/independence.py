"""Measure whether the norms of a network let outputs depend on what they should not.

A norm is pointwise apart from its statistics. So if its output changes at a place where
its input did not, its statistics brought the change from elsewhere: from other samples,
from pads, or from the surroundings of a crop.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from normbench.errors import RequestError
from normbench.models.forward import (
    USERS_ERRORS,
    Example,
    call,
    copied_model,
    one_line,
    quietly,
    tensors,
)
from normbench.models.layers import layers

Of = Literal["other_samples", "pads", "surroundings"]
"""What changes: the other samples, appended pads, or the border of images."""
Mode = Literal["train", "eval"]

PADS = 3
"""The number of pads that are appended."""
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Smaller changes, relative to the largest output, count as rounding."""


@dataclass(frozen=True)
class Leak:
    """How far outputs move when something else changes.

    `change` is the largest change relative to the largest output. `layer` is the first
    norm that brings the change, or None. If the output moves without such a norm,
    another part of the network brings it. `leaks` says whether `change` is more than
    rounding.
    """

    of: Of
    mode: Mode
    change: float
    leaks: bool
    layer: str | None


def leak(
    model: nn.Module, example: Example, of: Of, mode: Mode, *, pad: int = 0
) -> Leak:
    """Return how far the outputs of `model` move when what `of` names changes.

    - "other_samples": all samples but the first get other values, and the output of the
      first is compared.
    - "pads": `PADS` tokens `pad` are appended to the second axis of each integer or
      boolean tensor. In a boolean tensor, and in an argument whose name contains
      "mask", they are False or 0. All real positions are compared.
    - "surroundings": the outermost rows and columns of images (N, C, H, W) get other
      values. The outputs of each norm are compared where its input stayed the same.

    In the mode "train" only the norms are in training mode, so that no dropout
    interferes. The computation is in float64 if the network allows it. The model does
    not change. Raises RequestError for an example that does not fit, and if the border
    reaches every position before the first norm.
    """
    if of not in get_args(Of):
        raise RequestError(
            f"of={of!r} is unknown; use one of {', '.join(get_args(Of))}"
        )
    for dtype, tolerance in TOLERANCES.items():
        try:
            copied = _prepared(model, mode, dtype)
            given = _converted(example, dtype)
            other = _CHANGES[of](given, pad)
            before, after = _run(copied, given), _run(copied, other)
        except RequestError:
            raise
        except USERS_ERRORS as error:
            if dtype is torch.float32:
                raise RequestError(f"the forward fails: {one_line(error)}") from error
            continue
        return _compare(before, after, of, mode, tolerance)
    raise AssertionError("the loop returns or raises")


@dataclass
class _Run:
    """The outputs of a forward; inputs and outputs of the norms' first calls."""

    outputs: list[Tensor]
    norms: dict[str, tuple[Tensor, Tensor, int]]


def _prepared(model: nn.Module, mode: Mode, dtype: torch.dtype) -> nn.Module:
    copied = copied_model(model).cpu().to(dtype).eval()
    if mode == "train":
        for _, module, _ in layers(copied):
            module.train()
    return copied


def _converted(example: Example, dtype: torch.dtype) -> Example:
    result: Example = tree_map(
        lambda x: (
            x.cpu().to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x
        ),
        example,
    )
    return result


def _run(model: nn.Module, example: Example) -> _Run:
    """Run a copy of `model`, because a training forward changes buffers."""
    copied = copy.deepcopy(model)
    norms: dict[str, tuple[Tensor, Tensor, int]] = {}
    for name, module, layer in layers(copied):
        module.register_forward_hook(_note(norms, name, layer.channel_axis))
    with quietly(), torch.no_grad():
        torch.manual_seed(0)
        outputs = tensors(call(copied, example))
    if not outputs:
        raise RequestError("the model returns no tensor in floating point")
    if not all(output.isfinite().all() for output in outputs):
        raise RequestError("the model returns values that are not finite")
    return _Run(outputs, norms)


def _note(
    norms: dict[str, tuple[Tensor, Tensor, int]], name: str, axis: int
) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        if name not in norms and args and isinstance(output, Tensor):
            norms[name] = args[0].detach().clone(), output.detach().clone(), axis

    return hook


def _other_samples(example: Example, pad: int) -> Example:
    sizes = {len(x) for x in _inputs(example) if x.dim()}
    if not sizes or max(sizes) < 2:
        raise RequestError("of=other_samples needs an example of at least two samples")
    samples = max(sizes)
    generator = torch.Generator().manual_seed(0)

    def changed(x: Any) -> Any:
        if not isinstance(x, Tensor) or x.dim() == 0 or len(x) != samples:
            return x
        x = x.clone()
        if x.is_floating_point():
            noise = torch.randn(x[1:].shape, generator=generator, dtype=x.dtype)
            x[1:] = 1 + 3 * noise
        elif x.dtype != torch.bool:
            low, high = int(x.min()), int(x.max())
            x[1:] = torch.randint(low, high + 1, x[1:].shape, generator=generator)
        return x

    result: Example = tree_map(changed, example)
    return result


def _pads(example: Example, pad: int) -> Example:
    def appended(x: Any, value: int) -> Any:
        if not isinstance(x, Tensor) or x.is_floating_point() or x.dim() < 2:
            return x
        shape = (x.shape[0], PADS, *x.shape[2:])
        fill = 0 if x.dtype == torch.bool else value
        return torch.cat([x, torch.full(shape, fill, dtype=x.dtype)], 1)

    texts = [x for x in _inputs(example) if not x.is_floating_point() and x.dim() > 1]
    if not texts:
        raise RequestError(
            "of=pads needs an example with token ids: an integer tensor (N, L)"
        )
    if isinstance(example, Mapping):
        return {
            key: appended(x, 0 if "mask" in key else pad) for key, x in example.items()
        }
    if isinstance(example, tuple):
        return tuple(appended(x, pad) for x in example)
    padded: Tensor = appended(example, pad)
    return padded


def _surroundings(example: Example, pad: int) -> Example:
    pictures = [x for x in _inputs(example) if x.is_floating_point() and x.dim() == 4]
    if not pictures:
        raise RequestError("of=surroundings needs an example of images (N, C, H, W)")
    generator = torch.Generator().manual_seed(0)

    def changed(x: Any) -> Any:
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() != 4:
            return x
        other = 1 + 3 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        other[:, :, 1:-1, 1:-1] = x[:, :, 1:-1, 1:-1]
        return other

    result: Example = tree_map(changed, example)
    return result


_CHANGES: dict[str, Callable[[Example, int], Example]] = {
    "other_samples": _other_samples,
    "pads": _pads,
    "surroundings": _surroundings,
}


def _inputs(example: Example) -> list[Tensor]:
    if isinstance(example, Tensor):
        return [example]
    values = example.values() if isinstance(example, Mapping) else example
    return [x for x in values if isinstance(x, Tensor)]


def _compare(before: _Run, after: _Run, of: Of, mode: Mode, tolerance: float) -> Leak:
    first, change_of_norms, any_unchanged = None, 0.0, not before.norms
    for name, (x, y, axis) in before.norms.items():
        other_x, other_y, _ = after.norms[name]
        x, y, other_x, other_y = (_common(t, of, x) for t in (x, y, other_x, other_y))
        if other_x.shape != x.shape or y.shape != x.shape or x.dim() < 2:
            continue
        # A position is compared if its input is the same in all channels.
        moved_input = (x - other_x).abs().amax(axis) > tolerance * x.abs().max()
        moved = (y - other_y).abs().amax(axis)
        scale = y.abs().max().clamp(min=1e-300)
        change = float((torch.where(moved_input, 0, moved) / scale).max())
        any_unchanged |= not bool(moved_input.all())
        if change > tolerance and first is None:
            first = name
        change_of_norms = max(change_of_norms, change)
    if of == "surroundings":
        if not any_unchanged:
            raise RequestError(
                "of=surroundings cannot be measured: the border of the images reaches "
                "every position before the first norm; use larger images"
            )
        change = change_of_norms
    else:
        compared = _cut(before, after, of)
        if not compared[0]:
            raise RequestError(
                "no output has an axis of samples (or of tokens, for pads), so that it "
                "cannot be compared"
            )
        change = max(map(_moved_output, *compared), default=0.0)
    return Leak(of, mode, change, change > tolerance, first)


def _common(x: Tensor, of: Of, like: Tensor) -> Tensor:
    """Return the part of a norm's input or output that can be compared."""
    if of == "pads" and x.dim() > 1 and x.shape[1] != like.shape[1]:
        return x[:, : like.shape[1]]
    if of == "pads" and x.shape[-1] != like.shape[-1]:
        return x[..., : like.shape[-1]]
    return x[:1] if of == "other_samples" else x


def _cut(before: _Run, after: _Run, of: Of) -> tuple[list[Tensor], list[Tensor]]:
    """Return the outputs before and after, cut to what must not move."""
    pairs = zip(before.outputs, after.outputs, strict=True)
    cut = []
    for x, y in pairs:
        if x.dim() == 0:
            continue
        if of == "other_samples":
            x, y = x[:1], y[:1]
        elif x.dim() > 1 and y.shape != x.shape:
            y = y[:, : x.shape[1]]
        if x.shape == y.shape:
            cut.append((x, y))
    return [x for x, _ in cut], [y for _, y in cut]


def _moved_output(x: Tensor, y: Tensor) -> float:
    return float((x - y).abs().max() / x.abs().max().clamp(min=1e-300))
