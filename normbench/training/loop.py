"""The training loop, for any model and any loss."""

import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from normbench.training.decay import scale_invariant_weights

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
    scale_invariant_rate: Callable[[int], float] | None = None,
) -> int | None:
    """Train `model` for optimiser steps `start + 1` to `steps`.

    `micro_batches(step)` returns index tensors of equal length. `loss(model, index)` is
    the mean loss of one micro-batch, and a step minimises the mean over all of them. A
    module may set its attribute `penalty` in its forward pass; it is added to the loss.
    `log(step, loss, lr)` gets the mean loss since the previous call; losses stay on the
    device until then. `evaluate(step)` is called with the model in evaluation mode.
    `after_step(step, pending)` is called after each step with the losses since the last
    `log`.

    Training resumes exactly, given `start`, `pending` and the states of the model,
    optimiser, `scaler` and random streams. `scaler` scales the loss for gradients in
    float16. With several replicas, `average` turns the losses (L,) of this replica into
    the means over all replicas.

    `scale_invariant_rate` is the learning rate of the group of the optimiser with the
    key "scale_invariant", which `make_optimizer` makes; `learning_rate` is that of the
    others.

    A loss that is not finite ends training at the next `log`; its step is returned.
    """
    penalised: list[Any] = [m for m in model.modules() if hasattr(m, "penalty")]
    losses = list(pending)
    model.train()
    for step in range(start + 1, steps + 1):
        lr = learning_rate(step)
        batches = micro_batches(step)
        optimizer.zero_grad(set_to_none=True)
        losses += _backward(model, loss, batches, penalised, scaler)
        for group in optimizer.param_groups:
            group["lr"] = lr
            if scale_invariant_rate is not None and "scale_invariant" in group:
                group["lr"] = scale_invariant_rate(step)
        _update(model, optimizer, clip, scaler)
        if step % log_every == 0 or step == steps or step in evaluate_at:
            stacked = torch.stack(losses)
            values = (stacked if average is None else average(stacked)).tolist()
            losses.clear()
            if not all(map(math.isfinite, values)):
                return _diverged_at(values, step, len(batches))
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
    model: nn.Module,
    loss: Loss,
    batches: Sequence[Tensor],
    penalised: Sequence[Any],
    scaler: torch.amp.GradScaler | None,
) -> list[Tensor]:
    """Add the gradients of all micro-batches; return their losses without penalties."""
    losses = []
    for index in batches:
        with _unsynchronised(model, index is not batches[-1]):
            batch_loss = loss(model, index)
            losses.append(batch_loss.detach())
            for module in penalised:
                if module.penalty is not None:
                    batch_loss = batch_loss + module.penalty
                    module.penalty = None  # it keeps the graph of the step in memory
            if len(batches) > 1:
                batch_loss = batch_loss / len(batches)
            if scaler is not None:
                batch_loss = scaler.scale(batch_loss)
            torch.autograd.backward(batch_loss)
    return losses


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


def _diverged_at(values: Sequence[float], step: int, per_step: int) -> int:
    """Return the step of the first loss that is not finite.

    `values` has `per_step` losses of each step up to `step`.
    """
    first_step = step - len(values) // per_step + 1
    finite = [math.isfinite(value) for value in values]
    return first_step + finite.index(False) // per_step


def _unsynchronised(model: nn.Module, enabled: bool) -> AbstractContextManager[None]:
    """Do not average gradients over replicas in this context, if `enabled`."""
    if enabled and isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return nullcontext()


def seed_of(purpose: str, *numbers: int) -> int:
    """Return a 32-bit seed for the random stream of `purpose` and `numbers`.

    The seed is a hash, because generators with similar seeds may give similar numbers.
    """
    text = " ".join(map(str, (purpose, *numbers)))
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:4], "big")


def epoch_order(
    index: Tensor,
    seed: int,
    epoch: int,
    batch_size: int = 1,
    batch_by: Tensor | None = None,
) -> Tensor:
    """Return `index` (N,) shuffled. The order depends on the seed and epoch alone.

    `batch_by` (one value per sample of the data set) groups similar samples in a batch.
    The shuffled samples, without the remainder, are sorted by it and cut into batches.
    Then the batches are shuffled. The samples in each batch are shuffled too, so that
    its micro-batches and ghost batches are random subsets of it.
    """
    generator = torch.Generator().manual_seed(seed_of("order", seed, epoch))
    order = index[torch.randperm(len(index), generator=generator)]
    if batch_by is None:
        return order
    # Drop the remainder before sorting; after it, the largest keys would be dropped.
    order = order[: len(order) // batch_size * batch_size]
    batches = order[batch_by[order].argsort(stable=True)].view(-1, batch_size)
    batches = batches[torch.randperm(len(batches), generator=generator)]
    noise = torch.rand(batches.shape, generator=generator)
    return batches.gather(1, noise.argsort(dim=1, stable=True)).flatten()


def micro_batches(
    index: Tensor,
    seed: int,
    batch_size: int,
    accumulate: int,
    batch_by: Tensor | None = None,
    begin_epoch: Callable[[int, Tensor], None] | None = None,
) -> Callable[[int], Sequence[Tensor]]:
    """Return a function from the step (from 1) to its `accumulate` index tensors.

    The samples that do not fill a whole batch at the end of an epoch are dropped. When
    the function is first called for a step of another epoch, it calls
    `begin_epoch(epoch, samples)` with the samples of this and all later steps of the
    epoch.
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
    """Return a function from the step (from 1) to its learning rate.

    The rate rises linearly to `peak` in the first fraction `warmup` of the steps, and
    then falls to 0 as a cosine.
    """
    warmup_steps = round(warmup * steps)

    def rate(step: int) -> float:
        if step <= warmup_steps:
            return peak * step / warmup_steps
        progress = (step - warmup_steps - 1) / max(1, steps - warmup_steps)
        return peak * 0.5 * (1 + math.cos(math.pi * progress))

    return rate


def make_optimizer(
    model: nn.Module,
    undecayed: Sequence[nn.Parameter],
    name: Literal["sgd", "adamw"],
    weight_decay: float,
    decay_as: Literal["weight_decay", "lr_schedule"] = "weight_decay",
    **options: Any,
) -> torch.optim.Optimizer:
    """Return a fused optimiser of `model`, without weight decay of `undecayed`.

    `fit` sets its learning rates in every step. If `decay_as` is "lr_schedule", the
    scale-invariant weights are a group without weight decay (`decay.py`). Raises
    Incompatible if there are none.
    """
    scheduled: list[Tensor] = []
    if decay_as == "lr_schedule":
        scheduled = scale_invariant_weights(model)
    others = {id(parameter) for parameter in (*undecayed, *scheduled)}
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in model.parameters() if id(p) not in others],
            "weight_decay": weight_decay,
        },
        {"params": list(undecayed), "weight_decay": 0.0},
        {"params": scheduled, "weight_decay": 0.0, "scale_invariant": True},
    ]
    groups = [group for group in groups if group["params"]]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, fused=True, **options)
    betas = (options.pop("beta1"), options.pop("beta2"))
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True, **options)


def begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Initialise the momentum buffers of SGD to 0. The updates do not change.

    The fused SGD allocates these buffers in its first step. If a GradScaler skips that
    step, the buffers stay uninitialised, and the next step would read them.
    """
    for group in optimizer.param_groups:
        if group.get("momentum"):
            for parameter in group["params"]:
                state = optimizer.state[parameter]
                state["momentum_buffer"] = torch.zeros_like(parameter)
