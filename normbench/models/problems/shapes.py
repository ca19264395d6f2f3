"""Problems that one forward shows: shapes, neighbours, calls, unknown layers."""

import math
from collections.abc import Iterator

from normbench.models.finding import Finding
from normbench.models.layers import readable
from normbench.models.problems.context import (
    SHOWN,
    Context,
    Rows,
    count,
    names,
    uses_batch,
)
from normbench.norms.measure.sizes import FEW_SAMPLES, FEW_VALUES, relative_noise


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
    batch = [row for row in shared if row.kind != "unknown" and uses_batch(row)]
    few = [row for row in batch if row.values and row.values > 1]
    if few:
        row = min(few, key=lambda row: row.values or 0)
        samples, values = row.samples or 1, row.values or 1
        lowest, highest = relative_noise(samples, max(1, values // samples))
        yield Finding(
            "warning",
            "samples per statistic",
            f"{samples} samples share the statistics of {names(few)}; in "
            f"{readable(row.name)} a statistic has {values} values, and the "
            f"standard error of a batch mean is {lowest:.0%} to {highest:.0%} of a "
            "standard deviation",
            f"use {FEW_SAMPLES} samples or more per device, or a norm of single "
            "samples such as group",
        )
    of_samples = [row for row in known if not uses_batch(row)]
    small = [row for row in of_samples if 1 < (row.values or 0) < FEW_VALUES]
    if small:
        row = min(small, key=lambda row: row.values or 0)
        yield Finding(
            "warning",
            "values per statistic",
            f"a statistic has {row.values} values in {readable(row.name)}, and fewer "
            f"than {FEW_VALUES} in {names(small)}: the standard error of a mean is "
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
    redundant = context.observation.redundant
    if redundant:
        layers = f"{len(redundant)} layer{'s' if len(redundant) > 1 else ''}"
        yield Finding(
            "note",
            "redundant bias",
            f"the bias of {names(redundant)} has no effect in training, because the "
            f"next norm subtracts the mean of each channel ({layers})",
            "use bias=False in these layers, which saves parameters",
        )


def shared_layers(rows: Rows, context: Context) -> Iterator[Finding]:
    """A norm is called several times in one forward."""
    several = [row for row in rows if row.calls > 1]
    batch = [row for row in several if uses_batch(row)]
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


def not_called(rows: Rows, context: Context) -> Iterator[Finding]:
    """A norm was not called in the forward."""
    idle = [row for row in rows if not row.calls]
    if idle:
        why = f"{names(idle)} were not called in the forward"
        yield Finding(
            "note", "unused layers", why, "remove them if they are never used"
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
        why = f"the function of {types} is unknown ({count(unknown)})"
        yield Finding("note", "unknown norms", why)


CHECKS = (
    training_forward,
    few_values,
    lonely_channels,
    redundant_bias,
    shared_layers,
    not_called,
    unknown_layers,
)
