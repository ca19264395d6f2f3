"""Metrics of a network, for each kind of statistics that its norms can use."""

import copy
from collections.abc import Iterable, Sequence
from functools import partial

from torch import Tensor, nn

from normbench.norms import recompute_statistics, use_batch_statistics
from normbench.tasks.base import Task

HELD_OUT = ("val", "test")


def batch_size(task: Task, micro_batch: int) -> int:
    """Return the number of samples in each batch of an evaluation.

    If the task pads texts to the longest text in a batch, the number of pads depends on
    the batch size, and some norms use the pads. Then evaluation has the batch size of
    training. For other tasks, a batch is small enough for the caches of the CPU.
    """
    return 64 if task.fixed_spatial else micro_batch


def evaluate(
    task: Task, model: nn.Module, splits: Iterable[str], batch_size: int
) -> dict[str, float]:
    """Return the metrics of `model` by "split/name". A batch has `batch_size` samples.

    The mode of `model` (training or evaluation) does not change.
    """
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
    training_samples: Tensor,
) -> dict[str, float]:
    """Return held-out metrics without the running statistics of training.

    This is for a network whose norms differ between training and evaluation. The
    metrics "test_recomputed/..." use running statistics that are averaged anew over the
    batches of `training_samples` ("precise" statistics, Wu & Johnson 2021). The metrics
    "test_batch/..." use the statistics of each batch, as in training. All these metrics
    are measured on copies of the network, without dropout, in batches of `micro_batch`
    samples.
    """
    # Samples that do not fill a whole batch are left out.
    count = len(training_samples) // micro_batch * micro_batch
    batches = training_samples[:count].view(-1, micro_batch).unbind()
    metrics: dict[str, float] = {}
    for statistics in ("recomputed", "batch"):
        copied_model, copied_norms = copy.deepcopy((model, list(norms)))
        if statistics == "batch":
            use_batch_statistics(copied_norms)
        else:
            forward = partial(_forward, task, copied_model)
            recompute_statistics(forward, copied_norms, batches)
        values = evaluate(task, copied_model, HELD_OUT, micro_batch)
        metrics |= _renamed(values, statistics)
    return metrics


def same_under_other_statistics(metrics: dict[str, float]) -> dict[str, float]:
    """Return the held-out `metrics` under the names of `evaluate_other_statistics`.

    This is for a network whose norms do not differ between training and evaluation.
    """
    held_out = {
        key: value for key, value in metrics.items() if key.split("/")[0] in HELD_OUT
    }
    return _renamed(held_out, "recomputed") | _renamed(held_out, "batch")


def _forward(task: Task, model: nn.Module, index: Tensor) -> None:
    model(*task.training_inputs(index))


def _renamed(metrics: dict[str, float], statistics: str) -> dict[str, float]:
    return {
        key.replace("/", f"_{statistics}/"): value for key, value in metrics.items()
    }
