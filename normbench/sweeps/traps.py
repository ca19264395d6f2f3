"""Traps of a config: what is known to go wrong with such batches, norms and rates."""

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
    """One thing that was looked at: `do` says what to do about it, "" where nothing."""

    level: Level
    what: str
    why: str
    do: str = ""


def norm_of(config: RunConfig) -> type[Norm]:
    return NORMS.get(config.norm.name)


def batches(config: RunConfig, task: Task) -> Iterator[Finding]:
    """Ghost batches that do nothing, and what an epoch leaves over."""
    samples = len(task.splits["train"])
    rest = samples % config.batch_size
    steps = f"{samples // config.batch_size} steps of {config.batch_size} samples"
    if rest == 1:
        yield Finding(
            "note",
            "last batch",
            f"{steps}, and 1 sample that is left out",
            "nothing here; a DataLoader needs drop_last=True, or a statistic of one "
            "sample ends each epoch",
        )
    else:
        yield Finding(
            "ok", "last batch", f"{steps} in an epoch, and {rest} that are left out"
        )
    micro_batch = config.batch_size // config.accumulate
    shared = norm_of(config).uses_other_samples
    if config.norm_batch < micro_batch and not shared:
        yield Finding(
            "warning",
            "ghost batches",
            f"norm_batch={config.norm_batch} changes nothing but the run id of norm="
            f"{norm_of(config).name}, whose samples share no statistics",
            f"leave norm_batch at the micro-batch, {micro_batch}",
        )
    elif config.accumulate > 1 and shared:
        yield Finding(
            "note",
            "accumulation",
            f"accumulate={config.accumulate}: statistics are of {config.norm_batch} "
            f"samples, not of the {config.batch_size} in a step",
        )


def relative_noise(samples: int, positions: int) -> tuple[float, float]:
    """How far a channel's batch mean is off, in its standard deviations: least, most.

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

    None where it has none. Raises ValueError where those are in words of its own.
    """
    _, channels, *spatial = shape
    widths = {"one channel": 1, "a window of channels": channels}
    widths |= {"all channels": channels}
    groups, size = options.get("num_groups", 1), options.get("group_size")
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
    """How many values a statistic has, in the layer where it has the fewest."""
    norm = norm_of(config)
    if not shapes:
        return
    if norm.uses_other_samples:
        positions = min(math.prod(shape[2:]) for shape in shapes)
        least, most = relative_noise(config.norm_batch, positions)
        said = (
            f"norm_batch={config.norm_batch} samples of {positions} positions, in the "
            f"smallest layer: a batch mean is off by {least:.0%} to {most:.0%} of a "
            "standard deviation, as positions are independent or alike"
        )
        if config.norm_batch < FEW_SAMPLES:
            yield Finding(
                "warning",
                "samples per statistic",
                said,
                f"norm_batch of {FEW_SAMPLES} or more, or a norm of single samples; "
                "the probe statistic_noise measures it",
            )
        else:
            yield Finding("ok", "samples per statistic", said)
        return
    options = config.norm.options
    try:
        counts = [values_in_statistic(norm, options, shape) for shape in shapes]
    except ValueError as error:
        yield Finding(
            "note",
            "values per statistic",
            f"not known of norm={norm.name}, whose {error}",
            'write them as other norms do: "one sample, one channel, all positions"',
        )
        return
    known = [count for count in counts if count is not None]
    if not known:
        yield Finding("ok", "values per statistic", f"norm={norm.name} has none")
        return
    said = (
        f"{min(known)} of one sample, in the smallest layer: a mean is off by up to "
        f"{1 / math.sqrt(min(known)):.0%} of a standard deviation"
    )
    if min(known) < FEW_VALUES:
        yield Finding(
            "warning",
            "values per statistic",
            said,
            "fewer groups, more channels or a higher resolution",
        )
    else:
        yield Finding("ok", "values per statistic", said)


def weight_decay(config: RunConfig) -> Iterator[Finding]:
    decay = config.optimizer.weight_decay
    on_weights = f"optimizer.weight_decay={decay:g}"
    if decay and config.norm_weight_decay:
        yield Finding(
            "warning",
            "weight decay",
            f"{on_weights} is on the norms' own parameters too: gamma and beta are "
            "pulled to 0, and nothing behind them undoes it",
            "norm_weight_decay=false, unless that is the question",
        )
    else:
        yield Finding(
            "ok", "weight decay", f"{on_weights}, none on the norms' gamma and beta"
        )


def learning_rate(config: RunConfig) -> Iterator[Finding]:
    """The rate against the batch size: a hint, no more.

    Proportional to the batch for SGD (Goyal et al. 2017), to its square root for Adam
    (Malladi et al. 2022).
    """
    reference, batch = config.lr_reference_batch_size, config.batch_size
    peak = peak_lr(config)
    said = f"lr={config.lr:g}, lr_rule={config.lr_rule}: {peak:g} at the peak"
    if config.optimizer.name == "adamw" and peak > HIGHEST_ADAMW:
        yield Finding(
            "warning",
            "learning rate",
            f"{said}, which is a rate for SGD; AdamW is unstable above "
            f"{HIGHEST_ADAMW:g}",
            "lr=0.001 (the default of torch.optim.AdamW) or near it, or tune lr",
        )
        return
    if config.lr_rule == "linear" and batch <= SMALL_BATCH * reference:
        root = peak_learning_rate(config.lr, "sqrt", batch, reference)
        yield Finding(
            "warning",
            "learning rate",
            f"{said}; from {reference} down to {batch} samples the linear rule gives "
            "rates that can be several times too low, and the ranking of norms changes "
            "with the rate",
            "tune lr for each norm, as `normbench compare` does; lr_rule=sqrt would "
            f"give {root:g}",
        )
        return
    usual: Literal["linear", "sqrt"]
    usual = "linear" if config.optimizer.name == "sgd" else "sqrt"
    if batch == reference or config.lr_rule == usual:
        yield Finding("ok", "learning rate", said)
        return
    other = peak_learning_rate(config.lr, usual, batch, reference)
    yield Finding(
        "note",
        "learning rate",
        f"{said}; {usual} scaling from {reference} to {batch} samples, usual with "
        f"{config.optimizer.name}, would be {other:g}",
        f"only a hint: tune lr, or lr_rule={usual}",
    )
