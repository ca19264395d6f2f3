"""Check the two extremes of GroupNorm, and the effect of the order of its channels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.claims.theorems.base import Finding, difference, finding, theorem
from normbench.claims.theorems.networks import fitted, in_dtype, small, with_norm
from normbench.config.schema import RunConfig
from normbench.norms.base import make
from normbench.norms.factory import NormFactory
from normbench.training.network import Network, make_task

CHANNELS = 16
GROUPS = 4
WIDTHS = (16, 24, 16)


@theorem("group-ends")
@torch.no_grad()
def group_ends() -> Finding:
    """group with one group is layer_sample, with a channel a group it is instance.

    The norm group with 1 and with 16 groups is compared with layer_sample, instance and
    torch's layer_norm and instance_norm. The controls compare each number of groups
    with layer_norm, instance_norm and batch, except for the two pairs that are equal.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, CHANNELS, 6, 6, generator=generator, dtype=torch.float64) * 2 + 1
    weight, bias = torch.randn(2, CHANNELS, generator=generator, dtype=torch.float64)

    def output(name: str, **options: Any) -> Tensor:
        norm = make(name, CHANNELS, **options).double()
        norm.load_state_dict({"weight": weight, "bias": bias}, strict=False)
        return norm(x)

    gain, offset = weight[:, None, None], bias[:, None, None]
    by_torch = {
        "layer": F.layer_norm(x, x.shape[1:]) * gain + offset,
        "instance": F.instance_norm(x) * gain + offset,
    }
    output_of_groups = {
        g: output("group", num_groups=g) for g in (1, 2, 4, 8, CHANNELS)
    }
    deviations = {
        "layer_sample": difference(output_of_groups[1], output("layer_sample")),
        "layer_norm of torch": difference(output_of_groups[1], by_torch["layer"]),
        "instance": difference(output_of_groups[CHANNELS], output("instance")),
        "instance_norm of torch": difference(
            output_of_groups[CHANNELS], by_torch["instance"]
        ),
    }
    controls = {
        f"{g} groups against {name}": difference(y, reference)
        for g, y in output_of_groups.items()
        for name, reference in (by_torch | {"batch": output("batch")}).items()
        if (g, name) not in {(1, "layer"), (CHANNELS, "instance")}
    }
    return finding(
        deviations,
        controls,
        "the ends are met to {deviation:.1g} ({worst}); all other pairs are "
        "{control:.2g} apart at least ({weakest})",
    )


@theorem("group-permutation")
def group_permutation() -> Finding:
    """A fixed permutation of the channels of group leaves training as it was.

    The permutation is a reparametrisation. A plain network of three convolutions, each
    with a norm, learns digits in float64 for 12 steps, with SGD with momentum and with
    AdamW, both with weight decay. The losses with group are compared with the losses
    with group_permuted (order random_fixed) and permuted initial weights.
    """
    apart: dict[str, float] = {}
    controls: dict[str, float] = {}
    for optimizer, lr in (("sgd", 0.1), ("adamw", 0.003)):
        config = small("cnn", f"optimizer={optimizer}", f"lr={lr}")
        adjacent, fixed, redrawn = (
            with_norm(config, name, num_groups=GROUPS, **options)
            for name, options in (
                ("group", {}),
                ("group_permuted", {"order": "random_fixed"}),
                ("group_permuted", {"order": "random_each_forward"}),
            )
        )
        losses = _losses(adjacent)
        apart[optimizer] = difference(_losses(fixed, permuted=True), losses)
        controls |= {
            f"drawn anew, {optimizer}": difference(_losses(redrawn), losses),
            f"weights as they were, {optimizer}": difference(_losses(fixed), losses),
        }
    return finding(
        apart,
        controls,
        "loss curves differ by {deviation:.1g} at most ({worst}); in the controls by "
        "{control:.2g} at least ({weakest})",
    )


def _losses(config: RunConfig, permuted: bool = False) -> Tensor:
    """Return the losses (12,) of the plain network.

    If `permuted`, the initial weights are permuted as the channels of the norms are.
    """
    options = config.norm.options
    norms = NormFactory(config.norm.name, options, config.norm_batch)
    task = make_task(config, torch.device("cpu"))
    torch.manual_seed(config.seed)
    model = _Plain(norms)
    if permuted:
        _permute(model, [norm.get_buffer("permutation") for norm in norms.modules])
    network = Network(in_dtype(model, torch.float64), norms)
    return fitted(config, task, network, steps=12).losses


@torch.no_grad()
def _permute(model: "_Plain", permutations: Sequence[Tensor]) -> None:
    """Move the weights of channel i to channel permutation[i], for each permutation.

    These are the weights that compute the channel (rows of the layer before the norm)
    and the weights that read it (columns of the layer after the norm).
    """
    layers = [*model.convolutions, model.head]
    for before, after, permutation in zip(
        layers[:-1], layers[1:], permutations, strict=True
    ):
        # inverse[permutation[i]] is i, so row i moves to row permutation[i].
        inverse = permutation.argsort()
        rows, columns = before.get_parameter("weight"), after.get_parameter("weight")
        rows.copy_(rows[inverse])
        columns.copy_(columns[:, inverse])


class _Plain(nn.Module):
    """Three times convolution, norm and ReLU, then pooling and a linear head.

    Takes images (N, 1, H, W) and returns logits (N, 10).
    """

    def __init__(self, norm: NormFactory) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *(
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
                for inputs, outputs in zip((1, *WIDTHS), WIDTHS, strict=False)
            )
        )
        self.norms = nn.Sequential(*(norm(width, nn.ReLU) for width in WIDTHS))
        self.head = nn.Linear(WIDTHS[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(convolution(x))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits
