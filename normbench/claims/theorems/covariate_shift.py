"""Check what BatchNorm keeps from changing: the moments of its output."""

from typing import Any

import torch
from torch import Tensor

from normbench.claims.theorems.base import Finding, difference, finding, theorem
from normbench.norms.base import make

CHANNELS = 16


@theorem("fixed-moments")
@torch.no_grad()
def fixed_moments() -> Finding:
    """In training, batch gives every channel the mean and deviation that it learned.

    The mean is the bias of the channel, and the standard deviation the size of its
    gain, whatever the layers before compute: channels of the inputs have standard
    deviations between 0.1 and 10, and means of that size. eps is 1e-18. The control is
    affine, which has the same gain and bias.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (3, CHANNELS)  # three inputs
    normal = torch.randn(3, 8, CHANNELS, 6, 6, generator=generator, dtype=torch.float64)
    size = 10 ** (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1)
    shift = size * torch.randn(shape, generator=generator, dtype=torch.float64)
    inputs = normal * _for_channels(size) + _for_channels(shift)
    weight, bias = torch.randn(2, CHANNELS, generator=generator, dtype=torch.float64)
    expected = torch.stack([bias, weight.abs()])
    deviations = {}
    cases: dict[str, dict[str, Any]] = {"batch": {"eps": 1e-18}, "affine": {}}
    for name, options in cases.items():
        norm = make(name, CHANNELS, **options).double().train()
        norm.load_state_dict({"weight": weight, "bias": bias}, strict=False)
        moments = [_moments(norm(x)) for x in inputs]
        deviations[name] = max(difference(each, expected) for each in moments)
    return finding(
        {"batch": deviations["batch"]},
        {"affine": deviations["affine"]},
        "means and deviations of batch are off by {deviation:.1g}, those of affine by "
        "{control:.2g}",
    )


def _for_channels(values: Tensor) -> Tensor:
    """Return `values` (inputs, C) with three more axes of size 1."""
    return values[:, None, :, None, None]


def _moments(y: Tensor) -> Tensor:
    """Return the mean and the standard deviation of each channel: (2, C)."""
    var, mean = torch.var_mean(y, (0, 2, 3), correction=0)
    return torch.stack([mean, var.sqrt()])
