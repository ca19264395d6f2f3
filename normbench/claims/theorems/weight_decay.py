"""Check what weight decay does to weights whose scale a norm removes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from normbench.claims.theorems.base import Finding, finding, theorem
from normbench.claims.theorems.networks import built, fitted, small, with_norm
from normbench.config.schema import RunConfig
from normbench.training.decay import scale_invariant_weights

STEPS = 20
SGD = ("lr=0.1", "optimizer.nesterov=false", "optimizer.weight_decay=0.3")
NORMS = ("batch", "group")


@theorem("weight-decay-scale")
def weight_decay_scale() -> Finding:
    """Under a norm, weight decay turns weights just as a rising learning rate does.

    Measured on the CNN in float64 with an eps of 1e-18. The gradient of every
    convolution is orthogonal to its weights, and half as large if all convolutions are
    twice as large. After 20 steps of SGD with weight decay, the directions of the
    convolutions are those after 20 steps without it at the rate of
    `normbench/training/decay.py`, for a momentum of 0 and of .5. The controls are the
    same network without a norm, and no weight decay at the same rate.
    """
    deviations: dict[str, float] = {}
    controls: dict[str, float] = {}
    for norm in (*NORMS, "none"):
        options = {} if norm == "none" else {"eps": 1e-18}
        start = with_norm(small("cnn", *SGD), norm, **options)
        figures = controls if norm == "none" else deviations
        cosine, size = _gradient_figures(start)
        figures |= {f"cosine, {norm}": cosine, f"size, {norm}": size}
        for momentum in (0.0, 0.5):
            case = f"directions at momentum {momentum}, {norm}"
            config = _with_sgd(start, momentum=momentum)
            decayed = _directions(config)
            scheduled = _directions(_with_sgd(config, decay_as="lr_schedule"))
            figures[case] = _largest_change(scheduled, decayed)
            if norm != "none":
                undecayed = _directions(_with_sgd(config, weight_decay=0.0))
                controls[f"{case}, no decay"] = _largest_change(undecayed, decayed)
    return finding(
        deviations,
        controls,
        "gradients and directions are off by {deviation:.1g} at most ({worst}), and in "
        "the controls by {control:.2g} at least ({weakest})",
    )


def _with_sgd(config: RunConfig, **changes: object) -> RunConfig:
    optimizer = config.optimizer.model_copy(update=changes)
    return config.model_copy(update={"optimizer": optimizer})


def _gradient_figures(config: RunConfig) -> tuple[float, float]:
    """Return two figures of the gradients, the largest of all convolutions.

    The first is the cosine of the angle between gradient and weights. The second is the
    relative change of weights times gradient if all weights are multiplied by 2.
    """
    task, network = built(config, torch.float64)
    model = network.model.train()
    weights = scale_invariant_weights(model)
    index = task.splits["train"][: config.batch_size]
    once = torch.autograd.grad(task.loss(model, index), weights)
    cosine = max(
        nn.functional.cosine_similarity(weight.flatten(), gradient.flatten(), dim=0)
        .abs()
        .item()
        for weight, gradient in zip(weights, once, strict=True)
    )
    with torch.no_grad():
        for weight in weights:
            weight.mul_(2)
    twice = torch.autograd.grad(task.loss(model, index), weights)
    return cosine, _largest_change([2 * gradient for gradient in twice], once)


def _directions(config: RunConfig) -> list[Tensor]:
    """Return the weights of all convolutions divided by their norms, after STEPS."""
    task, network = built(config, torch.float64)
    fitted(config, task, network, STEPS)
    weights = scale_invariant_weights(network.model)
    return [weight.detach() / weight.detach().norm() for weight in weights]


def _largest_change(after: Sequence[Tensor], before: Sequence[Tensor]) -> float:
    """Return the largest relative change |a - b| / |b| of the tensors."""
    changes = [(a - b).norm() / b.norm() for a, b in zip(after, before, strict=True)]
    return float(torch.stack(changes).max())
