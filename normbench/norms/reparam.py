"""Reparametrizations of convolution weights, applied to a model after its creation."""

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from normbench.errors import Incompatible
from normbench.registry import Functions


class WeightStd(nn.Module):
    """Weight standardization (Qiao et al. 2019): (w - mean) / sqrt(var + eps).

    mean and var are the mean and the biased variance of the weights of each output
    channel of `w` (Cout, Cin, *kernel). eps is 1e-5 under the root, as in the paper's
    formula. The authors' code adds eps to the unbiased deviation; timm uses 1e-6.
    Raises Incompatible if an output channel has a single weight.
    """

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, w: Tensor) -> Tensor:
        return _standardize(w, self.eps, "weight_std")


class ScaledWeightStd(nn.Module):
    """Scaled weight standardization (Brock et al. 2021).

    The weight becomes gain * (w - mean) / sqrt((var + eps) * fan_in), with mean and var
    as in WeightStd.
    fan_in is the number of weights of an output channel. gain (Cout,) is learned and
    starts at 1. An input of variance 1 then gives an output of variance about 1.
    The paper's gamma corrects for the variance that an activation removes (1.71 for a
    ReLU). gamma is 1 here, because a convolution does not know the previous layer, and
    the gain can learn gamma. The result is the same as in timm's ScaledStdConv2d.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, w: Tensor) -> Tensor:
        gain = self.gain.view(-1, *(1,) * (w.dim() - 1))  # (Cout, 1, ..., 1)
        scale = gain / math.sqrt(w[0].numel())
        return _standardize(w, self.eps, "scaled_weight_std") * scale


def _standardize(w: Tensor, eps: float, reparam: str) -> Tensor:
    if w[0].numel() <= 1:
        raise Incompatible(
            f"reparam={reparam} needs more than one weight per output channel, "
            f"but a convolution has weights of shape {tuple(w.shape)}"
        )
    # layer_norm computes the statistics of each output channel separately.
    return F.layer_norm(w, w.shape[1:], eps=eps)


Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d

REPARAMS: Functions[Callable[[nn.Module], object]] = Functions(
    "reparam", "normbench.norms.reparam"
)
"""The choices of `reparam=`: functions that change one convolution."""


@REPARAMS("none")
def none(convolution: nn.Module) -> None:
    """No reparametrization: the weight is used unchanged."""


@REPARAMS("weight_std")
def weight_std(convolution: nn.Module) -> None:
    """Weight standardization: each filter has mean 0 and variance 1."""
    parametrize.register_parametrization(convolution, "weight", WeightStd())


@REPARAMS("scaled_weight_std")
def scaled_weight_std(convolution: nn.Module) -> None:
    """Weight standardization with a learned gain per filter, scaled by the fan-in."""
    weight = cast(Tensor, convolution.weight)
    scaled = ScaledWeightStd(len(weight)).to(weight)
    parametrize.register_parametrization(convolution, "weight", scaled)


@REPARAMS("weight_norm")
def weight_norm(convolution: nn.Module) -> None:
    """Weight normalization: g * v / |v| per output channel (Salimans & Kingma 2016)."""
    parametrizations.weight_norm(convolution)


@REPARAMS("spectral_norm")
def spectral_norm(convolution: nn.Module) -> None:
    """Divide the weight by its largest singular value (Miyato et al. 2018).

    Each training forward does one step of power iteration; evaluation does none.
    """
    parametrizations.spectral_norm(convolution)


def normalized_convolutions(model: nn.Module) -> list[Convolution]:
    """Return all convolutions that a norm follows: all except `model.output_layers`.

    Raises Incompatible for a network without `output_layers`.
    """
    if not hasattr(model, "output_layers"):
        raise Incompatible(
            f"which convolutions a norm follows is unknown in {type(model).__name__}; "
            "use reparam=none and optimizer.decay_as=weight_decay"
        )
    output_layers = cast("list[nn.Module]", model.output_layers)
    excluded = {id(module) for layer in output_layers for module in layer.modules()}
    return [
        module
        for module in model.modules()
        if isinstance(module, Convolution) and id(module) not in excluded
    ]


def apply(model: nn.Module, name: str) -> None:
    """Apply reparametrization `name` to all convolutions except `model.output_layers`.

    The trained parameter is then `parametrizations.weight.original`. weight_norm trains
    two parameters: `original0`, the gain, and `original1`. Random initial values depend
    on the global random state, and this function restores that state. Raises
    RequestError for an unknown name, and Incompatible if the model has no convolutions
    except the output layers.
    """
    reparam = REPARAMS.get(name)
    if name == "none":
        return
    convolutions = normalized_convolutions(model)
    if not convolutions:
        raise Incompatible(
            f"reparam={name} needs convolutions; "
            f"{type(model).__name__} has none besides its output layers"
        )
    with torch.random.fork_rng(devices=[]):
        for convolution in convolutions:
            reparam(convolution)
