"""What pads do to the statistics of a norm batch.

Of a channel's values in one norm batch, those at real positions have mean mu_real and
standard deviation sd_real, those at pads mu_pad and sd_pad, all of them mu_all and
sd_all, and the share p are pads. For a norm that takes its statistics over all,

    scale           log(sd_all / sd_real): by how much real values leave it too small
    shift           |mu_all - mu_real| / sd_real: by how much they leave it off centre
    variance_share  (p sd_pad^2 + p (1 - p) (mu_real - mu_pad)^2) / sd_all^2: the share
                    of the variance that pads make, by the law of total variance;
                    descriptive, since a share as such harms nothing
    pad_share       p

each the mean over channels, norm batches and layers. A gain absorbs what is the same in
all batches; what it cannot absorb is

    scale_spread, shift_spread  sd between norm batches of a channel's scale and of its
                                shift with its sign, mean over channels and layers
    pad_share_spread            sd between norm batches of p
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

    Over training batches as trained, whatever the norm does with its mask. Where the
    real values of a channel are constant it has no scale and no shift. A network that
    gives its norms no mask has no quantity.
    """
    layers = defaultdict[int, list[Tensor]](list)
    shares = defaultdict[int, list[Tensor]](list)

    def see(layer: int, values: Tensor, real: Tensor | None) -> None:
        if real is not None:
            layers[layer].append(_distortion(values, real))
            shares[layer].append(1 - real.double().mean())

    visit_norm_batches(trained, see)
    if not layers:
        return {}
    found = [torch.stack(batches) for batches in layers.values()]
    scale, shift, share = (
        torch.stack([layer[:, i] for layer in found]) for i in range(3)
    )
    pads = torch.stack([torch.stack(batches) for batches in shares.values()])
    return {
        "scale": scale.nanmean().item(),
        "scale_spread": _spread(scale),
        "shift": shift.abs().nanmean().item(),
        "shift_spread": _spread(shift),
        "variance_share": share.nanmean().item(),
        "pad_share": pads.mean().item(),
        "pad_share_spread": variance_between_batches(pads.T).sqrt().mean().item(),
    }


def _distortion(values: Tensor, real: Tensor) -> Tensor:
    """Scale, signed shift, share of the variance: (3, C) of (n, T, C) and (n, T)."""
    everything = values.flatten(0, 1)
    var_all, mu_all = torch.var_mean(everything, 0, correction=0)
    var_real, mu_real = torch.var_mean(values[real], 0, correction=0)
    var_real = torch.where(var_real > 0, var_real, torch.nan)
    scale = (var_all / var_real).log() / 2
    shift = (mu_all - mu_real) / var_real.sqrt()
    share = 1 - real.double().mean() * var_real / var_all
    return torch.stack([scale, shift, share])


def _spread(values: Tensor) -> float:
    """Mean over layers and channels of the sd between batches: (layers, batches, C)."""
    return (
        torch.stack([variance_between_batches(v).sqrt() for v in values])
        .nanmean()
        .item()
    )
