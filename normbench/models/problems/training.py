"""Problems of the training: optimizer, devices, modes, momentum and precision."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from normbench.models.finding import Finding
from normbench.models.problems.context import Context, Rows, names, uses_batch

FORGOTTEN = 0.01
"""The share of their initial values in running statistics that still matters."""
RUNNING = ("running_mean", "running_var")


def decay_on_gains(rows: Rows, context: Context) -> Iterator[Finding]:
    """The optimizer decays gains or biases of norms."""
    if context.optimizer is None:
        return
    model = context.observation.model
    decayed = {
        id(parameter)
        for group in context.optimizer(model).param_groups
        if group.get("weight_decay", 0)
        for parameter in group["params"]
        if parameter.requires_grad
    }
    hit = [
        row
        for row in rows
        if row.calls
        and any(id(p) in decayed for p in model.get_submodule(row.name).parameters())
    ]
    if hit:
        yield Finding(
            "warning",
            "weight decay",
            f"the optimizer decays the gain and the bias of {names(hit)}",
            "put the parameters of norms into a parameter group with weight_decay=0 "
            "unless you study this effect",
        )


def parts_of_a_batch(rows: Rows, context: Context) -> Iterator[Finding]:
    """Statistics are of a part of the batch: accumulation, or DataParallel."""
    batch = [row for row in rows if uses_batch(row)]
    if not batch:
        return
    if context.accumulate > 1:
        yield Finding(
            "note",
            "accumulation",
            f"with {context.accumulate} forwards per step, {names(batch)} compute each "
            "statistic from one forward, not from all samples of the step",
            "count the samples of one forward as the batch size of these norms",
        )
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    if isinstance(context.model, parallel) and "SyncBatchNorm" not in {
        row.type for row in batch
    }:
        yield Finding(
            "warning",
            "several devices",
            f"{type(context.model).__name__} gives each device a part of the batch, "
            f"and {names(batch)} compute their statistics on each device",
            "use torch.nn.SyncBatchNorm.convert_sync_batchnorm with "
            "DistributedDataParallel, or a norm of single samples",
        )


def moving_although_frozen(rows: Rows, context: Context) -> Iterator[Finding]:
    """The affine map of a BatchNorm has no gradient, but its statistics move."""
    frozen = []
    for row in rows:
        if not (row.affine and not row.trainable and row.calls):
            continue
        before = context.model.get_submodule(row.name)
        after = context.observation.model.get_submodule(row.name)
        if any(
            _moved(getattr(before, k, None), getattr(after, k, None)) for k in RUNNING
        ):
            frozen.append(row)
    if frozen:
        yield Finding(
            "warning",
            "frozen norms",
            f"{names(frozen)} have no trainable gain or bias, but their running "
            "statistics change in each training forward",
            "call .eval() on these layers after each model.train(), or swap them for "
            "frozen_batch",
        )


def _moved(before: Tensor | None, after: Tensor | None) -> bool:
    """Return whether a running statistic changed; unknown on the meta device."""
    if before is None or after is None or before.is_meta or after.is_meta:
        return False
    return not torch.equal(before.cpu(), after.cpu())


def small_eps(rows: Rows, context: Context) -> Iterator[Finding]:
    """The epsilon is 0 in float16."""
    tiny = [
        row
        for row in rows
        if row.eps is not None and float(torch.tensor(row.eps).half()) == 0
    ]
    if not tiny:
        return
    half = any(p.dtype == torch.float16 for p in context.model.parameters())
    yield Finding(
        "warning" if half else "note",
        "epsilon",
        f"eps={min(row.eps or 0 for row in tiny):g} of {names(tiny)} is 0 in float16, "
        "so a constant input gives a division by 0",
        "keep these layers in float32 (autocast does), or use eps=1e-5",
    )


def momentum_and_steps(rows: Rows, context: Context) -> Iterator[Finding]:
    """The training is so short that running statistics still contain their start."""
    if context.steps is None:
        return
    slow = [
        row
        for row in rows
        if row.momentum and (1 - row.momentum) ** context.steps > FORGOTTEN
    ]
    if slow:
        row = min(slow, key=lambda row: row.momentum or 1)
        share = (1 - (row.momentum or 0)) ** context.steps
        yield Finding(
            "warning",
            "momentum",
            f"after {context.steps} steps, the running statistics of {names(slow)} "
            f"still have {share:.0%} of their initial values; their momentum is "
            f"{row.momentum:g}",
            "train longer, raise the momentum, or recompute the statistics with "
            "normbench.recalibrate",
        )


def mixed_modes(rows: Rows, context: Context) -> Iterator[Finding]:
    """Some norms with running statistics are in evaluation mode in a training model."""
    if not context.model.training:
        return
    evaluating = [
        row for row in rows if row.mode == "eval" and row.momentum is not None
    ]
    if evaluating:
        yield Finding(
            "note",
            "mode",
            f"{names(evaluating)} are in evaluation mode in a model in training mode, "
            "so they use their running statistics",
            "call model.train() if this is not on purpose",
        )


def bad_gradients(rows: Rows, context: Context) -> Iterator[Finding]:
    """A gain or a bias got a gradient that is not finite."""
    model = context.observation.model
    bad = [
        row
        for row in rows
        if any(
            p.grad is not None and not p.grad.is_meta and not p.grad.isfinite().all()
            for p in model.get_submodule(row.name).parameters()
        )
    ]
    if bad:
        why = f"the gradients of {names(bad)} are not finite"
        yield Finding(
            "error", "gradients", why, "look for constant inputs of the layer"
        )


CHECKS = (
    decay_on_gains,
    parts_of_a_batch,
    moving_although_frozen,
    small_eps,
    momentum_and_steps,
    mixed_modes,
    bad_gradients,
)
