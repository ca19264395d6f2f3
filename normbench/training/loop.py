"""The one training loop. It knows no norm, no task and no config."""

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

    `micro_batches(step)` are equally large index tensors; `loss(model, index)` is the
    mean over one of them, so that a step descends the mean over all. Every module's
    `penalty`, where its forward left one, is added to the loss. `log(step, loss, lr)`
    gets the mean loss since the last call; `evaluate(step)` finds the model in
    evaluation mode. Losses stay on the device in between.

    `after_step(step, pending)` ends each step, with the micro-batches' losses that
    `log` has not told yet. Together with the states of model, optimiser and random
    streams, these are all there is: given as `start` and `pending`, training goes on
    as if it had not been interrupted.

    `scaler` scales the loss, for gradients in float16; its state counts among these.
    Where `model` is one replica of several, `loss` is of its share of the samples, and
    `average` makes of a replica's losses (L,) the mean of all of them.

    Returns the step whose loss was not finite, at which training ended, or None.
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
                for module in penalised:
                    if module.penalty is not None:
                        batch_loss = batch_loss + module.penalty
                        module.penalty = None  # it holds the step's graph
                if len(batches) > 1:
                    batch_loss = batch_loss / len(batches)
                if scaler is not None:
                    batch_loss = scaler.scale(batch_loss)
                torch.autograd.backward(batch_loss)
        if clip is not None:
            if scaler is not None:
                scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        if step % log_every == 0 or step == steps or step in evaluate_at:
            told = torch.stack(losses)
            values = (told if average is None else average(told)).tolist()
            first = step - (len(values) // len(batches)) + 1
            losses.clear()
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


def _unsynchronised(model: nn.Module, wanted: bool) -> AbstractContextManager[None]:
    """Replicas' gradients are averaged once a step, with its last micro-batch."""
    if wanted and isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return nullcontext()


def seed_of(what: str, *numbers: int) -> int:
    """The seed of a stream of its own.

    Hashed, since generators of seeds that are alike can be, and see 32 bits only.
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

    With a sort key `batch_by`, one for each sample of the data set, each `batch_size`
    in a row are alike in it: the shuffled samples, without the remainder, are sorted
    by it and cut into batches. Those are shuffled, and so is each within, so that its
    parts (micro-batches, ghost batches) are random draws from it.
    """
    generator = torch.Generator().manual_seed(seed_of("order", seed, epoch))
    order = index[torch.randperm(len(index), generator=generator)]
    if batch_by is None:
        return order
    # First, so that whoever is left out is so by chance, not for a large key.
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

    A step's samples are those of `epoch_order`, whatever `accumulate` is.
    `begin_epoch(epoch, samples)` is told before the first step that is asked for of
    each epoch, with the samples of that step and the epoch's others after it.
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
    """Let the momentum of SGD, where there is any, begin at 0; the steps are the same.

    For a GradScaler, which may skip the first step: the fused SGD allocates the buffer
    in it, leaves it to the skipped kernel to fill, and takes it as filled in the next.
    """
    for group in optimizer.param_groups:
        if group.get("momentum"):
            for parameter in group["params"]:
                state = optimizer.state[parameter]
                state["momentum_buffer"] = torch.zeros_like(parameter)
