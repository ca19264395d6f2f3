"""Running statistics of any network: recompute them, and compare them with batches."""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from normbench.errors import RequestError
from normbench.models.forward import call, quietly, tensors
from normbench.models.layers import layers
from normbench.models.swapping import swap
from normbench.norms.base import Norm
from normbench.norms.evaluation import recompute_statistics, use_batch_statistics

Batches = Iterable[Any]
"""Batches that can be iterated several times, such as a DataLoader or a list.

A batch is a tuple or list (arguments, targets, ...), of which the arguments count, or
the arguments alone. These are a tensor, a dict by name, or a tuple inside of the batch:
((ids, mask), targets)."""


@dataclass(frozen=True)
class Evaluations:
    """A classifier, evaluated with three kinds of statistics in its norms.

    "running" are those of training, "recomputed" are averaged anew over the batches,
    and "batch" are those of each batch, as in training. `error` is in [0, 1] and `loss`
    the mean cross-entropy in nats, by kind.
    """

    samples: int
    error: dict[str, float]
    loss: dict[str, float]


@dataclass(frozen=True)
class Gap:
    """How far the running statistics of a layer are from those of batches.

    `mean` is |mu_running - mu_batch| / sigma_batch, and `std` is
    |sigma_running / sigma_batch - 1|, both averaged over channels and batches (Wang et
    al. 2022, arXiv 2210.05153).
    """

    layer: str
    mean: float
    std: float


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Batches) -> None:
    """Set all running statistics of `model` to their mean over `batches`.

    For torch's BatchNorm this is torch.optim.swa_utils.update_bn, and for the norms of
    this package `recompute_statistics`. Only norms are in training mode meanwhile, so
    that no dropout interferes. Source: Wu & Johnson 2021. Raises RequestError without a
    batch. After an error, the model is as it was.
    """
    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        raise RequestError("recalibrate needs at least one batch")
    modes = {module: module.training for module in model.modules()}
    before = copy.deepcopy(dict(model.named_buffers()))
    foreign = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    momenta = [module.momentum for module in foreign]
    try:
        model.eval()
        for norm in foreign:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average
            norm.train()

        def forward(batch: Any) -> None:
            call(model, arguments(batch))

        with quietly():
            recompute_statistics(forward, [model], _chained(first, batches))
    except BaseException:
        for name, buffer in model.named_buffers():
            buffer.copy_(before[name])
        raise
    finally:
        for norm, momentum in zip(foreign, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes.items():
            module.training = training


def evaluate(model: nn.Module, batches: Batches) -> Evaluations | None:
    """Return the evaluations of a classifier, or None if the batches have no targets.

    The model does not change. Raises RequestError if its output is not (N, classes) for
    targets (N,).
    """
    batches = list(batches)
    if not batches or targets(batches[0]) is None:
        return None
    error: dict[str, float] = {}
    loss: dict[str, float] = {}
    samples = 0
    for kind in ("running", "recomputed", "batch"):
        copied = own_norms(model).eval()
        if kind == "recomputed":
            recalibrate(copied, batches)
        elif kind == "batch":
            use_batch_statistics([copied])
        error[kind], loss[kind], samples = _score(copied, batches)
    return Evaluations(samples, error, loss)


def own_norms(model: nn.Module) -> nn.Module:
    """Return a copy of `model` with equal norms of this package where there are any."""
    if not any(True for _ in layers(model)):
        return copy.deepcopy(model)
    return swap(model, "keep", in_place=False).model


@torch.no_grad()
def gaps(model: nn.Module, batches: Batches) -> list[Gap]:
    """Return the gap of each layer with running statistics. The model does not change.

    The batch statistics are those of the layer's inputs in a forward in evaluation
    mode.
    """
    copied = own_norms(model).eval()
    sums: dict[str, list[Tensor]] = {}
    for name, module, _ in layers(copied):
        if isinstance(module, Norm) and "running_var" in dict(module.named_buffers()):
            module.register_forward_pre_hook(
                _add_gap(sums.setdefault(name, []), module)
            )
    with quietly():
        for batch in batches:
            call(copied, arguments(batch))
    means = {
        name: torch.stack(values).mean(0) for name, values in sums.items() if values
    }
    return [Gap(name, *values.tolist()) for name, values in means.items()]


def _add_gap(values: list[Tensor], norm: Norm) -> Any:
    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].double().movedim(norm.channel_axis, 0).flatten(1)
        if len(x) != len(norm.running_var):
            return
        var, mean = torch.var_mean(x, 1, correction=0)
        std = (var + norm.eps).sqrt()
        running = (norm.running_var.double() + norm.eps).sqrt()
        distance = (norm.running_mean.double() - mean).abs() / std
        values.append(torch.stack([distance.mean(), (running / std - 1).abs().mean()]))

    return hook


@torch.no_grad()
def _score(model: nn.Module, batches: Iterable[Any]) -> tuple[float, float, int]:
    """Return the error, the mean loss and the number of samples."""
    wrong, total, count = 0, 0.0, 0
    with quietly():
        for batch in batches:
            outputs, target = tensors(call(model, arguments(batch))), targets(batch)
            if target is None or not outputs or outputs[0].dim() != 2:
                shapes = [tuple(x.shape) for x in outputs]
                raise RequestError(
                    "an evaluation needs outputs (N, classes) and targets (N,) int64; "
                    f"the model returns {shapes or 'no tensor'}"
                )
            logits = outputs[0].float()
            wrong += int((logits.argmax(1) != target).sum())
            total += float(F.cross_entropy(logits, target, reduction="sum"))
            count += len(target)
    return wrong / count, total / count, count


def arguments(batch: Any) -> Any:
    """Return the arguments of the forward in a batch."""
    return batch[0] if isinstance(batch, tuple | list) else batch


def targets(batch: Any) -> Tensor | None:
    """Return the targets (N,) int64 of a batch (arguments, targets), or None."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        return None
    target = batch[1]
    if isinstance(target, Tensor) and target.dtype == torch.int64 and target.dim() == 1:
        return target
    return None


def _chained(first: Any, others: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from others
