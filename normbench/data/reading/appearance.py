"""What crops look like, set alike: contrast normalised, or style normalised.

Huang & Belongie 2017 ("Arbitrary Style Transfer in Real-time with Adaptive Instance
Normalization", section 4) train on raw, on contrast-normalised and on style-normalised
photographs, to ask which of them instance normalization makes up for. Contrast as
theirs: histogram equalisation of the luminance. Style otherwise: they redraw every
photograph with a trained style-transfer network; `impose_style` sets statistics of
filters in closed form (Heeger & Bergen 1995, "Pyramid-Based Texture Analysis/
Synthesis"), which nothing here was trained for and which any norm can be judged by.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

FORMAT = 1

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""

ITERATIONS = 3
"""Of `impose_style`; the spread between crops hardly falls after that."""

_AT_A_TIME = 64
"""Crops: several hundred with all their bands take a gigabyte."""

# Burt & Adelson 1983, with a = 3/8.
_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)

_LEAST = 1e-8
"""Variance of colours below which there is none: a hundredth of that of rounding."""


def luminance(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 1, H, W)."""
    weights = torch.tensor(LUMINANCE, dtype=pictures.dtype)
    return (pictures * weights.view(3, 1, 1)).sum(1, keepdim=True)


def equalize_luminance(crops: Tensor) -> Tensor:
    """Histogram equalisation of each crop's luminance: (N, 3, H, W) in [0, 1], same.

    The new luminance is the share of the crop's pixels that are darker, plus half the
    share that are as dark, so that its mean is 1/2 in every crop. The differences
    between the channels stay; where a colour would leave the cube, they shrink towards
    grey, at the same luminance.
    """
    before = luminance(crops)
    values = before.flatten(1).contiguous()
    ordered = values.sort(1).values
    darker = torch.searchsorted(ordered, values)
    as_dark = torch.searchsorted(ordered, values, right=True) - darker
    after = ((darker + as_dark / 2) / values.shape[1]).view_as(before)
    colour = crops - before
    room = torch.where(colour > 0, 1 - after, after) / colour.abs().clamp(min=1e-6)
    return after + colour * room.amin(1, keepdim=True).clamp(max=1)


def impose_style(
    crops: Tensor, style: Tensor, *, iterations: int = ITERATIONS
) -> Tensor:
    """Give each crop the style statistics of a picture, and leave what is where.

    (N, 3, H, W), (3, H', W') in [0, 1] -> (N, 3, H, W) in [0, 1]. In the axes of the
    style's colours, where they are uncorrelated: colour means and covariance, then the
    histogram of every band of a Laplacian pyramid in each channel, then the histogram
    of each channel, all this `iterations` times, since each undoes a little of the
    others. Histograms are matched by rank, which keeps a band's order: bright stays
    bright, and an edge an edge.

    Equal values (a black sky) have no order: noise below a step of 8 bits gives them
    one, the same in every call, and so they become texture, as Heeger & Bergen's noise
    does. Orientations are left to the crop.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(crops.shape, generator=generator, dtype=crops.dtype)
    mean = style.mean((1, 2), keepdim=True)
    variance, axes = torch.linalg.eigh(_covariance((style - mean)[None])[0])
    scale = variance.clamp(min=_LEAST).sqrt().view(3, 1, 1)
    reference = _mix((style - mean)[None], axes.T) / scale
    side = min(*crops.shape[2:], *style.shape[1:])
    size = crops[0, 0].numel()
    bands = [_quantiles(band, size) for band in pyramid(reference, side)]
    pixels = _quantiles(reference, size)
    styled = []
    for x in _mix(crops + (noise - 0.5) / 255, axes.T).split(_AT_A_TIME):
        for _ in range(iterations):
            matched = map(_with_quantiles, pyramid(_uncorrelated(x), side), bands)
            x = _with_quantiles(sum(matched, torch.zeros_like(x)), pixels)
        styled.append(_mix(x * scale, axes))
    return (torch.cat(styled) + mean).clamp(0, 1)


def pyramid(pictures: Tensor, side: int) -> list[Tensor]:
    """The bands of a Laplacian pyramid, none made smaller: their sum is the picture.

    (N, C, H, W) -> tensors of the same shape, from fine to coarse, each twice as coarse
    as the one before, as many as fit into pictures of `side` pixels; the last is what
    is left, with the mean. Source: Burt & Adelson 1983, without the subsampling.
    """
    bands, dilation = [], 1
    while 2 * dilation < side:
        coarser = _blurred(pictures, dilation)
        bands.append(pictures - coarser)
        pictures = coarser
        dilation *= 2
    return [*bands, pictures]


def _blurred(pictures: Tensor, dilation: int) -> Tensor:
    # Slices: a convolution of each channel by itself takes several times as long.
    blurred = F.pad(pictures, [2 * dilation] * 4, mode="reflect")
    for dim in (2, 3):
        size, padded = pictures.shape[dim], blurred
        blurred = torch.zeros_like(padded.narrow(dim, 0, size))
        for tap, weight in enumerate(_BINOMIAL):
            taken = padded.narrow(dim, tap * dilation, size)
            blurred = blurred.add_(taken, alpha=weight)
    return blurred


def _covariance(centred: Tensor) -> Tensor:
    """Of the channels of each picture, (N, C, C), whose channels have mean 0."""
    flat = centred.flatten(2)
    return flat @ flat.mT / flat.shape[2]


def _uncorrelated(x: Tensor) -> Tensor:
    """Channels of mean 0, variance 1 and no correlation, as close as that goes to x."""
    centred = x - x.mean((2, 3), keepdim=True)
    variance, axes = torch.linalg.eigh(_covariance(centred))
    scaled = axes / variance.clamp(min=_LEAST).sqrt()[:, None]
    return _mix(centred, scaled @ axes.mT)


def _mix(x: Tensor, matrix: Tensor) -> Tensor:
    """Linear maps of the channels: (N, C, H, W), (C, C) or (N, C, C)."""
    return (matrix @ x.flatten(2)).view_as(x)


def _quantiles(x: Tensor, count: int) -> Tensor:
    """(1, C, H, W) -> (1, C, count): means of as many equal shares of sorted values."""
    return F.adaptive_avg_pool1d(x.flatten(2).sort(2).values, count)


def _with_quantiles(x: Tensor, quantiles: Tensor) -> Tensor:
    """Each channel's values replaced by `quantiles` (1, C, H * W), in their order."""
    order = x.flatten(2).argsort(dim=2, stable=True)
    matched = torch.empty_like(x).flatten(2)
    return matched.scatter_(2, order, quantiles.expand_as(order)).view_as(x)
