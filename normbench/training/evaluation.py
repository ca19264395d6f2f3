"""Metrics of a network with each kind of statistics that its norms can use."""

import copy
from collections.abc import Iterable, Sequence
from functools import partial

from torch import Tensor, nn

from normbench.norms import recompute_statistics, use_batch_statistics
from normbench.tasks.base import Task

HELD_OUT = ("val", "test")


def batch_size(task: Task, micro_batch: int) -> int:
    """How many samples an evaluation takes at a time.

    Where the length of a batch depends on its samples, so do the pads that some norms
    see: then as many as in training, else as many as fit the caches.
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

    "test_recomputed/..": with running statistics that are their mean over one pass
    through the samples `training`, in batches like those of training ("precise"
    statistics, Wu & Johnson 2021). "test_batch/..": with the statistics of each batch,
    as in training. Both on a copy, without dropout, `micro_batch` samples at a time.
    """
    whole = len(training) // micro_batch * micro_batch
    batches = training[:whole].view(-1, micro_batch).unbind()
    metrics: dict[str, float] = {}
    for way in ("recomputed", "batch"):
        twin, twin_norms = copy.deepcopy((model, list(norms)))
        if way == "batch":
            use_batch_statistics(twin_norms)
        else:
            forward = partial(_forward, task, twin)
            recompute_statistics(forward, twin_norms, batches)
        metrics |= _renamed(evaluate(task, twin, HELD_OUT, micro_batch), way)
    return metrics


def same_under_other_statistics(metrics: dict[str, float]) -> dict[str, float]:
    """What `evaluate_other_statistics` would return for any other network."""
    held_out = {k: v for k, v in metrics.items() if k.split("/")[0] in HELD_OUT}
    return _renamed(held_out, "recomputed") | _renamed(held_out, "batch")


def _forward(task: Task, model: nn.Module, index: Tensor) -> None:
    model(*task.training_inputs(index))


def _renamed(metrics: dict[str, float], way: str) -> dict[str, float]:
    return {key.replace("/", f"_{way}/"): value for key, value in metrics.items()}
