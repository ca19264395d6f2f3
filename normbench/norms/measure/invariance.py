"""Measure which changes of a norm's input leave its output unchanged.

For a norm f and a change T, the measure is |f(Tx) - f(x)| / |f(x)|. If T reorders
samples, f(x) is reordered too. The parameters and buffers of the norm are random, in
float64 (see `subject`). Every eps is set to 1e-18, because a larger eps breaks the
invariance to a gain.
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
"""Smaller relative changes count as zero.

Rounding causes changes of about 1e-15. A real dependence causes changes above 1e-3.
"""
EPS = 1e-18
PADS = 3


class Change(StrEnum):
    """A change of the input."""

    gain = "gain"
    """All values are multiplied by 2."""
    bias = "bias"
    """1 is added to all values."""
    channel_gain = "channel gain"
    """Each channel is multiplied by its own random factor between 1 and 2."""
    channel_bias = "channel bias"
    """To each channel, its own random number between 1 and 2 is added."""
    weights = "weights"
    """The input comes from a 1x1 convolution, whose weights are multiplied by 2."""
    batch_order = "order"
    """The samples get a different order."""
    pads = "pads"
    """Masked positions with random values are appended after the last real position."""


@dataclass(frozen=True)
class Invariance:
    """The relative change of a norm's output, in training and in evaluation."""

    to: Change
    train: float | None
    eval: float | None
    """Both changes are None if they cannot be measured.

    Pads cannot be measured if the norm works on one spatial shape only.
    """

    @property
    def holds_in_train(self) -> bool | None:
        return None if self.train is None else self.train < TOLERANCE

    @property
    def holds_in_eval(self) -> bool | None:
        return None if self.eval is None else self.eval < TOLERANCE


def invariances(norm: Norm, shape: Sequence[int]) -> tuple[Invariance, ...]:
    """Measure how much each Change of an input (N, C, *spatial) changes the output."""
    norm = deepcopy(norm)
    for module in norm.modules():
        if isinstance(getattr(module, "eps", None), float):
            module.eps = EPS  # type: ignore[assignment]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        train, eval_ = (
            subject(norm, shape, mode, seed=1) for mode in (Mode.train, Mode.eval)
        )
        return tuple(
            Invariance(
                change, _output_change(train, change), _output_change(eval_, change)
            )
            for change in Change
        )


def _output_change(case: Subject, change: Change) -> float | None:
    generator = torch.Generator().manual_seed(0)
    x, channels = case.x, case.x.shape[1]
    random = torch.rand(channels, generator=generator, dtype=x.dtype)
    per_channel_values = per_channel(1 + random, x)
    if change is Change.pads:
        return _change_by_pads(case, generator)
    if change is Change.batch_order:
        # The roll gives a new order even if randperm draws the old order.
        order = torch.randperm(len(x), generator=generator).roll(1)
        return _relative_change(case(x[order]), case(x)[order])
    if change is Change.weights:
        weights = torch.randn(channels, channels, generator=generator, dtype=x.dtype)
        convolved = torch.einsum("dc,nc...->nd...", weights, x)
        convolved_by_2 = torch.einsum("dc,nc...->nd...", 2 * weights, x)
        return _relative_change(case(convolved_by_2), case(convolved))
    changed = {
        Change.gain: 2 * x,
        Change.bias: x + 1,
        Change.channel_gain: x * per_channel_values,
        Change.channel_bias: x + per_channel_values,
    }[change]
    return _relative_change(case(changed), case(x))


def _change_by_pads(case: Subject, generator: torch.Generator) -> float | None:
    x = case.x.flatten(2)
    pads = torch.randn(*x.shape[:2], PADS, generator=generator, dtype=x.dtype) * 3
    longer = torch.cat([x, pads], dim=2)
    mask = (torch.arange(longer.shape[2]) < x.shape[2]).expand(len(x), -1)
    try:
        after = case(longer, mask)[..., : x.shape[2]]
        return _relative_change(after, case(x, mask[:, : x.shape[2]]))
    except Incompatible:
        return None


def _relative_change(after: Tensor, before: Tensor) -> float:
    size = before.norm().clamp(min=torch.finfo(before.dtype).tiny)
    return float((after - before).norm() / size)
