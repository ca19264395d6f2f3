"""Reparametrisations of convolution weights, put on a model after it is built."""

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from normbench.errors import Incompatible, RequestError, did_you_mean


class WeightStd(nn.Module):
    """Weight standardization (Qiao et al. 2019): (w - mean) / sqrt(var + eps).

    Mean and biased variance of each output channel of `w` (Cout, Cin, *kernel) over
    everything else. eps is 1e-5 under the root, as in the paper's formula; the authors'
    code adds it to the unbiased deviation, timm uses 1e-6. Raises Incompatible where an
    output channel has a single weight.
    """

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, w: Tensor) -> Tensor:
        return _standardised(w, self.eps, "weight_std")


class ScaledWeightStd(nn.Module):
    """Scaled weight standardization (Brock et al. 2021).

    gain * (w - mean) / sqrt((var + eps) * fan_in): as WeightStd, with fan_in the number
    of weights of an output channel and a learned gain (Cout,), 1 at first, so that an
    input of variance 1 gives about that. The paper's gamma, which makes up for what an
    activation takes (1.71 for a ReLU), is 1 here: the gain can learn it, and a
    convolution does not know what comes before it. As timm's ScaledStdConv2d.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, w: Tensor) -> Tensor:
        gain = self.gain.view(-1, *(1,) * (w.dim() - 1))
        scale = gain / math.sqrt(w[0].numel())
        return _standardised(w, self.eps, "scaled_weight_std") * scale


def _standardised(w: Tensor, eps: float, reparam: str) -> Tensor:
    if w[0].numel() <= 1:
        raise Incompatible(
            f"reparam={reparam} needs more than one weight per output channel, "
            f"and a convolution has weights of shape {tuple(w.shape)}"
        )
    return F.layer_norm(w, w.shape[1:], eps=eps)


def _weight_std(convolution: nn.Module) -> None:
    parametrize.register_parametrization(convolution, "weight", WeightStd())


def _scaled_weight_std(convolution: nn.Module) -> None:
    weight = cast(Tensor, convolution.weight)
    scaled = ScaledWeightStd(len(weight)).to(weight)
    parametrize.register_parametrization(convolution, "weight", scaled)


REPARAMS: dict[str, Callable[[nn.Module], object] | None] = {
    "none": None,
    "weight_std": _weight_std,
    "scaled_weight_std": _scaled_weight_std,
    # Salimans & Kingma 2016: g * v / |v|, per output channel.
    "weight_norm": parametrizations.weight_norm,
    # Miyato et al. 2018: w / its largest singular value, by one step of power iteration
    # in each training forward; evaluation keeps the vectors of training.
    "spectral_norm": parametrizations.spectral_norm,
}
"""What may be asked for, by name."""


def apply(model: nn.Module, name: str) -> None:
    """Put reparametrisation `name` on all convolutions but `model.output_layers`.

    The weight that is trained becomes `parametrizations.weight.original` (`original0`,
    the gain, and `original1` for weight_norm). What is drawn depends on the global
    random stream and leaves it as it was. Raises RequestError for an unknown name,
    Incompatible if the model has no convolution to put it on.
    """
    if name not in REPARAMS:
        raise RequestError(
            f"reparam={name!r} is unknown; {did_you_mean(name, REPARAMS)}"
        )
    reparam = REPARAMS[name]
    if reparam is None:
        return
    last = cast("list[nn.Module]", model.output_layers)
    excluded = {id(part) for layer in last for part in layer.modules()}
    convolutions = [
        module
        for module in model.modules()
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        and id(module) not in excluded
    ]
    if not convolutions:
        raise Incompatible(
            f"reparam={name} needs convolutions; "
            f"{type(model).__name__} has none besides its output layers"
        )
    with torch.random.fork_rng(devices=[]):
        for convolution in convolutions:
            reparam(convolution)
