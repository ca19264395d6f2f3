"""Between which norms GroupNorm lies, and what the order of channels means to it."""

from collections.abc import Sequence

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

    Both against those norms and against torch's layer_norm and instance_norm. No number
    of groups gives batch.
    """
    dice = torch.Generator().manual_seed(0)
    x = torch.randn(4, CHANNELS, 6, 6, generator=dice, dtype=torch.float64) * 2 + 1
    weight, bias = torch.randn(2, CHANNELS, generator=dice, dtype=torch.float64)

    def output(name: str, **options: int) -> Tensor:
        norm = make(name, CHANNELS, **options).double()
        norm.load_state_dict({"weight": weight, "bias": bias}, strict=False)
        return norm(x)

    gain, offset = weight[:, None, None], bias[:, None, None]
    by_torch = {
        "layer": F.layer_norm(x, x.shape[1:]) * gain + offset,
        "instance": F.instance_norm(x) * gain + offset,
    }
    of_groups = {g: output("group", num_groups=g) for g in (1, 2, 4, 8, CHANNELS)}
    off = {
        "layer_sample": difference(of_groups[1], output("layer_sample")),
        "layer_norm of torch": difference(of_groups[1], by_torch["layer"]),
        "instance": difference(of_groups[CHANNELS], output("instance")),
        "instance_norm of torch": difference(of_groups[CHANNELS], by_torch["instance"]),
    }
    others = {
        f"{g} groups against {name}": difference(y, end)
        for g, y in of_groups.items()
        for name, end in (by_torch | {"batch": output("batch")}).items()
        if (g, name) not in {(1, "layer"), (CHANNELS, "instance")}
    }
    return finding(
        off,
        others,
        "the ends are met to {deviation:.1g} ({worst}); all other pairs are "
        "{control:.2g} apart at least ({weakest})",
    )


@theorem("group-permutation")
def group_permutation() -> Finding:
    """A fixed permutation of the channels of group leaves training as it was.

    It is a reparametrisation. A plain network of three convolutions, each with a norm,
    on digits in float64: loss curves of 12 steps by SGD with momentum and by AdamW,
    both with weight decay, of group against group_permuted (order random_fixed) from
    permuted initial weights.
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
    """Those of 12 steps of the plain network, its initial weights `permuted` or not."""
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
    """Give channel permutation[i] of each norm what made, and reads, channel i."""
    layers = [*model.convolutions, model.head]
    for made, read, permutation in zip(
        layers[:-1], layers[1:], permutations, strict=True
    ):
        back = permutation.argsort()
        ours, theirs = made.get_parameter("weight"), read.get_parameter("weight")
        ours.copy_(ours[back])
        theirs.copy_(theirs[:, back])


class _Plain(nn.Module):
    """Convolution, norm, ReLU, three times, pooling, a linear head: (N, 1, H, W)."""

    def __init__(self, norm: NormFactory) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *(
                nn.Conv2d(inner, outer, 3, stride=2, padding=1, bias=False)
                for inner, outer in zip((1, *WIDTHS), WIDTHS, strict=False)
            )
        )
        self.norms = nn.Sequential(*(norm(width, nn.ReLU) for width in WIDTHS))
        self.head = nn.Linear(WIDTHS[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(convolution(x))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits
