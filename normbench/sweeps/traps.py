"""Known problems with the batches, norms and rates of a config."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from normbench.config.rates import peak_learning_rate, peak_lr
from normbench.config.schema import RunConfig
from normbench.norms.base import REGISTRY as NORMS
from normbench.norms.base import Norm
from normbench.tasks.base import Task

Level = Literal["ok", "note", "warning", "error"]

FEW_SAMPLES = 16
"""Samples in a norm batch below which BatchNorm's error grows (Wu & He 2018)."""
FEW_VALUES = 16
"""Values in a statistic of one sample below which it is mostly noise."""
HIGHEST_ADAMW = 0.01
"""Peak learning rate above which AdamW is often unstable; SGD's are usually higher."""
SMALL_BATCH = 1 / 8
"""Share of lr_reference_batch_size up to which the linear rule is off by factors."""


@dataclass(frozen=True)
class Finding:
    """One thing that doctor looked at; `do` is advice, or empty."""

    level: Level
    what: str
    why: str
    do: str = ""


def finding(problem: bool, level: Level, what: str, why: str, do: str) -> Finding:
    """A finding of `level`, with advice, if there is a `problem`; else an ok."""
    return Finding(level, what, why, do) if problem else Finding("ok", what, why)


def norm_of(config: RunConfig) -> type[Norm]:
    return NORMS.get(config.norm.name)


def batches(config: RunConfig, task: Task) -> Iterator[Finding]:
    """The samples that an epoch leaves out, and ghost batches without an effect."""
    steps, rest = divmod(len(task.splits["train"]), config.batch_size)
    yield finding(
        rest == 1,
        "note",
        "last batch",
        f"{steps} steps of {config.batch_size} samples an epoch, and {rest} left out",
        "nothing here; a DataLoader needs drop_last=True, or a statistic of one sample "
        "ends each epoch",
    )
    micro_batch = config.batch_size // config.accumulate
    norm = norm_of(config)
    if config.norm_batch < micro_batch and not norm.uses_other_samples:
        yield Finding(
            "warning",
            "ghost batches",
            f"norm_batch={config.norm_batch} changes nothing but the run id of norm="
            f"{norm.name}, whose samples share no statistics",
            f"leave norm_batch at the micro-batch, {micro_batch}",
        )
    elif config.accumulate > 1 and norm.uses_other_samples:
        yield Finding(
            "note",
            "accumulation",
            f"accumulate={config.accumulate}: statistics are of {config.norm_batch} "
            f"samples, not of the {config.batch_size} in a step",
        )


def relative_noise(samples: int, positions: int) -> tuple[float, float]:
    """The error of a channel's batch mean, in its standard deviations: least, most.

    The standard error of a mean of n_eff independent values is 1 / sqrt(n_eff) of their
    standard deviation, with Kish's (1965) n_eff = samples * positions / (1 + rho *
    (positions - 1)) where positions of one sample correlate by rho: least is rho = 0,
    most is rho = 1. That of log std is 1 / sqrt(2) of it for normal values. The probe
    `statistic_noise` measures both.
    """
    return 1 / math.sqrt(samples * positions), 1 / math.sqrt(samples)


def values_in_statistic(
    norm: type[Norm], options: Mapping[str, object], shape: torch.Size
) -> int | None:
    """How many values of one sample are in a statistic, at most, by the norm's axes.

    None if the norm has no statistic. Raises ValueError if its axes use unknown terms.
    """
    _, channels, *spatial = shape
    groups, size = options.get("num_groups", 1), options.get("group_size")
    widths = {
        "one channel": 1,
        "a window of channels": channels,
        "all channels": channels,
    }
    if isinstance(size, int):
        widths["one group of channels"] = size
    elif isinstance(groups, int):
        widths["one group of channels"] = channels // groups
    lengths = {"one position": 1, "all positions": math.prod(spatial)}
    counts = []
    for axes in norm.axes.split("; "):
        match axes.split(", "):
            case [_, "one channel", "one position"]:
                continue
            case [_, over, where] if over in widths and where in lengths:
                counts.append(widths[over] * lengths[where])
            case _:
                raise ValueError(f"axes={norm.axes!r} uses unknown terms")
    return min(counts, default=None)


def statistics(config: RunConfig, shapes: Sequence[torch.Size]) -> Iterator[Finding]:
    """How many values a statistic has, in the layer where it has the fewest.

    `shapes` are those of the norms' inputs, (N, C, *spatial).
    """
    norm = norm_of(config)
    if not shapes:
        return
    if norm.uses_other_samples:
        positions = min(math.prod(shape[2:]) for shape in shapes)
        least, most = relative_noise(config.norm_batch, positions)
        yield finding(
            config.norm_batch < FEW_SAMPLES,
            "warning",
            "samples per statistic",
            f"norm_batch={config.norm_batch} samples of {positions} positions, in the "
            f"smallest layer: a batch mean is off by {least:.0%} to {most:.0%} of a "
            "standard deviation, for independent to equal positions",
            f"norm_batch of {FEW_SAMPLES} or more, or a norm of single samples; the "
            "probe statistic_noise measures it",
        )
        return
    what = "values per statistic"
    try:
        counts = [values_in_statistic(norm, config.norm.options, s) for s in shapes]
    except ValueError as error:
        yield Finding(
            "note",
            what,
            f"not known of norm={norm.name}, whose {error}",
            'write them as other norms do: "one sample, one channel, all positions"',
        )
        return
    least_values = min((count for count in counts if count is not None), default=None)
    if least_values is None:
        yield Finding("ok", what, f"norm={norm.name} has none")
        return
    yield finding(
        least_values < FEW_VALUES,
        "warning",
        what,
        f"{least_values} of one sample, in the smallest layer: a mean is off by up to "
        f"{1 / math.sqrt(least_values):.0%} of a standard deviation",
        "fewer groups, more channels or a higher resolution",
    )


def weight_decay(config: RunConfig) -> Finding:
    """Whether weight decay pulls gamma and beta to 0."""
    decay, on_norms = config.optimizer.weight_decay, config.norm_weight_decay
    where = "also" if on_norms else "not"
    return finding(
        bool(decay and on_norms),
        "warning",
        "weight decay",
        f"optimizer.weight_decay={decay:g} is {where} on the norms' gamma and beta",
        "norm_weight_decay=false, unless that is the question: decay pulls gamma and "
        "beta to 0, and no later layer undoes it",
    )


def learning_rate(config: RunConfig) -> Finding:
    """The rate against the batch size: a hint, no more.

    Proportional to the batch for SGD (Goyal et al. 2017), to its square root for Adam
    (Malladi et al. 2022).
    """
    what = "learning rate"
    reference, batch = config.lr_reference_batch_size, config.batch_size
    peak = peak_lr(config)
    rate = f"lr={config.lr:g}, lr_rule={config.lr_rule}: {peak:g} at the peak"
    if config.optimizer.name == "adamw" and peak > HIGHEST_ADAMW:
        return Finding(
            "warning",
            what,
            f"{rate}, which is a rate for SGD; AdamW is unstable above "
            f"{HIGHEST_ADAMW:g}",
            "lr=0.001 (the default of torch.optim.AdamW) or near it, or tune lr",
        )
    if config.lr_rule == "linear" and batch <= SMALL_BATCH * reference:
        root = peak_learning_rate(config.lr, "sqrt", batch, reference)
        return Finding(
            "warning",
            what,
            f"{rate}; from {reference} down to {batch} samples the linear rule gives "
            "rates that can be several times too low, and the ranking of norms changes "
            "with the rate",
            "tune lr for each norm, as `normbench compare` does; lr_rule=sqrt would "
            f"give {root:g}",
        )
    usual: Literal["linear", "sqrt"]
    usual = "linear" if config.optimizer.name == "sgd" else "sqrt"
    if batch == reference or config.lr_rule == usual:
        return Finding("ok", what, rate)
    other = peak_learning_rate(config.lr, usual, batch, reference)
    return Finding(
        "note",
        what,
        f"{rate}; {usual} scaling from {reference} to {batch} samples, usual with "
        f"{config.optimizer.name}, would be {other:g}",
        f"only a hint: tune lr, or lr_rule={usual}",
    )
