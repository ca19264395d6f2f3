"""The config section `evaluation`: what is evaluated, and on how many samples."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator

from normbench.config.fields import MAX_INT, PositiveInt

AtEnd = Literal[
    "train",
    "val",
    "val_recomputed",
    "test_recomputed",
    "val_batch",
    "test_batch",
    "val_ema",
    "test_ema",
    "val_ema_averaged",
    "test_ema_averaged",
    "val_ema_recomputed",
    "test_ema_recomputed",
]
"""Metrics of a finished run, by their prefix.

`_recomputed`: with running statistics that are averaged anew. `_batch`: with the
statistics of each batch, as in training. `_ema`: of the network with the moving average
of the weights, and the running statistics of the trained network. `_ema_averaged` and
`_ema_recomputed`: the same, with the moving average of the running statistics, and with
those that are averaged anew for this network.
"""


def is_ema(name: str) -> bool:
    """Return whether the metrics `name`, such as "val_ema", are of averaged weights."""
    return "ema" in name.split("_")


def _evaluation_batch(size: Any) -> Any:
    is_number = isinstance(size, int) and not isinstance(size, bool)
    if size not in (None, "auto") and not (is_number and 0 < size <= MAX_INT):
        raise ValueError("a batch size is null, 'auto' or a whole number above 0")
    return size


class Evaluation(
    BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False
):
    """What is evaluated, on how many samples, and in which batches.

    `at_end` has the metrics of a finished run; the test split is always evaluated too.
    A run without `ema` has none of "_ema". If `other_statistics` is "never", the
    metrics of "_recomputed", "_batch" and "_averaged" are left out. `batch_size` is the
    number of samples in a forward pass, where metrics do not depend on it: "auto" is
    the fastest number on one CPU core, and None is the number of the first version.

    At most `train_samples` samples of the training split are evaluated. Statistics are
    recomputed over `recompute_samples` training samples, rounded up to whole
    micro-batches. None means all samples, and so does a number above those of the
    split. A limit takes the first samples. Their order depends on the seed alone.
    """

    at_end: list[AtEnd] = list(get_args(AtEnd))
    other_statistics: Literal["end", "never"] = "end"
    batch_size: Annotated[
        int | Literal["auto"] | None, BeforeValidator(_evaluation_batch)
    ] = None
    train_samples: PositiveInt | None = None
    recompute_samples: PositiveInt | None = None

    @property
    def measured(self) -> list[AtEnd]:
        """The metrics of `at_end` that `other_statistics` does not leave out."""
        if self.other_statistics == "end":
            return self.at_end
        return [name for name in self.at_end if name.endswith(_WITH_RUNNING)]


_WITH_RUNNING = ("train", "val", "_ema")
"""How the names of metrics with the running statistics of training end."""
