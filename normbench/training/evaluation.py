"""Metrics of a network, under each of the statistics its norms can evaluate with."""

import copy
from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from normbench.norms import recompute_statistics, use_batch_statistics
from normbench.tasks.base import Task

HELD_OUT = ("val", "test")


def batch_size(task: Task, micro_batch: int) -> int:
    """How many samples an evaluation takes at a time, whatever the norm.

    Where batches differ in shape, the pads depend on it, and some norms see pads: then
    as many as in training. Else as many as fit the caches.
    """
    return 64 if task.fixed_spatial else micro_batch


def evaluate(
    task: Task, model: nn.Module, splits: Iterable[str], batch_size: int
) -> dict[str, float]:
    """Metrics "split/name" of `model` as it is set, `batch_size` samples at a time."""
    return {
        f"{split}/{name}": value
        for split in splits
        for name, value in task.evaluate(model, split, batch_size).items()
    }


def evaluate_other_statistics(
    task: Task,
    model: nn.Module,
    norms: Sequence[nn.Module],
    micro_batch: int,
    training: Tensor,
) -> dict[str, float]:
    """Held-out metrics of a network whose norms differ between training and evaluation.

    "test_recomputed/..": the running statistics are replaced by their mean over one
    pass through the samples `training`, in that order and so in batches like those of
    training ("precise" statistics, Wu & Johnson 2021).
    "test_batch/..": the norms use each batch's own statistics, as in training. Both on
    a copy, without dropout, `micro_batch` samples at a time, as in training.
    """
    whole = len(training) // micro_batch * micro_batch
    batches = training[:whole].view(-1, micro_batch).unbind()

    def recomputed(twin: nn.Module, twin_norms: Sequence[nn.Module]) -> None:
        recompute_statistics(
            lambda index: twin(*task.training_inputs(index)), twin_norms, batches
        )

    def batch(twin: nn.Module, twin_norms: Sequence[nn.Module]) -> None:
        use_batch_statistics(twin_norms)

    metrics: dict[str, float] = {}
    for way in (recomputed, batch):
        twin, twin_norms = copy.deepcopy((model, list(norms)))
        way(twin, twin_norms)
        metrics |= _renamed(evaluate(task, twin, HELD_OUT, micro_batch), way.__name__)
    return metrics


def same_under_other_statistics(metrics: dict[str, float]) -> dict[str, float]:
    """What `evaluate_other_statistics` gives, by definition, for any other network."""
    held_out = {k: v for k, v in metrics.items() if k.split("/")[0] in HELD_OUT}
    return _renamed(held_out, "recomputed") | _renamed(held_out, "batch")


def _renamed(metrics: dict[str, float], way: str) -> dict[str, float]:
    return {key.replace("/", f"_{way}/"): value for key, value in metrics.items()}
