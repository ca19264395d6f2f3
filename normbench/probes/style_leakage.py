"""Probe `style_leakage`: how well the output predicts the appearance of the input.

The probe changes test crops in known ways. It multiplies the distance of all values
from 0.5 by a gain (contrast), adds an offset to all values (brightness), and rotates
the colours about the grey axis (hue). The network redraws the changed crops. A ridge
regression then predicts the appearance of the changed input from features of the
output: the means and standard deviations of its three channels, and all products of two
of these numbers.

Features and appearance are centred: their mean over all changes of the same crop is
subtracted. So the regression predicts the change, not which crop it was. If a change
does not affect the output, R^2 is 0. The changed inputs are not clipped to [0, 1].
Clipping would change a picture by an amount that depends on brightness and contrast.
Even a network that ignores both would show this amount in its output.
"""

import math

import torch
from torch import Tensor

from normbench.data.base import Photographs
from normbench.probes.base import PROBES, Trained

MAX_CROPS = 32
CHANGES = 16
"""Number of random changes of every crop."""
GAIN_RANGE = (0.5, 1.5)
OFFSET_RANGE = (-0.25, 0.25)
GREY_LEVEL = 1 / 255
"""The ridge penalty acts like a measurement error of one grey level in all features."""


@PROBES("style_leakage", data=Photographs)
@torch.no_grad()
def style_leakage(trained: Trained) -> dict[str, float]:
    """How well the output predicts brightness, contrast and hue of the input (R^2).

    Brightness is the mean of all values, contrast the standard deviation about the
    channel means, and hue the two coordinates of the mean colour perpendicular to the
    grey axis. R^2 is computed on crops that the regression was not fitted to: 1 is a
    perfect prediction, 0 is as good as the mean, and negative values are worse. The
    network is in evaluation mode.
    """
    index = trained.task.splits["test"][:MAX_CROPS]
    if len(index) < 4:
        return dict.fromkeys(("brightness", "contrast", "hue"), float("nan"))
    features, targets = [], []
    for crop, condition in zip(*trained.task.inputs(index), strict=True):
        changed = _changed_copies(crop)
        output = trained.model(changed, condition.expand(CHANGES))
        features.append(_centred(_features(output)))
        targets.append(_centred(_appearance(changed)))
    half = len(index) // 2
    x_fit, y_fit = torch.cat(features[:half]), torch.cat(targets[:half])
    x, y = torch.cat(features[half:]), torch.cat(targets[half:])
    residual = (y - x @ _ridge(x_fit, y_fit)).square().sum(0)
    total = y.square().sum(0)
    columns = {"brightness": [0], "contrast": [1], "hue": [2, 3]}
    return {
        name: (1 - residual[indices].sum() / total[indices].sum()).item()
        for name, indices in columns.items()
    }


def _changed_copies(crop: Tensor) -> Tensor:
    """Return `crop` (3, H, W) with random gains, offsets and hues: (CHANGES, 3, H, W).

    Random numbers are drawn on the CPU, so that they are the same on every device.
    """
    # `turn` is a share of a full turn about the grey axis.
    gain, offset, turn = (torch.rand(CHANGES, 1) for _ in range(3))
    gain = GAIN_RANGE[0] + (GAIN_RANGE[1] - GAIN_RANGE[0]) * gain
    offset = OFFSET_RANGE[0] + (OFFSET_RANGE[1] - OFFSET_RANGE[0]) * offset
    matrix = rotation(2 * math.pi * turn[:, 0]).to(crop)
    rotated = matrix @ crop.flatten(1)
    changed = 0.5 + gain.to(crop)[:, :, None] * (rotated - 0.5)
    changed = changed + offset.to(crop)[:, :, None]
    return changed.view(-1, *crop.shape)


def rotation(angle: Tensor) -> Tensor:
    """Return matrices (N, 3, 3) that rotate colours about the grey axis.

    `angle` (N,) is in radians. The matrices follow from Rodrigues' rotation formula.
    """
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    projection = torch.full((3, 3), 1 / 3)
    cross_product = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    return cos * torch.eye(3) + (1 - cos) * projection + sin * cross_product


def _appearance(pictures: Tensor) -> Tensor:
    """Return brightness, contrast and two hue coordinates: (N, 4) float64."""
    variance, colour = torch.var_mean(pictures.double(), (2, 3), correction=0)
    red, green, blue = colour.unbind(1)
    # The coordinates on two orthogonal axes, both perpendicular to the grey axis.
    hue = (2 * red - green - blue) / math.sqrt(6), (green - blue) / math.sqrt(2)
    return torch.stack([colour.mean(1), variance.mean(1).sqrt(), *hue], 1)


def _features(pictures: Tensor) -> Tensor:
    """Return channel means, standard deviations and their products: (N, 27) float64."""
    variance, mean = torch.var_mean(pictures.double(), (2, 3), correction=0)
    linear = torch.cat([mean, variance.sqrt()], 1)
    i, j = torch.triu_indices(6, 6)
    return torch.cat([linear, linear[:, i] * linear[:, j]], 1)


def _centred(values: Tensor) -> Tensor:
    """Return `values` (n, K) minus their mean over the rows."""
    return values - values.mean(0)


def _ridge(x: Tensor, y: Tensor) -> Tensor:
    """Return the ridge regression coefficients (F, K) of y (n, K) on x (n, F)."""
    penalty = len(x) * GREY_LEVEL**2 * torch.eye(x.shape[1]).to(x)
    coefficients: Tensor = torch.linalg.solve(x.T @ x + penalty, x.T @ y)
    return coefficients
