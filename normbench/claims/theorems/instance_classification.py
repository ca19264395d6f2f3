"""Check what instance normalization removes before a classifier sees the image."""

import torch
from torch import Tensor
from torch.nn import functional as F

from normbench.claims.theorems.base import Finding, difference, finding, theorem
from normbench.norms.base import make

CHANNELS = 16
EPS = 1e-18


@theorem("instance-then-pooling")
@torch.no_grad()
def instance_then_pooling() -> Finding:
    """Global average pooling of instance is its bias, whatever the input.

    So a linear head after the pooling gets no information about the image. The gain and
    bias are random; each channel of each input has a different mean and scale.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, CHANNELS, 6, 6, generator=generator, dtype=torch.float64)
    # Each channel gets a random scale, and its first value is added to move its mean.
    x = (
        x * torch.rand(8, CHANNELS, 1, 1, generator=generator, dtype=torch.float64)
        + x[:, :, :1, :1]
    )
    weight, bias = torch.randn(2, CHANNELS, generator=generator, dtype=torch.float64)
    pooled = {}
    for name in ("instance", "group", "layer_sample", "layer_position", "batch"):
        norm = make(name, CHANNELS).double()
        norm.load_state_dict({"weight": weight, "bias": bias}, strict=False)
        pooled[name] = norm(x).mean((2, 3))
        if name == "instance":
            after_relu = norm(x).relu().mean((2, 3))
    deviations = {name: difference(y, bias.expand_as(y)) for name, y in pooled.items()}
    return finding(
        {"instance": deviations.pop("instance")},
        deviations,
        "pooled instance is within {deviation:.1g} of its bias, the others are off by "
        "{control:.2g} at least ({weakest}); with a ReLU between, images do differ, by "
        "a standard deviation of {between:.2g}",
        between=float(after_relu.std(0).max()),
    )


@theorem("brightness-and-contrast")
def brightness_and_contrast() -> Finding:
    """Behind a valid or reflecting convolution, instance loses brightness and contrast.

    It loses hue too, if hue is a bias of each channel of the image. Each image gets
    biases and a gain before a convolution without bias; eps is 1e-18.
    With zero padding, the output does depend on brightness: the bias of the image adds
    one number to the convolution inside, and another number next to the border.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, 3, 16, 16, generator=generator, dtype=torch.float64)
    weights = torch.randn(CHANNELS, 3, 3, 3, generator=generator, dtype=torch.float64)
    gain = torch.tensor([0.5, 0.8, 1.5, 2.0], dtype=x.dtype)[:, None, None, None]
    bias = torch.tensor([-0.3, -0.1, 0.2, 0.4], dtype=x.dtype)[:, None, None, None]
    tint = torch.rand(4, 3, 1, 1, generator=generator, dtype=x.dtype) - 0.5
    changes = {
        "brightness": x + bias,
        "contrast": (x - 0.5) * gain + 0.5,
        "hue": x + tint,
        "all": (x + tint) * gain + bias,
    }
    changes_of_output = {
        (padding, change): difference(
            _after_convolution(y, weights, padding),
            _after_convolution(x, weights, padding),
        )
        for padding in ("valid", "reflect", "zero")
        for change, y in changes.items()
    }
    bright, plain = (
        _after_convolution(y, weights, "zero") for y in (changes["brightness"], x)
    )
    energy = (bright - plain).square()
    inside = energy[..., 1:-1, 1:-1]
    return finding(
        {key: value for key, value in changes_of_output.items() if key[0] != "zero"},
        {"zero": changes_of_output["zero", "brightness"]},
        "its output moves by {deviation:.1g} at most ({worst[0]}, {worst[1]}); zero "
        "padding lets brightness move it by {control:.2g}, with {border:.0%} of that "
        "energy in the border, {share:.0%} of the entries",
        border=float(1 - inside.sum() / energy.sum()),
        share=1 - inside.numel() / energy.numel(),
    )


def _after_convolution(x: Tensor, weights: Tensor, padding: str) -> Tensor:
    """Return the output of a convolution with this padding, and then of instance."""
    if padding == "reflect":
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
    y = F.conv2d(x, weights, padding=1 if padding == "zero" else 0)
    return make("instance", CHANNELS, eps=EPS, affine=False)(y)
