"""Prepare a norm with random parameters and a random input for measurements.

All calls of a Subject start from the same state, so that they can be compared.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normbench.norms.base import Norm

FORWARDS_AFTER_WARMUP = 1_000_000
"""The count of training forwards that a norm starts with, beyond any warm-up."""

_HOOK_ATTRIBUTES = frozenset(key for key in vars(nn.Module()) if "hooks" in key)
_IMMUTABLE_TYPES = (bool, int, float, str, torch.Size, torch.dtype)

Module = TypeVar("Module", bound=nn.Module)


class Mode(StrEnum):
    """The modes in which a norm may compute different functions."""

    train = "train"
    first = "first step"
    """The first training forward of a new norm, when a warm-up starts."""
    eval = "eval"


def modes(norm: Norm) -> list[Mode]:
    """Return all modes. `Mode.first` is left out if `norm` does not count forwards."""
    return [mode for mode in Mode if mode is not Mode.first or _counters(norm)]


@dataclass(frozen=True)
class Subject:
    """A norm and its arguments in float64; each call uses a fresh copy of the norm."""

    norm: Norm
    x: Tensor
    mask: Tensor | None
    condition: Tensor
    random_state: Tensor

    def __call__(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Apply a copy of the norm to `x`; every call starts from the same state."""
        return self.apply(self.copy(), x, mask)

    def copy(self) -> Norm:
        """Return a copy of the norm with its own buffers and shared parameters."""
        return _copy(self.norm)

    def apply(self, norm: Norm, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Apply `norm` to `x`; every call starts from the same global random state."""
        torch.set_rng_state(self.random_state)
        y: Tensor = norm(x, self.mask if mask is None else mask, self.condition)
        return y


def subject(
    norm: Norm, shape: Sequence[int], mode: Mode, seed: int, masked: bool = False
) -> Subject:
    """Return a Subject: a copy of `norm` in `mode` with a random state, and an input.

    In parameters and buffers, zeros become U(-1/2, 1/2), and other values are
    multiplied by U(1/2, 1). So no gain is 0, no gate is at 0 or 1, and variances stay
    positive. The input is N(shift, 1); the shift is 0, 1 or -1, depending on the seed.
    The input is close to the running statistics, so that limits such as those of batch
    renormalization are not reached. With `masked`, every sample of (N, C, T) ends in
    masked positions, whose values are random too.
    """
    generator = torch.Generator().manual_seed(seed)
    norm = deepcopy(norm).double()
    if any(is_lazy(parameter) for parameter in norm.parameters()):
        with torch.no_grad():  # the first forward gives lazy parameters their shape
            norm.eval()(torch.zeros(*shape, dtype=torch.float64))
    _randomise(norm, generator)
    if mode is not Mode.first:
        for counter in _counters(norm):
            counter.fill_(FORWARDS_AFTER_WARMUP)
    shift = (0.0, 1.0, -1.0)[seed % 3]
    x = torch.randn(*shape, generator=generator, dtype=torch.float64) + shift
    return Subject(
        norm=norm.train(mode is not Mode.eval),
        x=x,
        mask=padding(shape) if masked else None,
        condition=torch.zeros(shape[0], dtype=torch.int64),
        random_state=torch.random.get_rng_state(),
    )


def padding(shape: Sequence[int]) -> Tensor:
    """Return a mask (N, T), True at real positions; every sample ends in padding."""
    samples, length = shape[0], shape[-1]
    lengths = (length - 1 - 2 * torch.arange(samples)).clamp(min=3)
    return torch.arange(length) < lengths[:, None]


@torch.no_grad()
def _randomise(norm: Norm, generator: torch.Generator) -> None:
    for tensor in (*norm.parameters(), *norm.buffers()):
        if tensor.is_floating_point():
            u = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(torch.where(tensor == 0, u - 0.5, tensor * (u + 1) / 2))


def _copy(module: Module) -> Module:
    """Copy a module ten times as fast as deepcopy; the copy shares the parameters."""
    copied = module.__class__.__new__(module.__class__)
    for key, part in vars(module).items():
        if key == "_modules":
            part = {name: child and _copy(child) for name, child in part.items()}
        elif key == "_buffers":
            part = {name: b if b is None else b.clone() for name, b in part.items()}
        elif key == "_parameters":
            part = dict(part)
        elif not (  # hooks and values that cannot change are shared with the copy
            key in _HOOK_ATTRIBUTES
            or part is None
            or isinstance(part, _IMMUTABLE_TYPES)
        ):
            part = deepcopy(part)
        copied.__dict__[key] = part
    return copied


def _counters(norm: Norm) -> list[Tensor]:
    """Return the integer scalar buffers, which count training forwards."""
    return [
        buffer
        for buffer in norm.buffers()
        if buffer.dim() == 0
        and not (buffer.is_floating_point() or buffer.dtype == torch.bool)
    ]
