"""Probe `regrouped`: the loss of quality if the channel groups are drawn again.

A large loss means that the trained network depends on the groups of its Group
Normalization (Wu & He 2018).
"""

import copy

import torch
from torch import Tensor, nn

from normbench.norms.base import Norm
from normbench.probes.base import PROBES, Trained
from normbench.probes.inputs import inner_norm

DRAWS = 5
"""Number of random groupings, over which the result is averaged."""


@PROBES("regrouped")
def regrouped(trained: Trained) -> dict[str, float]:
    """Test error and loss after a random regrouping of channels, minus those before.

    Every norm gets random groups of the same sizes, without retraining. A channel keeps
    its gain, its bias and its place in the network. The result has the increase of the
    primary metric of the task, such as "error_increase", and "loss_increase". It is
    empty for norms without `num_groups`.
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
    """Return the metrics of `model` on the test split."""
    task = trained.task
    samples = task.evaluation_samples("test")
    # The pads of a text depend on its batch, so the batches stay as in training.
    size = task.evaluation_batch if task.fixed_spatial else len(trained.batches[0])
    return task.evaluate(model, samples, size)


@torch.no_grad()
def _regroup(norm: Norm) -> None:
    """Permute the input channels of `norm` at random and its outputs back.

    Its parameters and buffers are permuted like the input channels.
    """
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

    norm.register_forward_pre_hook(permute, with_kwargs=True)
    norm.register_forward_hook(restore)
