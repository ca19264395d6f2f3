"""Probe `pad_statistics`: the effect of padding tokens on the statistics of a norm.

Take the values of one channel in one norm batch. p is the share of padding positions.
The mean and the standard deviation are mu_real and sd_real over real positions, mu_pad
and sd_pad over padding positions, and mu_all and sd_all over all positions. For a norm
with statistics over all positions, the probe measures

    scale           log(sd_all / sd_real): normalized real values have a standard
                    deviation of exp(-scale) instead of 1
    shift           |mu_all - mu_real| / sd_real: the distance of their mean from 0,
                    in units of sd_real
    variance_share  (p sd_pad^2 + p (1 - p) (mu_real - mu_pad)^2) / sd_all^2: the share
                    of the variance that padding causes, by the law of total variance
    pad_share       p

The four numbers are means over channels, norm batches and layers. The gain and the bias
of a norm can compensate a scale and a shift that are the same in all batches. They
cannot compensate differences between batches, which the probe measures by

    scale_spread      the standard deviation of scale between norm batches
    shift_spread      the standard deviation of (mu_all - mu_real) / sd_real between
                      norm batches
    pad_share_spread  the standard deviation of p between norm batches

scale_spread and shift_spread are computed for each channel, then averaged over channels
and layers.
"""

from collections import defaultdict

import torch
from torch import Tensor

from normbench.data.base import Tokens
from normbench.probes.base import PROBES, Trained
from normbench.probes.inputs import variance_between_batches, visit_norm_batches


@PROBES("pad_statistics", data=Tokens)
def pad_statistics(trained: Trained) -> dict[str, float]:
    """Scale and shift of the statistics by pads, and their spread between batches.

    The inputs are training batches, padded as in training. The numbers depend only on
    the input and the mask of a norm, not on whether the norm uses the mask. A channel
    whose real values are constant in a norm batch is left out of scale, shift and
    variance_share of that batch. The result is empty if the norms get no mask.
    """
    distortions = defaultdict[int, list[Tensor]](list)
    pad_shares = defaultdict[int, list[Tensor]](list)

    def add(layer: int, values: Tensor, real: Tensor | None) -> None:
        if real is not None:
            distortions[layer].append(_distortion(values, real))
            pad_shares[layer].append(1 - real.double().mean())

    visit_norm_batches(trained, add)
    if not distortions:
        return {}
    layers = [torch.stack(batches) for batches in distortions.values()]
    # Each of the three tensors has the shape (layers, batches, C).
    scale, shift, variance_share = (
        torch.stack([layer[:, i] for layer in layers]) for i in range(3)
    )
    pads = torch.stack([torch.stack(batches) for batches in pad_shares.values()])
    return {
        "scale": scale.nanmean().item(),
        "scale_spread": _spread(scale),
        "shift": shift.abs().nanmean().item(),
        "shift_spread": _spread(shift),
        "variance_share": variance_share.nanmean().item(),
        "pad_share": pads.mean().item(),
        "pad_share_spread": variance_between_batches(pads.T).sqrt().mean().item(),
    }


def _distortion(values: Tensor, real: Tensor) -> Tensor:
    """Return (3, C): scale, signed shift and share of the variance of every channel.

    `values` (n, T, C) are the inputs of a norm, `real` (n, T) their mask.
    """
    var_all, mu_all = torch.var_mean(values.flatten(0, 1), 0, correction=0)
    var_real, mu_real = torch.var_mean(values[real], 0, correction=0)
    var_real = torch.where(var_real > 0, var_real, torch.nan)
    scale = (var_all / var_real).log() / 2
    shift = (mu_all - mu_real) / var_real.sqrt()
    # The real positions cause the rest of the variance: (1 - p) sd_real^2.
    variance_share = 1 - real.double().mean() * var_real / var_all
    return torch.stack([scale, shift, variance_share])


def _spread(values: Tensor) -> float:
    """Return the standard deviation between batches of (layers, batches, C).

    It is the mean over layers and channels.
    """
    sds = [variance_between_batches(layer).sqrt() for layer in values]
    return torch.stack(sds).nanmean().item()
