"""Check which gains and biases of its input a norm removes.

A norm divides by sqrt(variance + eps), so eps limits how exactly it removes a gain.
Here eps is 1e-18, below the rounding error of a variance in float64.
"""

import torch
from torch import Tensor

from normbench.claims.theorems.base import Finding, difference, finding, theorem
from normbench.norms.base import Norm, make

SHAPE = (4, 16, 7, 7)
EPS = 1e-18


@theorem("channel-gain-and-bias")
def channel_gain_and_bias() -> Finding:
    """instance takes away a gain and a bias of each channel of each sample.

    Gains are between 0.5 and 2, biases between -1 and 1; eps is 1e-18.
    """
    changes = {
        name: _change_of_output(name, (SHAPE[0], SHAPE[1], 1, 1))
        for name in ("instance", "group", "layer_sample", "batch")
    }
    return finding(
        {"instance": changes.pop("instance")},
        changes,
        "instance moves by {deviation:.1g} ({at_default:.1g} at eps 1e-5); the others "
        "by {control:.2g} at least ({weakest})",
        at_default=_change_of_output("instance", (SHAPE[0], SHAPE[1], 1, 1), eps=1e-5),
    )


@theorem("sample-gain-and-bias")
def sample_gain_and_bias() -> Finding:
    """layer_sample, group and instance take away one gain and bias of a whole sample.

    All channels of a sample get the same gain and bias. Gains are between 0.5 and 2,
    biases between -1 and 1; eps is 1e-18.
    """
    changes = {
        name: _change_of_output(name, (SHAPE[0], 1, 1, 1))
        for name in ("layer_sample", "group", "instance")
    }
    return finding(
        changes,
        {"batch": _change_of_output("batch", (SHAPE[0], 1, 1, 1))},
        "they move by {deviation:.1g} at most ({worst}), batch by {control:.2g}",
    )


def _change_of_output(name: str, shape: tuple[int, ...], eps: float = EPS) -> float:
    """Return how much the output of a norm changes by a gain and a bias of `shape`."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(SHAPE, generator=generator, dtype=torch.float64) + 0.5
    gain = torch.rand(shape, generator=generator, dtype=torch.float64) * 1.5 + 0.5
    bias = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
    before, after = (
        _output(make(name, SHAPE[1], eps=eps), value) for value in (x, gain * x + bias)
    )
    return difference(after, before)


@torch.no_grad()
def _output(norm: Norm, x: Tensor) -> Tensor:
    return norm.double().train()(x)
