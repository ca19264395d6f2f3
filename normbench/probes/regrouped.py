"""How much a network has adapted to the groups of its norms (Wu & He 2018's)."""

import copy

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from normbench.norms.base import Norm
from normbench.probes.base import PROBES, Trained
from normbench.probes.inputs import inner_norm

DRAWS = 5


@PROBES("regrouped")
def regrouped(trained: Trained) -> dict[str, float]:
    """What the test split loses when channels are grouped anew, without retraining.

    The groups of every norm are drawn at random, of the same sizes; each channel keeps
    its gain, its bias and its place in the network. The task's primary metric and the
    loss after it, mean of DRAWS draws, minus before, as "error_increase" (its unit: a
    share) and "loss_increase". For norms with `num_groups`; others have no quantity.
    """
    if not all(hasattr(inner_norm(module), "num_groups") for module in trained.norms):
        return {}
    before = _metrics(trained, trained.model)
    draws = []
    for _ in range(DRAWS):
        model, norms = copy.deepcopy((trained.model, list(trained.norms)))
        for module in norms:
            _regroup(inner_norm(module))
        draws.append(_metrics(trained, model))
    return {
        f"{key}_increase": sum(draw[key] - before[key] for draw in draws) / DRAWS
        for key in sorted({trained.task.primary_metric, "loss"})
    }


def _metrics(trained: Trained, model: nn.Module) -> dict[str, float]:
    return trained.task.evaluate(model, "test", len(trained.batches[0]))


@torch.no_grad()
def _regroup(norm: Norm) -> tuple[RemovableHandle, RemovableHandle]:
    """Let `norm` see its channels in a random order, and undo it on what it returns."""
    order = torch.randperm(norm.channels)
    for tensor in (*norm.parameters(), *norm.buffers()):
        if tensor.is_floating_point() and tensor.shape[:1] == (norm.channels,):
            tensor.copy_(tensor[order])

    def permute(
        module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        x, *others = args
        return (x[:, order], *others), kwargs

    def restore(module: nn.Module, args: object, output: Tensor) -> Tensor:
        return output[:, order.argsort()]

    return (
        norm.register_forward_pre_hook(permute, with_kwargs=True),
        norm.register_forward_hook(restore),
    )
