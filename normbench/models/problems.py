"""What can be wrong with the norms of a network: one function per problem."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from normbench.models.finding import Finding, Level
from normbench.models.forward import Observation
from normbench.norms.base import REGISTRY
from normbench.norms.measure.sizes import FEW_SAMPLES, FEW_VALUES, relative_noise

if TYPE_CHECKING:
    from normbench.models.inspection import LayerRow

SHOWN = 3
"""A finding names at most this many layers."""
FORGOTTEN = 0.01
"""The share of their initial values in running statistics that still matters."""
LEVELS: tuple[Level, ...] = ("error", "warning", "note", "ok")
RUNNING = ("running_mean", "running_var")


@dataclass(frozen=True)
class Context:
    """What the checks know beside the rows of the layers.

    The fields are the arguments of `inspect`; `observation` has the copy of the model
    after the forward and the backward.
    """

    model: nn.Module
    observation: Observation
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None
    steps: int | None
    accumulate: int


Rows = Sequence["LayerRow"]


def problems(rows: Rows, context: Context) -> list[Finding]:
    """Return all findings about the norms of a network, worst first."""
    findings = [finding for check in CHECKS for finding in check(rows, context)]
    if not any(finding.level in ("error", "warning") for finding in findings):
        count = f"{len(rows)} norm layers" if len(rows) != 1 else "1 norm layer"
        findings.append(Finding("ok", "norms", f"{count}, and no problem was seen"))
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def training_forward(rows: Rows, context: Context) -> Iterator[Finding]:
    """The training forward failed, so only the norms were in training mode."""
    if context.observation.training_error:
        yield Finding(
            "note",
            "training forward",
            "it fails with this input, so the forward was run in evaluation mode with "
            f"the norms in training mode: {context.observation.training_error}",
            "if the model needs targets in training, pass them in the example",
        )


def few_values(rows: Rows, context: Context) -> Iterator[Finding]:
    """A statistic has a single value, or so few that it is mostly noise."""
    known = [row for row in rows if row.values is not None]
    single = [row for row in known if row.values == 1]
    if single:
        yield Finding(
            "error",
            "single values",
            f"a statistic has one value, so the output is the bias: {names(single)}",
            "raise the batch size or the resolution, or use a norm with statistics "
            "over several channels",
        )
    shared = [row for row in known if row.samples and row.samples < FEW_SAMPLES]
    batch = [row for row in shared if row.kind != "unknown" and _uses_batch(row)]
    few = [row for row in batch if row.values and row.values > 1]
    if few:
        row = min(few, key=lambda row: row.values or 0)
        samples, values = row.samples or 1, row.values or 1
        lowest, highest = relative_noise(samples, max(1, values // samples))
        yield Finding(
            "warning",
            "samples per statistic",
            f"{samples} samples share the statistics of {names(few)}; in {row.name} a "
            f"statistic has {values} values, and the standard error of a batch mean is "
            f"{lowest:.0%} to {highest:.0%} of a standard deviation",
            f"use {FEW_SAMPLES} samples or more per device, or a norm of single "
            "samples such as group",
        )
    own = [row for row in known if not _uses_batch(row) and row.values != 1]
    small = [row for row in own if row.values is not None and row.values < FEW_VALUES]
    if small:
        row = min(small, key=lambda row: row.values or 0)
        yield Finding(
            "warning",
            "values per statistic",
            f"a statistic has {row.values} values in {row.name}, and fewer than "
            f"{FEW_VALUES} in {names(small)}: the standard error of a mean is "
            f"{1 / math.sqrt(row.values or 1):.0%} of a standard deviation if the "
            "values are independent",
            "use fewer groups, more channels or a higher resolution",
        )


def lonely_channels(rows: Rows, context: Context) -> Iterator[Finding]:
    """Each group of a GroupNorm has one channel, so it is an InstanceNorm."""
    alone = [row for row in rows if row.kind == "group" and row.groups == row.channels]
    if alone:
        yield Finding(
            "warning",
            "groups",
            f"each group has one channel, which is InstanceNorm: {names(alone)}",
            "use fewer groups, such as 4 to 16 channels in each",
        )


def redundant_bias(rows: Rows, context: Context) -> Iterator[Finding]:
    """A convolution or linear layer has a bias that the next norm subtracts again."""
    redundant = []
    for row in rows:
        # Only statistics of a single channel remove a constant of this channel.
        if row.kind not in ("batch", "instance", "batch_masked") or row.after is None:
            continue
        maker = context.observation.model.get_submodule(row.after)
        if isinstance(getattr(maker, "bias", None), nn.Parameter) and any(
            p.dim() > 1 for p in maker.parameters()
        ):
            redundant.append(row)
    if redundant:
        makers = ", ".join(str(row.after) for row in redundant[:SHOWN])
        more = ", ..." if len(redundant) > SHOWN else ""
        yield Finding(
            "note",
            "redundant bias",
            f"the bias of {makers}{more} has no effect in training, because the next "
            f"norm subtracts the mean of each channel ({_layers(redundant)})",
            "use bias=False in these layers, which saves parameters",
        )


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
    }
    hit = [
        row
        for row in rows
        if any(id(p) in decayed for p in model.get_submodule(row.name).parameters())
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
    batch = [row for row in rows if _uses_batch(row)]
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


def shared_layers(rows: Rows, context: Context) -> Iterator[Finding]:
    """A norm is called several times in one forward."""
    several = [row for row in rows if row.calls > 1]
    batch = [row for row in several if _uses_batch(row)]
    if batch:
        yield Finding(
            "warning",
            "shared layers",
            f"{names(batch)} are called several times in one forward, so their running "
            "statistics mix inputs of different places",
            "use a norm for each place, or a norm without running statistics",
        )
    elif several:
        why = f"{names(several)} are called several times in one forward"
        yield Finding("note", "shared layers", why)


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


def not_called(rows: Rows, context: Context) -> Iterator[Finding]:
    """A norm was not called in the forward."""
    idle = [row for row in rows if not row.calls]
    if idle:
        why = f"{names(idle)} were not called in the forward"
        yield Finding(
            "note", "unused layers", why, "remove them if they are never used"
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


def unknown_layers(rows: Rows, context: Context) -> Iterator[Finding]:
    """Norms that cannot be examined: functions, and classes that nobody knows."""
    functional = context.observation.functional
    if functional:
        shown = "; ".join(functional[:SHOWN]) + ("; ..." if functional[SHOWN:] else "")
        yield Finding(
            "note",
            "functions",
            f"norms are called as functions, which have no row here: {shown}",
            "use modules, so that tools can find and swap them",
        )
    unknown = [row for row in rows if row.kind == "unknown"]
    if unknown:
        types = ", ".join(sorted({row.type for row in unknown}))
        why = f"the function of {types} is unknown ({_layers(unknown)})"
        yield Finding("note", "unknown norms", why)


CHECKS: tuple[Callable[[Rows, Context], Iterator[Finding]], ...] = (
    training_forward,
    few_values,
    lonely_channels,
    redundant_bias,
    decay_on_gains,
    parts_of_a_batch,
    moving_although_frozen,
    small_eps,
    shared_layers,
    momentum_and_steps,
    not_called,
    mixed_modes,
    bad_gradients,
    unknown_layers,
)


def names(rows: Rows) -> str:
    """Return the names of the first layers, and how many others there are."""
    shown = [row.name or "the model" for row in rows[:SHOWN]]
    others = len(rows) - len(shown)
    if not others:
        return " and ".join(shown) if len(shown) < 3 else ", ".join(shown)
    return f"{', '.join(shown)} and {others} other{'s' if others > 1 else ''}"


def _layers(rows: Rows) -> str:
    return f"{len(rows)} layer{'s' if len(rows) > 1 else ''}"


def _uses_batch(row: "LayerRow") -> bool:
    """Return whether the statistics of a layer contain several samples."""
    return row.kind != "unknown" and REGISTRY.get(row.kind).uses_other_samples
