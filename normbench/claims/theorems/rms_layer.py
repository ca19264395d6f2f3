"""Check when RMSNorm and LayerNorm are one function."""

from typing import Any

import torch
from torch import Tensor, nn

from normbench.claims.theorems.base import Finding, difference, finding, theorem
from normbench.norms.base import Norm, make

CHANNELS = 16
SHAPES = {"images": (4, CHANNELS, 6, 6), "sequences": (4, CHANNELS, 9)}


@theorem("rms-of-centred")
def rms_of_centred() -> Finding:
    """On inputs whose channels have mean 0, rms with a bias is layer_position.

    Both have the same random gain and bias. Their outputs, and the gradients of the
    input of a map that first subtracts the mean, are compared in float64 on images and
    on sequences. The controls are the same inputs, with a mean that is not 0.
    """
    cases: dict[str, dict[str, Any]] = {"rms": {"bias": True}, "layer_position": {}}
    apart: dict[str, float] = {}
    controls: dict[str, float] = {}
    for kind, shape in SHAPES.items():
        generator = torch.Generator().manual_seed(5)
        x = torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 1
        direction = torch.randn(shape, generator=generator, dtype=torch.float64)
        gain, bias = torch.randn(2, CHANNELS, generator=generator, dtype=torch.float64)
        rms, layer = (
            _with_affine(make(name, CHANNELS, **options), gain, bias)
            for name, options in cases.items()
        )
        for figures, centred in ((apart, True), (controls, False)):
            values = [
                _output_and_gradient(n, x, direction, centred) for n in (rms, layer)
            ]
            for quantity, a, b in zip(("outputs", "gradients"), *values, strict=True):
                figures[f"{quantity}, {kind}"] = difference(a, b)
    return finding(
        apart,
        controls,
        "on centred inputs outputs and gradients differ by {deviation:.1g} at most "
        "({worst}); on inputs with a mean by {control:.2g} at least ({weakest})",
    )


def _with_affine(norm: Norm, gain: Tensor, bias: Tensor) -> Norm:
    """Return `norm` in float64 with this gain (C,) and bias (C,)."""
    norm = norm.double()
    for name, values in (("weight", gain), ("bias", bias)):
        norm.register_parameter(name, nn.Parameter(values.clone()))
    return norm


def _output_and_gradient(
    norm: Norm, x: Tensor, direction: Tensor, centred: bool
) -> tuple[Tensor, Tensor]:
    """Return the output (N, C, *spatial), and the gradient of its sum with `x`.

    The sum is weighted by `direction`. If `centred`, the mean over the channels of each
    position is subtracted from `x` first.
    """
    x = x.clone().requires_grad_()
    y = norm(x - x.mean(1, keepdim=True) if centred else x)
    (gradient,) = torch.autograd.grad((y * direction).sum(), x)
    return y.detach(), gradient
