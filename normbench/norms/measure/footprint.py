"""Measure the footprint of a norm: the input entries that each output depends on.

There are two measurements, entry by entry, in float64. `value`: change one input and
find the outputs that change. `gradient`: find the non-zeros of the Jacobian that the
backward pass computes. The two differ if a norm detaches a statistic or has a custom
backward pass.
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
"""Smaller changes, relative to the largest output or derivative, count as rounding."""
STABLE_STATES = 8
"""The measurement ends after this many random states in a row without a new input."""
MAX_STATES = 32
"""The maximum number of random states in which a norm is measured."""
CHECKED_SETS = 16
"""A further state checks this many sets of inputs in each order of _sets_to_check."""


@dataclass(frozen=True)
class Footprint:
    """The inputs that outputs depend on in one mode, measured in two ways."""

    mode: Mode
    value: Dependence
    gradient: Dependence

    @property
    def agree(self) -> bool:
        """True if value and gradient depend on the same inputs."""
        return self.value.same(self.gradient)

    def same(self, other: "Footprint") -> bool:
        """Return whether value and gradient depend on the same inputs in `other`."""
        return self.value.same(other.value) and self.gradient.same(other.gradient)

    @property
    def either(self) -> Dependence:
        """The inputs that the value or the gradient depends on."""
        return describe(self.value.entries | self.gradient.entries, self.value.mask)


def footprints(
    norm: Norm, shape: Sequence[int], masked: bool = False
) -> tuple[Footprint, ...]:
    """Return the footprints of `norm` on inputs of `shape`, one per mode.

    The mode `train` is training when any warm-up is over; `first` is the first training
    step. `first` is left out if its footprint equals that of `train`. `norm` does not
    change.
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
    """Return whether both modes give the same bits in the forward and backward pass."""
    with torch.random.fork_rng(devices=[]):
        for seed in range(STABLE_STATES):
            case, other = (subject(norm, shape, mode, seed, masked) for mode in (a, b))
            if not torch.equal(case(case.x), other(other.x)):
                return False
            cotangent = _steps(case)  # any random output gradient would do
            if not torch.equal(_Backward(case)(cotangent), _Backward(other)(cotangent)):
                return False
    return True


def _footprint(
    norm: Norm, shape: tuple[int, ...], mode: Mode, masked: bool
) -> Footprint:
    def draw(seed: int) -> Subject:
        return subject(norm, shape, mode, seed, masked)

    mask = draw(0).mask
    real_positions = None if mask is None else mask.flatten(1).numpy()  # (N, P)
    # Outputs at masked positions are not measured.
    outputs = np.ones(int(np.prod(shape)), dtype=bool)
    if real_positions is not None:
        outputs = np.repeat(real_positions[:, None], shape[1], axis=1).reshape(-1)
    axes = (*shape[:2], int(np.prod(shape[2:])))  # (N, C, P) for P positions
    value, gradient = (
        describe(
            _union(draw, outputs, *functions).reshape(*axes, *axes), real_positions
        )
        for functions in ((_changes, _changes_more), (_jacobian, _jacobian_more))
    )
    return Footprint(mode, value, gradient)


def _union(
    draw: Callable[[int], Subject],
    outputs: Bools,
    measure: Callable[[Subject], Bools],
    more: Callable[[Subject, Bools, Bools], bool],
) -> Bools:
    """Return all dependences found in any random state: (outputs, inputs).

    In a single state, a ReLU, a threshold or a maximum may hide dependences. So `more`
    checks in each further state, with few calls, whether an output depends on more
    inputs. If so, `measure` measures that state completely.
    """
    depends = measure(draw(0)) & outputs[:, None]
    stable = 0
    for seed in range(1, MAX_STATES):
        case = draw(seed)
        if _finds_more(more, case, depends, outputs):
            depends |= measure(case) & outputs[:, None]
            stable = 0
        else:
            stable += 1
        if stable == STABLE_STATES:
            break
    return depends


def _finds_more(
    more: Callable[[Subject, Bools, Bools], bool],
    case: Subject,
    depends: Bools,
    outputs: Bools,
) -> bool:
    """Return whether an output of a checked set depends on more inputs in this state.

    Outputs that depend on the same set of inputs are checked together.
    """
    # Each row of `depends` becomes one value, so that np.unique finds equal rows.
    packed = np.packbits(depends, axis=1)
    keys = np.ascontiguousarray(packed).view(f"V{packed.shape[1]}").ravel()
    _, examples, set_index = np.unique(keys, return_index=True, return_inverse=True)
    for index in _sets_to_check(depends[examples].sum(axis=1), examples, case):
        members = (set_index == index) & outputs
        row = depends[examples[index]]
        if members.any() and not row.all() and more(case, members, row):
            return True
    return False


def _sets_to_check(
    sizes: NDArray[np.int64], examples: NDArray[np.int64], case: Subject
) -> list[int]:
    """Return the indices of the sets of inputs that a further state checks.

    There are three orders: by size, by how rare the size is in its channel, and random.
    The first CHECKED_SETS of each order are checked. For each distinct set, `sizes` has
    its number of inputs, and `examples` the flat index of an output that depends on it.
    """
    positions, channels = case.x[0, 0].numel(), case.x.shape[1]
    channel = examples // positions % channels
    _, kind, counts = np.unique(
        np.stack([channel, sizes]), axis=1, return_inverse=True, return_counts=True
    )
    generator = np.random.default_rng(int(case.x.numel() + sizes.sum()))
    orders = (
        np.argsort(sizes, kind="stable"),
        np.argsort(counts[kind.ravel()], kind="stable"),
        generator.permutation(len(sizes)),
    )
    return sorted({int(index) for order in orders for index in order[:CHECKED_SETS]})


@torch.no_grad()
def _changes(case: Subject) -> Bools:
    """Return for each output the inputs that change it, by perturbation."""
    x = case.x.clone()
    entries, steps = x.view(-1), _steps(case)
    before = case(x).reshape(-1)
    after = torch.empty(len(entries), len(before), dtype=x.dtype)
    for index, step in enumerate(steps):
        original = entries[index].clone()
        entries[index] += step
        after[index] = case(x).reshape(-1)
        entries[index] = original
    return _numpy(_differs(after, before).T)


@torch.no_grad()
def _changes_more(case: Subject, outputs: Bools, row: Bools) -> bool:
    """Return whether any of `outputs` changes if all inputs outside `row` change."""
    steps = torch.where(torch.from_numpy(row), 0.0, _steps(case)).view(case.x.shape)
    changed = _differs(case(case.x + steps), case(case.x)).reshape(-1)
    return bool((_numpy(changed) & outputs).any())


def _steps(case: Subject) -> Tensor:
    """Return the change of each input: 0.5 to 1.5, with a random sign."""
    generator = torch.Generator().manual_seed(case.x.numel())
    draw = torch.rand(case.x.numel(), generator=generator, dtype=case.x.dtype) * 2 - 1
    return draw + draw.sign() / 2


def _differs(after: Tensor, before: Tensor) -> Tensor:
    return (after - before).abs() > TOLERANCE * (1 + before.abs().max())


def _jacobian(case: Subject) -> Bools:
    """Return for each output the inputs with a non-zero derivative, by autograd.

    A custom backward pass may be affine instead of linear in the output gradient. So
    the input gradient for a zero output gradient is subtracted.
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
    """Return whether a random sum of `outputs` has derivatives outside `row`."""
    backward = _Backward(case)
    cotangent = torch.where(torch.from_numpy(outputs), _steps(case), 0.0)
    gradient = backward(cotangent) - backward(torch.zeros_like(cotangent))
    return bool((_numpy(_nonzero(gradient)) & ~row).any())


def _nonzero(gradient: Tensor) -> Tensor:
    return gradient.abs() > TOLERANCE * gradient.abs().max()


class _Backward:
    """Maps a flat gradient of the outputs to the flat gradient of the inputs.

    If a backward pass changes buffers, the next call starts from a new forward.
    """

    def __init__(self, case: Subject) -> None:
        self.case = case
        self._forward()

    def _forward(self) -> None:
        self.norm = self.case.copy()
        self.x = self.case.x.clone().requires_grad_()
        self.y = self.case.apply(self.norm, self.x)
        self.buffer_versions = self._buffer_versions()

    def __call__(self, cotangent: Tensor) -> Tensor:
        if not self.y.requires_grad:
            return torch.zeros_like(cotangent)
        if self._buffer_versions() != self.buffer_versions:
            self._forward()
        (gradient,) = torch.autograd.grad(
            self.y,
            self.x,
            cotangent.view(self.y.shape),
            retain_graph=True,
            materialize_grads=True,
        )
        return gradient.reshape(-1).clone()

    def _buffer_versions(self) -> list[tuple[int, int]]:
        return [(id(buffer), buffer._version) for buffer in self.norm.buffers()]


def _numpy(bools: Tensor) -> Bools:
    array: Bools = bools.contiguous().numpy()
    return array
