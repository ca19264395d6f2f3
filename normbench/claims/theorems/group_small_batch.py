"""Check BatchNorm of one sample, and that WeightStd removes gains and offsets."""

import torch
from torch import Tensor, nn

from normbench.claims.theorems.base import Finding, difference, finding, theorem
from normbench.claims.theorems.networks import built, small, with_norm
from normbench.norms.base import Norm, make
from normbench.norms.ghost import Ghost
from normbench.norms.reparam import WeightStd

CHANNELS = 16


@theorem("batch-of-one")
def batch_of_one() -> Finding:
    """batch in training with one sample per norm batch is instance.

    Outputs and gradients are compared on images and on sequences, for a batch of 4 with
    norm_batch 1. The control has norm_batch 2.
    """
    alone: dict[str, float] = {}
    controls: dict[str, float] = {}
    for kind, shape in {"images": (6, 6), "sequences": (9,)}.items():
        generator = torch.Generator().manual_seed(0)
        x, cotangent = torch.randn(
            2, 4, CHANNELS, *shape, generator=generator, dtype=torch.float64
        )
        x = x * 2 + 1
        weight, bias = torch.randn(
            2, CHANNELS, generator=generator, dtype=torch.float64
        )
        state = {"weight": weight, "bias": bias}
        instance = _with_gradient(_loaded("instance", state), x, cotangent)
        for size, differences in ((1, alone), (2, controls)):
            batch = Ghost(_loaded("batch", state), size).train()
            pairs = zip(_with_gradient(batch, x, cotangent), instance, strict=True)
            for quantity, (a, b) in zip(("output", "gradient"), pairs, strict=True):
                differences[f"{quantity}, {kind}"] = difference(a, b)
    return finding(
        alone,
        controls,
        "at norm_batch 1 they differ by {deviation:.1g} at most ({worst}), at 2 by "
        "{control:.2g} at least ({weakest})",
    )


def _loaded(name: str, state: dict[str, Tensor]) -> Norm:
    norm = make(name, CHANNELS).double()
    norm.load_state_dict(state, strict=False)
    return norm


def _with_gradient(
    norm: nn.Module, x: Tensor, cotangent: Tensor
) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y: Tensor = norm(x)
    (gradient,) = torch.autograd.grad(y, x, cotangent)
    return y.detach(), gradient


@theorem("weight-std-gain-and-offset")
def weight_std_gain_and_offset() -> Finding:
    """With weight_std, no gain or offset of a filter's weights changes the network.

    Measured on the logits of the CNN in float64, with group, with batch and without a
    norm: the weights of every filter are multiplied by a number between 0.5 and 2 and
    shifted by a number between -1 and 1. The eps of weight_std is 1e-18.
    """
    standardized, plain = (
        {norm: _change_of_logits(reparam, norm) for norm in ("group", "batch", "none")}
        for reparam in ("weight_std", "none")
    )
    return finding(
        standardized,
        plain,
        "the logits move by {deviation:.1g} at most (norm={worst}), without weight_std "
        "by {control:.2g} at least (norm={weakest})",
    )


@torch.no_grad()
def _change_of_logits(reparam: str, norm: str) -> float:
    """Return the change of the logits when all filters get random gains and offsets."""
    config = with_norm(small("cnn", f"reparam={reparam}"), norm)
    task, network = built(config, torch.float64)
    model = network.model.train()
    inputs = task.inputs(task.splits["train"][:16])
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, WeightStd):
            module.eps = 1e-18
    logits: Tensor = model(*inputs)
    for weights in model.parameters():
        if weights.dim() == 4:  # the filters of a convolution
            shape = (len(weights), 1, 1, 1)
            gain, offset = torch.rand(
                2, *shape, generator=generator, dtype=weights.dtype
            )
            weights.mul_(gain * 1.5 + 0.5).add_(offset * 2 - 1)
    return difference(model(*inputs), logits)
