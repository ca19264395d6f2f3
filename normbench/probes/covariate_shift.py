"""Probe `covariate_shift`: internal covariate shift, as a change of gradients.

Definition 2.1 of Santurkar et al. 2018 ("How Does Batch Normalization Help
Optimization?"). L is the loss of a batch, W_1, ..., W_k are the weights of the layers,
and W'_1, ..., W'_k those after an optimizer step on this batch:

    G_i   dL/dW_i at (W_1, ..., W_k)
    G'_i  dL/dW_i at (W'_1, ..., W'_(i-1), W_i, ..., W_k)

So G'_i is the gradient of layer i after only the layers before it were updated. The
probe measures

    l2           |G_i - G'_i|
    relative_l2  |G_i - G'_i| / |G_i|
    cosine       the cosine of the angle between G_i and G'_i

l2 is 0 and cosine is 1 without internal covariate shift. l2 is in the units of the
gradient, which differ between networks; the other two have no units. All are means over
batches and over layers, without the first layer, which has no layers before it.

With noise after the norms (`normbench/norms/noise.py`), the layers before layer i also
change because their noise is drawn anew in every step. So G_i has the noise of one
step in all layers, and G'_i has the noise of the next step in layers 1, ..., i-1.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from normbench.norms.noise import NoisyNorm
from normbench.probes.base import PROBES, Trained

MAX_BATCHES = 4
"""Maximum number of batches. A batch costs a backward pass for each layer."""


@PROBES("covariate_shift")
def covariate_shift(trained: Trained) -> dict[str, float]:
    """Change of each layer's gradient by an update of the layers before it.

    The batches are micro-batches of the first epoch. Each step starts at the trained
    weights, with the state of the optimizer at the end of training and the peak
    learning rate of the run. The norms and the noise after them work as in training;
    dropout, clipping and penalties are off. Only the noise that is drawn for a whole
    channel changes with the step, not that of single values (`norm_noise.spread`). A
    layer is a module with weights, such as a convolution. The order of the layers is
    that of their first calls in a forward pass. The gain and the bias of a norm are
    updated with the layer before it, and their own gradients are not measured. A layer
    whose gradient is 0 is left out of relative_l2 and cosine. All numbers are nan for a
    network with one layer.
    """
    trained.model.eval()
    noisy = [m for m in trained.model.modules() if isinstance(m, NoisyNorm)]
    for module in (*trained.norms, *noisy):
        module.train()
    batches = trained.batches[:MAX_BATCHES]
    layers = _layers_in_order(trained, batches[0])
    rows = [row for batch in batches for row in _changes(trained, layers, batch)]
    if not rows:
        return dict.fromkeys(("l2", "relative_l2", "cosine"), float("nan"))
    names = ("l2", "relative_l2", "cosine")
    means = torch.stack(rows).nanmean(0).tolist()
    return dict(zip(names, means, strict=True))


class Layer(NamedTuple):
    """A module of the network that is updated, by its name.

    `names` are those of its trained parameters. `measured` says whether its gradient is
    measured: that of a norm is not, and the noise after a norm has none.
    """

    module: str
    measured: bool
    names: list[str]


def _layers_in_order(trained: Trained, batch: Tensor) -> list[Layer]:
    """Return the layers in the order of their first calls in a forward pass.

    The weight of a reparametrized convolution belongs to the convolution.
    """
    model = trained.model
    in_norms = {id(m) for norm in trained.norms for m in norm.modules()}
    owners: dict[str, list[str]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            owner, parametrized, _ = name.partition(".parametrizations.")
            owner = owner if parametrized else name.rpartition(".")[0]
            owners.setdefault(owner, []).append(name)
    for name, module in model.named_modules():
        if isinstance(module, NoisyNorm):
            owners[name] = []
    order: dict[str, Layer] = {}

    def remember(owner: str) -> Any:
        def hook(module: nn.Module, args: object) -> None:
            measured = bool(owners[owner]) and id(module) not in in_norms
            order.setdefault(owner, Layer(owner, measured, owners[owner]))

        return hook

    handles = [
        model.get_submodule(owner).register_forward_pre_hook(remember(owner))
        for owner in owners
    ]
    try:
        with torch.no_grad():
            trained.task.loss(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return list(order.values())


def _changes(
    trained: Trained, layers: Sequence[Layer], batch: Tensor
) -> Iterator[Tensor]:
    """Yield (l2, relative_l2, cosine) of each layer but the first, for one batch."""
    updated, optimizer = copy.deepcopy((trained.model, trained.optimizer))
    optimizer.zero_grad()
    _loss(trained, updated, batch).backward()
    new_weights = dict(updated.named_parameters())
    before = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in new_weights.items()
    }
    optimizer.step()
    model = copy.deepcopy(trained.model)
    weights = dict(model.named_parameters())
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    noisy = {n: m for n, m in model.named_modules() if isinstance(m, NoisyNorm)}
    forwards = {name: module.forwards for name, module in noisy.items()}
    for position, layer in enumerate(layers):
        if position > 0 and layer.measured:
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])  # some norms use their running statistics
            for name, module in noisy.items():
                module.forwards = forwards[name]
            after = torch.autograd.grad(
                _loss(trained, model, batch),
                [weights[name] for name in layer.names],
                materialize_grads=True,
            )
            yield _compared(
                torch.cat([before[name].flatten() for name in layer.names]),
                torch.cat([gradient.flatten() for gradient in after]),
            )
        with torch.no_grad():
            for name in layer.names:
                weights[name].copy_(new_weights[name])
        if layer.module in noisy:  # from here on, it has the noise of the next step
            forwards[layer.module] += noisy[layer.module].forwards_per_step


def _loss(trained: Trained, model: nn.Module, batch: Tensor) -> Tensor:
    """Return the loss of `batch`. A norm with random numbers draws the same ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return trained.task.loss(model, batch)


def _compared(before: Tensor, after: Tensor) -> Tensor:
    """Return (3,) float64 on the CPU: l2, relative_l2 and cosine of two gradients."""
    before, after = before.double(), after.double()
    l2, norm = (before - after).norm(), before.norm()
    cosine = before @ after / (norm * after.norm())  # nan if one of them is 0
    relative = torch.where(norm > 0, l2 / norm, torch.nan)
    return torch.stack([l2, relative, cosine]).cpu()
