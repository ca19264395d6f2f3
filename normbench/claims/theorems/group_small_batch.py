"""What remains of batch at one sample, and what weight standardization takes away."""

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

    Outputs and gradients, on images and on sequences; norm_batch 1 of a batch of 4.
    """
    alone: dict[str, float] = {}
    controls: dict[str, float] = {}
    for kind, shape in {"images": (6, 6), "sequences": (9,)}.items():
        dice = torch.Generator().manual_seed(0)
        x, cotangent = torch.randn(
            2, 4, CHANNELS, *shape, generator=dice, dtype=torch.float64
        )
        x = x * 2 + 1
        weight, bias = torch.randn(2, CHANNELS, generator=dice, dtype=torch.float64)
        state = {"weight": weight, "bias": bias}
        instance = _with_gradient(_loaded("instance", state), x, cotangent)
        for size, into in ((1, alone), (2, controls)):
            batch = Ghost(_loaded("batch", state), size).train()
            both = _with_gradient(batch, x, cotangent)
            for what, a, b in zip(("output", "gradient"), both, instance, strict=True):
                into[f"{what}, {kind}"] = difference(a, b)
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

    The CNN in float64: the logits when every filter's weights are multiplied by 0.5 to
    2 and moved by -1 to 1, with group, batch and without a norm; eps of weight_std
    1e-18.
    """
    standardized, plain = (
        {norm: _moved(reparam, norm) for norm in ("group", "batch", "none")}
        for reparam in ("weight_std", "none")
    )
    return finding(
        standardized,
        plain,
        "the logits move by {deviation:.1g} at most (norm={worst}), without weight_std "
        "by {control:.2g} at least (norm={weakest})",
    )


@torch.no_grad()
def _moved(reparam: str, norm: str) -> float:
    """How far other gains and offsets of all filters move the logits."""
    config = with_norm(small("cnn", f"reparam={reparam}"), norm)
    task, network = built(config, torch.float64)
    model = network.model.train()
    inputs = task.inputs(task.splits["train"][:16])
    dice = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, WeightStd):
            module.eps = 1e-18
    before: Tensor = model(*inputs)
    for weights in model.parameters():
        if weights.dim() == 4:  # of a convolution
            shape = (len(weights), 1, 1, 1)
            gain, offset = torch.rand(2, *shape, generator=dice, dtype=weights.dtype)
            weights.mul_(gain * 1.5 + 0.5).add_(offset * 2 - 1)
    return difference(model(*inputs), before)
