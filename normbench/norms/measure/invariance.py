"""The changes of a norm's input that leave its output unchanged.

Each is the relative change |f(Tx) - Tf(x)| / |f(x)| in float64 at a random state of the
norm (`subject`); T acts on outputs only where it reorders them. Every eps is set to
1e-18 meanwhile: with a larger eps, invariance to a gain never holds exactly.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from normbench.errors import Incompatible
from normbench.norms.base import Norm, per_channel
from normbench.norms.measure.subject import Mode, Subject, subject

TOLERANCE = 1e-6
"""A relative change below this is zero: rounding is 1e-15, a dependence above 1e-3."""
EPS = 1e-18
PADS = 3


class Change(StrEnum):
    """A change of the input."""

    gain = "gain"
    """All of it times 2."""
    bias = "bias"
    """All of it plus 1."""
    channel_gain = "channel gain"
    """Each channel times another number between 1 and 2."""
    channel_bias = "channel bias"
    """Each channel plus another number between 1 and 2."""
    weights = "weights"
    """The weights of the 1x1 convolution that makes the input, times 2."""
    batch_order = "order"
    """Samples, with their conditions, in another order."""
    pads = "pads"
    """Masked positions with values in them, put after the last real position."""


@dataclass(frozen=True)
class Invariance:
    """The relative change of a norm's output, in training and in evaluation."""

    to: Change
    train: float | None
    eval: float | None
    """None where it cannot be measured: the norm works on one spatial shape only."""

    @property
    def holds_in_train(self) -> bool | None:
        return None if self.train is None else self.train < TOLERANCE

    @property
    def holds_in_eval(self) -> bool | None:
        return None if self.eval is None else self.eval < TOLERANCE


def invariances(norm: Norm, shape: Sequence[int]) -> tuple[Invariance, ...]:
    """How much each Change moves the output of `norm` on inputs (N, C, *spatial)."""
    norm = deepcopy(norm)
    for module in norm.modules():
        if isinstance(getattr(module, "eps", None), float):
            module.eps = EPS  # type: ignore[assignment]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        train, eval_ = (
            subject(norm, shape, mode, seed=1) for mode in (Mode.train, Mode.eval)
        )
        return tuple(
            Invariance(change, _moved(train, change), _moved(eval_, change))
            for change in Change
        )


def _moved(case: Subject, change: Change) -> float | None:
    generator = torch.Generator().manual_seed(0)
    x, channels = case.x, case.x.shape[1]
    draws = per_channel(1 + torch.rand(channels, generator=generator, dtype=x.dtype), x)
    if change is Change.pads:
        return _moved_by_pads(case, generator)
    if change is Change.batch_order:
        order = torch.randperm(len(x), generator=generator).roll(1)
        return _relative(case(x[order]), case(x)[order])
    if change is Change.weights:
        weights = torch.randn(channels, channels, generator=generator, dtype=x.dtype)
        before, after = (
            torch.einsum("dc,nc...->nd...", w, x) for w in (weights, 2 * weights)
        )
        return _relative(case(after), case(before))
    changed = {
        Change.gain: 2 * x,
        Change.bias: x + 1,
        Change.channel_gain: x * draws,
        Change.channel_bias: x + draws,
    }[change]
    return _relative(case(changed), case(x))


def _moved_by_pads(case: Subject, generator: torch.Generator) -> float | None:
    x = case.x.flatten(2)
    pads = torch.randn(*x.shape[:2], PADS, generator=generator, dtype=x.dtype) * 3
    longer = torch.cat([x, pads], dim=2)
    mask = (torch.arange(longer.shape[2]) < x.shape[2]).expand(len(x), -1)
    try:
        after = case(longer, mask)[..., : x.shape[2]]
        return _relative(after, case(x, mask[:, : x.shape[2]]))
    except Incompatible:
        return None


def _relative(after: Tensor, before: Tensor) -> float:
    size = before.norm().clamp(min=torch.finfo(before.dtype).tiny)
    return float((after - before).norm() / size)
