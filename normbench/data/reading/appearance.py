"""Give all crops the same contrast, or the statistics of one style picture.

Huang & Belongie 2017 ("Arbitrary Style Transfer in Real-time with Adaptive Instance
Normalization", section 4) train on raw, on contrast-normalised and on style-normalised
photographs. They ask which of these changes makes instance normalization unnecessary.
`equalize_luminance` normalises contrast as they do. To normalise style, they redraw
each photograph with a trained network. In contrast, `impose_style` sets the statistics
of filters in closed form (Heeger & Bergen 1995, "Pyramid-Based Texture
Analysis/Synthesis"). `impose_style` uses no trained network, so it favours no norm.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

FORMAT = 1

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""

ITERATIONS = 3
"""Iterations of `impose_style`. More of them would hardly make crops more alike."""

_CHUNK = 64
"""Number of crops processed at once. The bands of some hundred crops need 1 GB."""

# The smoothing kernel of Burt & Adelson 1983, with a = 3/8.
_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)

_MIN_VARIANCE = 1e-8
"""Smaller variances are raised to this: 1/100 of the variance of rounding errors."""


def luminance(pictures: Tensor) -> Tensor:
    """Return the luminance (N, 1, H, W) of `pictures` (N, 3, H, W)."""
    weights = torch.tensor(LUMINANCE, dtype=pictures.dtype)
    return (pictures * weights.view(3, 1, 1)).sum(1, keepdim=True)


def equalize_luminance(crops: Tensor) -> Tensor:
    """Equalise the luminance histogram of each crop; shapes (N, 3, H, W), in [0, 1].

    The new luminance of a pixel is the share of darker pixels in its crop plus half the
    share of equally dark pixels. Its mean over the pixels of a crop is always 1/2. The
    differences between the channels of a pixel are kept. If a channel would leave
    [0, 1], the differences are reduced, and the luminance stays the same.
    """
    original = luminance(crops)
    values = original.flatten(1).contiguous()
    ordered = values.sort(1).values
    darker = torch.searchsorted(ordered, values)
    equally_dark = torch.searchsorted(ordered, values, right=True) - darker
    equalized = ((darker + equally_dark / 2) / values.shape[1]).view_as(original)
    colour = crops - original
    # The distance between the luminance and the bound to which a channel moves.
    margin = torch.where(colour > 0, 1 - equalized, equalized)
    # The factor that moves the channel to this bound.
    room = margin / colour.abs().clamp(min=1e-6)
    return equalized + colour * room.amin(1, keepdim=True).clamp(max=1)


def impose_style(
    crops: Tensor, style: Tensor, *, iterations: int = ITERATIONS
) -> Tensor:
    """Give each crop the style statistics of a picture, and keep its content.

    `crops` (N, 3, H, W) and `style` (3, H', W') are in [0, 1], like the result (N, 3,
    H, W). The colours are first rotated to axes in which the colours of the style are
    uncorrelated. Three statistics are then set: the means and covariances of the
    channels, the histogram of each band of a Laplacian pyramid, and the histogram of
    each channel. This is repeated `iterations` times, because each step slightly
    changes the result of the others. Histograms are matched by rank, so bright pixels
    stay bright and edges stay edges.

    Equal values, as in a black sky, have no ranks. Therefore noise is added, smaller
    than one step of 8 bits. The noise is the same in every call. Areas of equal values
    become texture, as the noise of Heeger & Bergen becomes texture. The orientations of
    the style are not imposed.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(crops.shape, generator=generator, dtype=crops.dtype)
    mean = style.mean((1, 2), keepdim=True)
    variance, axes = torch.linalg.eigh(_covariance((style - mean)[None])[0])
    scale = variance.clamp(min=_MIN_VARIANCE).sqrt().view(3, 1, 1)
    # The style in the new axes, with variance 1.
    reference = _mix((style - mean)[None], axes.T) / scale
    side = min(*crops.shape[2:], *style.shape[1:])
    size = crops[0, 0].numel()
    band_quantiles = [_quantiles(band, size) for band in pyramid(reference, side)]
    pixel_quantiles = _quantiles(reference, size)
    styled = []
    for x in _mix(crops + (noise - 0.5) / 255, axes.T).split(_CHUNK):
        for _ in range(iterations):
            matched = map(
                _with_quantiles, pyramid(_uncorrelated(x), side), band_quantiles
            )
            # The sum of the bands is the picture.
            x = _with_quantiles(sum(matched, torch.zeros_like(x)), pixel_quantiles)
        styled.append(_mix(x * scale, axes))
    return (torch.cat(styled) + mean).clamp(0, 1)


def pyramid(pictures: Tensor, side: int) -> list[Tensor]:
    """Return the bands of a Laplacian pyramid of `pictures` (N, C, H, W).

    All bands have the shape of `pictures`, and their sum equals `pictures`. Each band
    is twice as coarse as the band before. There are as many bands as fit into `side`
    pixels. The last band is the remainder, which contains the mean. Source: Burt &
    Adelson 1983, without the subsampling.
    """
    bands, dilation = [], 1
    while 2 * dilation < side:
        coarser = _blurred(pictures, dilation)
        bands.append(pictures - coarser)
        pictures = coarser
        dilation *= 2
    return [*bands, pictures]


def _blurred(pictures: Tensor, dilation: int) -> Tensor:
    # Adding slices is several times faster than a depthwise convolution.
    blurred = F.pad(pictures, [2 * dilation] * 4, mode="reflect")
    for dim in (2, 3):  # blur vertically, then horizontally
        size, padded = pictures.shape[dim], blurred
        blurred = torch.zeros_like(padded.narrow(dim, 0, size))
        for tap, weight in enumerate(_BINOMIAL):
            shifted = padded.narrow(dim, tap * dilation, size)
            blurred = blurred.add_(shifted, alpha=weight)
    return blurred


def _covariance(centred: Tensor) -> Tensor:
    """Return the covariances (N, C, C) of channels whose mean is 0."""
    flat = centred.flatten(2)
    return flat @ flat.mT / flat.shape[2]


def _uncorrelated(x: Tensor) -> Tensor:
    """Return the channels of x with mean 0, variance 1 and no correlation.

    Many linear maps have such a result. This function uses the map that changes x least
    (ZCA whitening).
    """
    centred = x - x.mean((2, 3), keepdim=True)
    variance, axes = torch.linalg.eigh(_covariance(centred))
    scaled = axes / variance.clamp(min=_MIN_VARIANCE).sqrt()[:, None]
    return _mix(centred, scaled @ axes.mT)


def _mix(x: Tensor, matrix: Tensor) -> Tensor:
    """Multiply the channels of x (N, C, H, W) by a matrix (C, C) or (N, C, C)."""
    return (matrix @ x.flatten(2)).view_as(x)


def _quantiles(x: Tensor, count: int) -> Tensor:
    """Divide the sorted values of x (1, C, H, W) into `count` bins of equal size.

    Return the means of the bins (1, C, count).
    """
    return F.adaptive_avg_pool1d(x.flatten(2).sort(2).values, count)


def _with_quantiles(x: Tensor, quantiles: Tensor) -> Tensor:
    """Replace the values of each channel by `quantiles` (1, C, H * W), rank by rank."""
    order = x.flatten(2).argsort(dim=2, stable=True)
    matched = torch.empty_like(x).flatten(2)
    return matched.scatter_(2, order, quantiles.expand_as(order)).view_as(x)
