"""The footprint of a norm: which input entries each output entry depends on.

Measured twice, entry by entry, in float64. `value`: one input entry is changed, and
the outputs that change are noted. `gradient`: the non-zeros of the Jacobian, as the
backward pass gives it. They differ where a norm lets no gradient through a statistic,
or has a backward pass of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from normbench.norms.base import Norm
from normbench.norms.measure.dependence import Bools, Dependence, describe
from normbench.norms.measure.subject import Mode, Subject, modes, subject

TOLERANCE = 1e-12
"""Relative to the largest output or derivative; rounding stays far below."""
AGREEING = 8
"""A footprint is final when this many random states in a row add nothing."""
STATES = 32
"""The most random states in which a norm is measured."""
SUSPECTS = 16
"""How many sets a further state checks: of the smallest, the rarest and random ones."""


@dataclass(frozen=True)
class Footprint:
    """What outputs depend on in one mode."""

    mode: Mode
    value: Dependence
    gradient: Dependence

    @property
    def agree(self) -> bool:
        """The gradient sees what the value depends on."""
        return self.value.same(self.gradient)

    def same(self, other: "Footprint") -> bool:
        """Value and gradient depend on the same inputs in `other`."""
        return self.value.same(other.value) and self.gradient.same(other.gradient)

    @property
    def either(self) -> Dependence:
        """Value or gradient."""
        return describe(self.value.entries | self.gradient.entries, self.value.mask)


def footprints(
    norm: Norm, shape: Sequence[int], masked: bool = False
) -> tuple[Footprint, ...]:
    """The footprints of `norm` on inputs of `shape`, one per mode; `norm` is untouched.

    In training, its counters say that any warm-up is over. The first step is a mode of
    its own, left out where its footprint is that of training.
    """
    shape = tuple(shape)
    train, *rest = modes(norm)
    with torch.random.fork_rng(devices=[]):
        training = _footprint(norm, shape, train, masked)
        measured = [training]
        for mode in rest:
            if same_function(norm, shape, train, mode, masked):
                footprint = replace(training, mode=mode)
            else:
                footprint = _footprint(norm, shape, mode, masked)
            if mode is Mode.eval or not footprint.same(training):
                measured.append(footprint)
    return tuple(measured)


def same_function(
    norm: Norm, shape: Sequence[int], a: Mode, b: Mode, masked: bool = False
) -> bool:
    """Whether `norm` gives the same bits in both modes, forward and backward."""
    with torch.random.fork_rng(devices=[]):
        for seed in range(AGREEING):
            case, other = (subject(norm, shape, mode, seed, masked) for mode in (a, b))
            if not torch.equal(case(case.x), other(other.x)):
                return False
            steps = _steps(case)
            if not torch.equal(_Backward(case)(steps), _Backward(other)(steps)):
                return False
    return True


def _footprint(
    norm: Norm, shape: tuple[int, ...], mode: Mode, masked: bool
) -> Footprint:
    def draw(seed: int) -> Subject:
        return subject(norm, shape, mode, seed, masked)

    mask = draw(0).mask
    real = None if mask is None else mask.flatten(1).numpy()
    outputs = np.ones(int(np.prod(shape)), dtype=bool)
    if real is not None:
        outputs = np.repeat(real[:, None], shape[1], axis=1).reshape(-1)
    split = (*shape[:2], int(np.prod(shape[2:])))
    value, gradient = (
        describe(_union(draw, outputs, *way).reshape(*split, *split), real)
        for way in ((_changes, _changes_more), (_jacobian, _jacobian_more))
    )
    return Footprint(mode, value, gradient)


def _union(
    draw: Callable[[int], Subject],
    outputs: Bools,
    measure: Callable[[Subject], Bools],
    more: Callable[[Subject, Bools, Bools], bool],
) -> Bools:
    """(outputs, inputs): all dependences seen in any random state.

    A rectifier, a threshold or a maximum may hide some in one state. So a few calls in
    each further state check whether an output depends on more inputs; if one does, that
    state is measured too.
    """
    depends = measure(draw(0)) & outputs[:, None]
    agreeing = 0
    for seed in range(1, STATES):
        case = draw(seed)
        if _adds(more, case, depends, outputs):
            depends |= measure(case) & outputs[:, None]
            agreeing = 0
        else:
            agreeing += 1
        if agreeing == AGREEING:
            break
    return depends


def _adds(
    more: Callable[[Subject, Bools, Bools], bool],
    case: Subject,
    depends: Bools,
    outputs: Bools,
) -> bool:
    """Whether an output of a suspect set depends on more inputs in this state."""
    packed = np.packbits(depends, axis=1)
    keys = np.ascontiguousarray(packed).view(f"V{packed.shape[1]}").ravel()
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    for index in _suspects(depends[first].sum(axis=1), first, case):
        having = (which == index) & outputs
        row = depends[first[index]]
        if having.any() and not row.all() and more(case, having, row):
            return True
    return False


def _suspects(
    sizes: NDArray[np.int64], first: NDArray[np.int64], case: Subject
) -> list[int]:
    """Which distinct sets to check: small ones, sizes rare in their channel, any."""
    channel = first // case.x[0, 0].numel() % case.x.shape[1]
    _, kind, counts = np.unique(
        np.stack([channel, sizes]), axis=1, return_inverse=True, return_counts=True
    )
    generator = np.random.default_rng(int(case.x.numel() + sizes.sum()))
    orders = (
        np.argsort(sizes, kind="stable"),
        np.argsort(counts[kind.ravel()], kind="stable"),
        generator.permutation(len(sizes)),
    )
    return sorted({int(index) for order in orders for index in order[:SUSPECTS]})


@torch.no_grad()
def _changes(case: Subject) -> Bools:
    """By perturbation: for each output, the inputs that change it."""
    x = case.x.clone()
    entries, steps = x.view(-1), _steps(case)
    before = case(x).reshape(-1)
    after = torch.empty(len(entries), len(before), dtype=x.dtype)
    for index, step in enumerate(steps):
        was = entries[index].clone()
        entries[index] += step
        after[index] = case(x).reshape(-1)
        entries[index] = was
    return _numpy(_differs(after, before).T)


@torch.no_grad()
def _changes_more(case: Subject, outputs: Bools, row: Bools) -> bool:
    """Whether any of `outputs` changes when all inputs outside of `row` do."""
    steps = torch.where(torch.from_numpy(row), 0.0, _steps(case)).view(case.x.shape)
    changed = _differs(case(case.x + steps), case(case.x)).reshape(-1)
    return bool((_numpy(changed) & outputs).any())


def _steps(case: Subject) -> Tensor:
    """The change of each input: 0.5 to 1.5, up or down."""
    generator = torch.Generator().manual_seed(case.x.numel())
    draw = torch.rand(case.x.numel(), generator=generator, dtype=case.x.dtype) * 2 - 1
    return draw + draw.sign() / 2


def _differs(after: Tensor, before: Tensor) -> Tensor:
    return (after - before).abs() > TOLERANCE * (1 + before.abs().max())


def _jacobian(case: Subject) -> Bools:
    """By autograd: for each output, the inputs with a derivative.

    The result for a zero gradient is subtracted, for backward passes that are not
    linear in the output's gradient; those that change buffers start anew each time.
    """
    backward = _Backward(case)
    cotangent = torch.zeros(case.x.numel(), dtype=case.x.dtype)
    at_zero = backward(cotangent)
    rows = torch.empty(len(cotangent), len(cotangent), dtype=case.x.dtype)
    for index in range(len(cotangent)):
        cotangent[index] = 1
        rows[index] = backward(cotangent) - at_zero
        cotangent[index] = 0
    return _numpy(_nonzero(rows))


def _jacobian_more(case: Subject, outputs: Bools, row: Bools) -> bool:
    """Whether a loss of `outputs` has derivatives outside of `row`."""
    backward = _Backward(case)
    cotangent = torch.where(torch.from_numpy(outputs), _steps(case), 0.0)
    gradient = backward(cotangent) - backward(torch.zeros_like(cotangent))
    return bool((_numpy(_nonzero(gradient)) & ~row).any())


def _nonzero(gradient: Tensor) -> Tensor:
    return gradient.abs() > TOLERANCE * gradient.abs().max()


class _Backward:
    """Gradient of the outputs -> gradient of the inputs, both flat."""

    def __init__(self, case: Subject) -> None:
        self.case = case
        self._forward()

    def _forward(self) -> None:
        self.norm = self.case.copy()
        self.x = self.case.x.clone().requires_grad_()
        self.y = self.case.on(self.norm, self.x)
        self.state = self._state()

    def __call__(self, cotangent: Tensor) -> Tensor:
        if not self.y.requires_grad:
            return torch.zeros_like(cotangent)
        if self._state() != self.state:
            self._forward()
        (gradient,) = torch.autograd.grad(
            self.y,
            self.x,
            cotangent.view(self.y.shape),
            retain_graph=True,
            materialize_grads=True,
        )
        return gradient.reshape(-1).clone()

    def _state(self) -> list[tuple[int, int]]:
        return [(id(buffer), buffer._version) for buffer in self.norm.buffers()]


def _numpy(bools: Tensor) -> Bools:
    array: Bools = bools.contiguous().numpy()
    return array
