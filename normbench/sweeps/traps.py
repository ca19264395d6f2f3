"""Known problems with the batches, norms and rates of a config."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch

from normbench.config.rates import peak_learning_rate, peak_lr
from normbench.config.schema import RunConfig
from normbench.models.finding import Finding, finding
from normbench.norms.measure.sizes import (
    FEW_SAMPLES,
    FEW_VALUES,
    relative_noise,
    values_in_statistic,
)
from normbench.tasks.base import Task
from normbench.training.network import norm_class

MAX_ADAMW_LR = 0.01
"""Peak learning rate above which AdamW is often unstable."""
MIN_SGD_LR = 0.03
"""With AdamW, a value of `lr` from which it seems to be meant for SGD."""
SMALL_BATCH = 1 / 8
"""Fraction of lr_reference_batch_size; at or below this batch size, the linear rule can
give learning rates that are several times too low."""


def batches(config: RunConfig, task: Task) -> Iterator[Finding]:
    """Check the last batch of an epoch, ghost batches and gradient accumulation."""
    steps, rest = divmod(len(task.splits["train"]), config.batch_size)
    yield finding(
        rest == 1,
        "note",
        "last batch",
        f"an epoch has {steps} steps of {config.batch_size} samples, and leaves out "
        f"{rest}",
        "nothing to do in normbench; in your own code, set drop_last=True in the "
        "DataLoader: otherwise the last batch of an epoch has one sample",
    )
    micro_batch = config.batch_size // config.accumulate
    norm = norm_class(config)
    if config.norm_batch < micro_batch and not norm.uses_other_samples:
        yield Finding(
            "warning",
            "ghost batches",
            f"norm_batch={config.norm_batch} changes only the run id: norm={norm.name} "
            "computes statistics of single samples",
            f"leave norm_batch at the size of the micro-batch, {micro_batch}",
        )
    elif config.accumulate > 1 and norm.uses_other_samples:
        yield Finding(
            "note",
            "accumulation",
            f"accumulate={config.accumulate}: each statistic is computed from "
            f"{config.norm_batch} samples, not from the {config.batch_size} of a step",
        )


def statistics(config: RunConfig, shapes: Sequence[torch.Size]) -> Iterator[Finding]:
    """Check the number of samples or values per statistic, in the smallest layer.

    `shapes` are the shapes (N, C, *spatial) of the norm layers' inputs.
    """
    norm = norm_class(config)
    if not shapes:
        return
    if norm.uses_other_samples:
        positions = min(math.prod(shape[2:]) for shape in shapes)
        lowest, highest = relative_noise(config.norm_batch, positions)
        enough = f"norm_batch={FEW_SAMPLES}"
        if config.batch_size < FEW_SAMPLES:  # a norm batch is at most a batch
            enough = f"batch_size={FEW_SAMPLES} {enough}"
        yield finding(
            config.norm_batch < FEW_SAMPLES,
            "warning",
            "samples per statistic",
            f"norm_batch={config.norm_batch} samples of {positions} positions in the "
            f"smallest layer: the standard error of a batch mean is {lowest:.0%} to "
            f"{highest:.0%} of a standard deviation, depending on how similar the "
            "positions of one sample are",
            f"{enough} or more, or a norm of single samples; the probe "
            "statistic_noise measures the error",
        )
        return
    what = "values per statistic"
    try:
        counts = [values_in_statistic(norm, config.norm.options, s) for s in shapes]
    except ValueError as error:
        yield Finding(
            "note",
            what,
            f"unknown for norm={norm.name}: {error}",
            'write `axes` as other norms do: "one sample, one channel, all positions"',
        )
        return
    min_count = min((count for count in counts if count is not None), default=None)
    if min_count is None:
        yield Finding("ok", what, f"norm={norm.name} has no statistics")
        return
    yield finding(
        min_count < FEW_VALUES,
        "warning",
        what,
        f"{min_count} values of one sample in the smallest layer: the standard error "
        f"of a mean is {1 / math.sqrt(min_count):.0%} of a standard deviation if the "
        "values are independent",
        "use fewer groups, more channels or a higher resolution",
    )


def weight_decay(config: RunConfig) -> Finding:
    """Check whether weight decay pulls the norms' gamma and beta to 0."""
    decay, on_norms = config.optimizer.weight_decay, config.norm_weight_decay
    applies = "applies" if on_norms else "does not apply"
    return finding(
        bool(decay and on_norms),
        "warning",
        "weight decay",
        f"optimizer.weight_decay={decay:g} {applies} to the norms' gamma and beta",
        "use norm_weight_decay=false unless you study this effect: decay pulls gamma "
        "and beta to 0, and no later layer compensates for it",
    )


def learning_rate(config: RunConfig) -> Finding:
    """Compare the learning rate with usual rates for the optimizer and batch size.

    The usual rate is proportional to the batch size for SGD (Goyal et al. 2017) and to
    its square root for Adam (Malladi et al. 2022). The finding is only a hint.
    """
    what = "learning rate"
    reference, batch = config.lr_reference_batch_size, config.batch_size
    peak = peak_lr(config)
    rate = f"lr={config.lr:g}, lr_rule={config.lr_rule}: {peak:g} at the peak"
    is_adamw = config.optimizer.name == "adamw"
    if is_adamw and (peak > MAX_ADAMW_LR or config.lr >= MIN_SGD_LR):
        return Finding(
            "warning",
            what,
            f"{rate}; lr={config.lr:g} is a rate for SGD, and AdamW is often unstable "
            f"above {MAX_ADAMW_LR:g}",
            "use about lr=0.001 (the default of torch.optim.AdamW), or tune lr",
        )
    if config.lr_rule == "linear" and batch <= SMALL_BATCH * reference:
        root = peak_learning_rate(config.lr, "sqrt", batch, reference)
        return Finding(
            "warning",
            what,
            f"{rate}; from {reference} down to {batch} samples, the linear rule gives "
            "rates that can be several times too low, and the ranking of norms changes "
            "with the rate",
            "tune lr for each norm, as `normbench compare` does; lr_rule=sqrt would "
            f"give {root:g}",
        )
    usual_rule: Literal["linear", "sqrt"]
    usual_rule = "linear" if config.optimizer.name == "sgd" else "sqrt"
    if batch == reference or config.lr_rule == usual_rule:
        return Finding("ok", what, rate)
    usual_peak = peak_learning_rate(config.lr, usual_rule, batch, reference)
    return Finding(
        "note",
        what,
        f"{rate}; the rule that is usual with {config.optimizer.name}, {usual_rule} "
        f"scaling from {reference} to {batch} samples, would give {usual_peak:g}",
        f"this is only a hint: tune lr, or use lr_rule={usual_rule}",
    )
