"""What can be read of a picture's appearance from the picture drawn after it.

Held-out crops are changed in known ways: contrast by a gain of all values about 0.5,
brightness by an offset, hue by a rotation about the grey axis. A ridge regression reads
the appearance of the changed input from the output: from the means and standard
deviations of its three channels, and all their products. Both are taken relative to
their mean over the changes of the same crop, so that what the probe reads is the change
and not which crop it is: a network whose output the change does not reach has R^2 = 0,
however much its crops differ. The inputs are not clipped to [0, 1]: a clip would be a
trace of brightness and contrast that no invariance takes away.
"""

import math

import torch
from torch import Tensor

from normbench.data.base import Photographs
from normbench.probes.base import PROBES, Trained

CROPS = 32
CHANGES = 16
GAINS = (0.5, 1.5)
OFFSETS = (-0.25, 0.25)
GREY_LEVEL = 1 / 255
"""The penalty: that of measuring every feature with an error of one grey level."""


@PROBES("style_leakage", data=Photographs)
@torch.no_grad()
def style_leakage(trained: Trained) -> dict[str, float]:
    """How well brightness, contrast and hue of the input are read from the output.

    R^2, on crops that the regression has not seen, of brightness (the mean), contrast
    (the standard deviation about the channels' means) and hue (the two coordinates of
    the mean colour across the grey axis). 1: all of it is there; 0: nothing, and below
    0 worse than nothing. Norms of the batch use their running statistics.
    """
    index = trained.task.splits["test"][:CROPS]
    if len(index) < 4:
        return dict.fromkeys(("brightness", "contrast", "hue"), float("nan"))
    features, targets = [], []
    for crop, condition in zip(*trained.task.inputs(index), strict=True):
        changed = _changes(crop)
        drawn = trained.model(changed, condition.expand(CHANGES))
        features.append(_centred(_features(drawn)))
        targets.append(_centred(_appearance(changed)))
    half = len(index) // 2
    x, y = torch.stack(features), torch.stack(targets)
    seen, held_out = (
        (x[part].flatten(0, 1), y[part].flatten(0, 1))
        for part in (slice(half), slice(half, None))
    )
    residual = (held_out[1] - held_out[0] @ _ridge(*seen)).square().sum(0)
    total = held_out[1].square().sum(0)
    of = {"brightness": [0], "contrast": [1], "hue": [2, 3]}
    return {
        name: (1 - residual[columns].sum() / total[columns].sum()).item()
        for name, columns in of.items()
    }


def _changes(crop: Tensor) -> Tensor:
    """(CHANGES, 3, H, W): `crop` (3, H, W) with random gain, offset and rotation."""
    gain, offset, turn = (torch.rand(CHANGES, 1) for _ in range(3))
    gain = GAINS[0] + (GAINS[1] - GAINS[0]) * gain
    offset = OFFSETS[0] + (OFFSETS[1] - OFFSETS[0]) * offset
    matrix = rotation(2 * math.pi * turn[:, 0]).to(crop)
    turned = matrix @ crop.flatten(1)
    changed = 0.5 + gain.to(crop)[:, :, None] * (turned - 0.5)
    changed = changed + offset.to(crop)[:, :, None]
    return changed.view(-1, *crop.shape)


def rotation(angle: Tensor) -> Tensor:
    """(N, 3, 3): turns by `angle` (N,), in radians, of colours about the grey axis."""
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    grey = torch.full((3, 3), 1 / 3)
    across = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    return cos * torch.eye(3) + (1 - cos) * grey + sin * across


def _appearance(pictures: Tensor) -> Tensor:
    """Brightness, contrast, and the two of hue: (N, 4) float64 of (N, 3, H, W)."""
    variance, colour = torch.var_mean(pictures.double(), (2, 3), correction=0)
    red, green, blue = colour.unbind(1)
    hue = (2 * red - green - blue) / math.sqrt(6), (green - blue) / math.sqrt(2)
    return torch.stack([colour.mean(1), variance.mean(1).sqrt(), *hue], 1)


def _features(pictures: Tensor) -> Tensor:
    """Channel means, standard deviations, products of any two: (N, 27) float64."""
    variance, mean = torch.var_mean(pictures.double(), (2, 3), correction=0)
    simple = torch.cat([mean, variance.sqrt()], 1)
    i, j = torch.triu_indices(6, 6)
    return torch.cat([simple, simple[:, i] * simple[:, j]], 1)


def _centred(values: Tensor) -> Tensor:
    return values - values.mean(0)


def _ridge(x: Tensor, y: Tensor) -> Tensor:
    """Coefficients (F, K) of y (n, K) on x (n, F)."""
    penalty = len(x) * GREY_LEVEL**2 * torch.eye(x.shape[1]).to(x)
    coefficients: Tensor = torch.linalg.solve(x.T @ x + penalty, x.T @ y)
    return coefficients
