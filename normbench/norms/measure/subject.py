"""A norm in a random state, on a random input, called from the same state each time."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normbench.norms.base import Norm

MANY = 1_000_000
"""The training forwards that a norm has counted: past any warm-up."""

_HOOKS = frozenset(key for key in vars(nn.Module()) if "hooks" in key)
_IMMUTABLE = (bool, int, float, str, torch.Size, torch.dtype)

M = TypeVar("M", bound=nn.Module)


class Mode(StrEnum):
    """The states in which a norm may compute different functions."""

    train = "train"
    first = "first step"
    """Training, its counters as built: where a warm-up begins."""
    eval = "eval"


def modes(norm: Norm) -> list[Mode]:
    """The modes in which `norm` can differ: only one that counts has a first step."""
    return [mode for mode in Mode if mode is not Mode.first or _counters(norm)]


@dataclass(frozen=True)
class Subject:
    """A norm and its arguments, all float64; each call is the first of a copy."""

    norm: Norm
    x: Tensor
    mask: Tensor | None
    condition: Tensor
    random: Tensor

    def __call__(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """A copy of the norm, applied to `x` from the same state each time."""
        return self.on(self.copy(), x, mask)

    def copy(self) -> Norm:
        """A copy of the norm with separate buffers; it shares the parameters."""
        return _copy(self.norm)

    def on(self, norm: Norm, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`norm` applied to `x`, with the same global random state at every call."""
        torch.set_rng_state(self.random)
        y: Tensor = norm(x, self.mask if mask is None else mask, self.condition)
        return y


def subject(
    norm: Norm, shape: Sequence[int], mode: Mode, seed: int, masked: bool = False
) -> Subject:
    """A copy of `norm` in `mode` with random parameters and buffers, and an input.

    Zeros become U(-1/2, 1/2), other values are multiplied by U(1/2, 1): no path hides
    behind a zero gain or a gate at 0 or 1, and variances stay positive. The input is
    N(shift, 1) with the shift 0, 1 or -1 by seed: near enough to the running statistics
    that a clip against them (as of batch renormalization) is not reached. With
    `masked`, every sample of (N, C, T) ends in padding, with values as the others.
    """
    generator = torch.Generator().manual_seed(seed)
    norm = deepcopy(norm).double()
    if any(is_lazy(parameter) for parameter in norm.parameters()):
        with torch.no_grad():
            norm.eval()(torch.zeros(*shape, dtype=torch.float64))
    _randomise(norm, generator)
    if mode is not Mode.first:
        for counter in _counters(norm):
            counter.fill_(MANY)
    shift = (0.0, 1.0, -1.0)[seed % 3]
    x = torch.randn(*shape, generator=generator, dtype=torch.float64) + shift
    return Subject(
        norm=norm.train(mode is not Mode.eval),
        x=x,
        mask=padding(shape) if masked else None,
        condition=torch.zeros(shape[0], dtype=torch.int64),
        random=torch.random.get_rng_state(),
    )


def padding(shape: Sequence[int]) -> Tensor:
    """A mask (N, T), True where real: every sample ends in padding."""
    samples, length = shape[0], shape[-1]
    lengths = (length - 1 - 2 * torch.arange(samples)).clamp(min=3)
    return torch.arange(length) < lengths[:, None]


@torch.no_grad()
def _randomise(norm: Norm, generator: torch.Generator) -> None:
    for tensor in (*norm.parameters(), *norm.buffers()):
        if tensor.is_floating_point():
            draw = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(torch.where(tensor == 0, draw - 0.5, tensor * (draw + 1) / 2))


def _copy(module: M) -> M:
    """As deepcopy does, at a tenth of the time: a footprint takes thousands."""
    copied = module.__class__.__new__(module.__class__)
    for key, part in vars(module).items():
        if key == "_modules":
            part = {name: child and _copy(child) for name, child in part.items()}
        elif key == "_buffers":
            part = {name: b if b is None else b.clone() for name, b in part.items()}
        elif key == "_parameters":
            part = dict(part)
        elif not (key in _HOOKS or part is None or isinstance(part, _IMMUTABLE)):
            part = deepcopy(part)
        copied.__dict__[key] = part
    return copied


def _counters(norm: Norm) -> list[Tensor]:
    return [
        buffer
        for buffer in norm.buffers()
        if buffer.dim() == 0
        and not (buffer.is_floating_point() or buffer.dtype == torch.bool)
    ]
