"""The training loop, for any model and any loss."""

import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Loss = Callable[[nn.Module, Tensor], Tensor]


def fit(
    model: nn.Module,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    micro_batches: Callable[[int], Sequence[Tensor]],
    learning_rate: Callable[[int], float],
    clip: float | None,
    log_every: int,
    log: Callable[[int, float, float], None],
    evaluate_at: frozenset[int],
    evaluate: Callable[[int], None],
    after_step: Callable[[int, Sequence[Tensor]], None] | None = None,
    start: int = 0,
    pending: Sequence[Tensor] = (),
    scaler: torch.amp.GradScaler | None = None,
    average: Callable[[Tensor], Tensor] | None = None,
) -> int | None:
    """Train `model` for `steps` optimiser steps, numbered from 1.

    `micro_batches(step)` returns index tensors of equal length, `loss(model, index)`
    the mean over one of them; a step descends the mean over all. The `penalty` that a
    module's forward left is added to the loss. `log(step, loss, lr)` gets the mean loss
    since its last call; until then losses stay on the device. `evaluate(step)` gets the
    model in evaluation mode. `after_step(step, pending)` ends each step; `pending` are
    the losses since the last `log`.

    These, as `start` and `pending`, and the states of model, optimiser, `scaler` and
    random streams continue training exactly. `scaler` scales the loss, for gradients in
    float16. `average` turns the losses (L,) of one of several replicas, each with its
    share of the samples, into those of all.

    Returns the step at which training ended because its loss was not finite, or None.
    """
    penalised: list[Any] = [m for m in model.modules() if hasattr(m, "penalty")]
    losses = list(pending)
    model.train()
    for step in range(start + 1, steps + 1):
        lr = learning_rate(step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        batches = micro_batches(step)
        optimizer.zero_grad(set_to_none=True)
        for index in batches:
            with _unsynchronised(model, index is not batches[-1]):
                batch_loss = loss(model, index)
                losses.append(batch_loss.detach())
                _backward(batch_loss, penalised, len(batches), scaler)
        _update(model, optimizer, clip, scaler)
        if step % log_every == 0 or step == steps or step in evaluate_at:
            stacked = torch.stack(losses)
            values = (stacked if average is None else average(stacked)).tolist()
            losses.clear()
            first = step - (len(values) // len(batches)) + 1
            for position, value in enumerate(values):
                if not math.isfinite(value):
                    return first + position // len(batches)
            log(step, sum(values) / len(values), lr)
        if step in evaluate_at:
            model.eval()
            evaluate(step)
            model.train()
        if after_step is not None:
            after_step(step, losses)
    model.eval()
    return None


def _backward(
    loss: Tensor,
    penalised: Sequence[Any],
    parts: int,
    scaler: torch.amp.GradScaler | None,
) -> None:
    """Add the gradient of one of `parts` losses and of the penalties left by it."""
    for module in penalised:
        if module.penalty is not None:
            loss = loss + module.penalty
            module.penalty = None  # it holds the step's graph
    if parts > 1:
        loss = loss / parts
    if scaler is not None:
        loss = scaler.scale(loss)
    torch.autograd.backward(loss)


def _update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    clip: float | None,
    scaler: torch.amp.GradScaler | None,
) -> None:
    if clip is not None:
        if scaler is not None:
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()


def _unsynchronised(model: nn.Module, wanted: bool) -> AbstractContextManager[None]:
    """Average the gradients of replicas only with the last micro-batch of a step."""
    if wanted and isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return nullcontext()


def seed_of(what: str, *numbers: int) -> int:
    """The seed (32 bits) of a random stream that is independent of the others.

    A hash, because generators with similar seeds may give similar numbers.
    """
    digest = hashlib.sha256(" ".join(map(str, (what, *numbers))).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def epoch_order(
    index: Tensor,
    seed: int,
    epoch: int,
    batch_size: int = 1,
    batch_by: Tensor | None = None,
) -> Tensor:
    """`index` (N,) shuffled: a function of the seed and the epoch alone.

    `batch_by` is a sort key for each sample of the data set. With it, the shuffled
    samples, without the remainder, are sorted and cut into batches of similar samples;
    then the batches are shuffled, and the samples within each batch, so that its
    micro-batches and ghost batches are random draws from it.
    """
    generator = torch.Generator().manual_seed(seed_of("order", seed, epoch))
    order = index[torch.randperm(len(index), generator=generator)]
    if batch_by is None:
        return order
    # Before sorting, so that the remainder is random and not of the largest keys.
    order = order[: len(order) // batch_size * batch_size]
    batches = order[batch_by[order].argsort(stable=True)].view(-1, batch_size)
    batches = batches[torch.randperm(len(batches), generator=generator)]
    within = torch.rand(batches.shape, generator=generator).argsort(dim=1, stable=True)
    return batches.gather(1, within).flatten()


def micro_batches(
    index: Tensor,
    seed: int,
    batch_size: int,
    accumulate: int,
    batch_by: Tensor | None = None,
    begin_epoch: Callable[[int, Tensor], None] | None = None,
) -> Callable[[int], Sequence[Tensor]]:
    """Step (from 1) -> `accumulate` index tensors; an epoch's remainder is dropped.

    `begin_epoch(epoch, samples)` is called before the first step of an epoch that is
    requested, with the samples of that step and of all later steps of the epoch.
    """
    per_epoch = len(index) // batch_size
    current = -1
    order = index

    def batches(step: int) -> Sequence[Tensor]:
        nonlocal current, order
        epoch, position = divmod(step - 1, per_epoch)
        if epoch != current:
            current = epoch
            order = epoch_order(index, seed, epoch, batch_size, batch_by)
            if begin_epoch is not None:
                begin_epoch(
                    epoch, order[position * batch_size : per_epoch * batch_size]
                )
        batch = order[position * batch_size : (position + 1) * batch_size]
        return batch.chunk(accumulate) if accumulate > 1 else [batch]

    return batches


def warmup_cosine(peak: float, steps: int, warmup: float) -> Callable[[int], float]:
    """Step (from 1) -> rate: linear over the first share `warmup`, then cosine to 0."""
    rising = round(warmup * steps)

    def rate(step: int) -> float:
        if step <= rising:
            return peak * step / rising
        done = (step - rising - 1) / max(1, steps - rising)
        return peak * 0.5 * (1 + math.cos(math.pi * done))

    return rate


def make_optimizer(
    model: nn.Module,
    undecayed: Sequence[nn.Parameter],
    name: Literal["sgd", "adamw"],
    weight_decay: float,
    **options: Any,
) -> torch.optim.Optimizer:
    """The fused optimiser over `model`, without weight decay on `undecayed`.

    Its learning rate is set by `fit` at every step.
    """
    ids = {id(parameter) for parameter in undecayed}
    groups = [
        {
            "params": [p for p in model.parameters() if id(p) not in ids],
            "weight_decay": weight_decay,
        },
        {"params": list(undecayed), "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, fused=True, **options)
    betas = (options.pop("beta1"), options.pop("beta2"))
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True, **options)


def begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Set the momentum of SGD, if it has any, to 0; the steps stay the same.

    A GradScaler may skip the first step, in which the fused SGD allocates the buffer:
    the skipped kernel does not fill it, and the next step would read it.
    """
    for group in optimizer.param_groups:
        if group.get("momentum"):
            for parameter in group["params"]:
                state = optimizer.state[parameter]
                state["momentum_buffer"] = torch.zeros_like(parameter)
