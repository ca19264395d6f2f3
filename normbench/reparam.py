"""Reparametrisations of convolution weights, put on a model after it is built."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

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
        if w[0].numel() <= 1:
            raise Incompatible(
                "reparam=weight_std needs more than one weight per output channel, and "
                f"a convolution has weights of shape {tuple(w.shape)}"
            )
        return F.layer_norm(w, w.shape[1:], eps=self.eps)


REPARAMS: dict[str, type[nn.Module] | None] = {"none": None, "weight_std": WeightStd}
"""What may be asked for, by name."""


def apply(model: nn.Module, name: str) -> None:
    """Put reparametrisation `name` on all convolutions but `model.output_layers`.

    The weight that is trained becomes `parametrizations.weight.original`. Draws no
    random number. Raises RequestError for an unknown name, Incompatible if the model
    has no convolution to put it on.
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
    for convolution in convolutions:
        parametrize.register_parametrization(convolution, "weight", reparam())
