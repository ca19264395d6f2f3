"""Metrics of a network, for each kind of statistics that its norms can use."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from normbench.config.schema import RunConfig
from normbench.norms import Norm, recompute_statistics, use_batch_statistics
from normbench.norms.base import REGISTRY as NORMS
from normbench.tasks.base import Task

HELD_OUT = ("val", "test")

MIN_BATCH = 32
"""Minimum number of samples in a forward pass of several norm batches.

A forward pass of a few samples costs up to ten times more per sample."""


def evaluate(
    task: Task, model: nn.Module, samples: Mapping[str, Tensor], batch_size: int
) -> dict[str, float]:
    """Return the metrics of `model` by "split/name". A batch has `batch_size` samples.

    `samples` has the indices of each split. The mode of `model` (training or
    evaluation) does not change.
    """
    return {
        f"{split}/{name}": value
        for split, index in samples.items()
        for name, value in task.evaluate(model, index, batch_size).items()
    }


@dataclass(frozen=True)
class Evaluator:
    """Evaluates the networks of a run, on the samples and in the batches it asks for.

    If the task pads texts to the longest text in a batch, the number of pads depends on
    the batch, and some norms use the pads. Then a batch is a micro-batch, as in
    training. Other metrics do not depend on the batches; `evaluation.batch_size` of the
    config chooses them.
    """

    task: Task
    config: RunConfig

    @property
    def micro_batch(self) -> int:
        """The number of samples in a forward pass of training."""
        return self.config.batch_size // self.config.accumulate

    def running(self, model: nn.Module, *splits: str) -> dict[str, float]:
        """Return the metrics of `model`, a network in evaluation mode, on `splits`."""
        limits = {"train": self.config.evaluation.train_samples}
        samples = {
            split: self.task.evaluation_samples(split)[: limits.get(split)]
            for split in splits
        }
        return self._in_any_batches(model, samples, self._usual_batch())

    def other_statistics(
        self,
        model: nn.Module,
        norms: Sequence[nn.Module],
        kinds: Sequence[str],
        training_samples: Tensor,
    ) -> dict[str, float]:
        """Return held-out metrics without the running statistics of training.

        This is for a network whose norms differ between training and evaluation. The
        metrics "test_recomputed/..." use running statistics that are averaged anew over
        the batches of `training_samples` ("precise" statistics, Wu & Johnson 2021). The
        metrics "test_batch/..." use the statistics of each batch, as in training.
        `kinds` says which are measured. All these metrics are measured on copies of the
        network, without dropout.
        """
        metrics: dict[str, float] = {}
        samples, size = self._held_out(), self._training_batch()
        for kind in kinds:
            copied_model, copied_norms = copy.deepcopy((model, list(norms)))
            if kind == "batch":
                use_batch_statistics(copied_norms)
                values = evaluate(self.task, copied_model, samples, size)
            else:
                forward = partial(_forward, self.task, copied_model)
                batches = training_samples.split(size)
                recompute_statistics(forward, copied_norms, batches)
                values = self._in_any_batches(copied_model, samples, size)
            metrics |= _renamed(values, kind)
        return metrics

    def same_under_other_statistics(
        self, model: nn.Module, kinds: Sequence[str], metrics: Mapping[str, float]
    ) -> dict[str, float]:
        """Return what `other_statistics` would return, computed at most once.

        This is for a network whose norms do not differ between training and evaluation.
        `metrics` are those of `running` on the held-out splits.
        """
        if kinds and self.config.evaluation.other_samples is not None:
            metrics = self._in_any_batches(model, self._held_out(), self._usual_batch())
        return same_under_other_statistics(metrics, kinds)

    def to_recompute(self, training_samples: Tensor) -> Tensor:
        """Return those of `training_samples` over which statistics are recomputed.

        Samples that do not fill a whole micro-batch are left out.
        """
        limit = self._whole(self.config.evaluation.recompute_samples)
        count = len(training_samples) // self.micro_batch * self.micro_batch
        return training_samples[:count][:limit]

    def _held_out(self) -> dict[str, Tensor]:
        limit = self._whole(self.config.evaluation.other_samples)
        return {s: self.task.evaluation_samples(s)[:limit] for s in HELD_OUT}

    def _whole(self, limit: int | None) -> int | None:
        """Return `limit`, rounded up to a multiple of the micro-batch."""
        if limit is None:
            return None
        return -(-limit // self.micro_batch) * self.micro_batch

    def _usual_batch(self) -> int:
        return 64 if self.task.fixed_spatial else self.micro_batch

    def _training_batch(self) -> int:
        """Return the number of samples in a forward with the statistics of batches.

        It is a multiple of norm_batch, so that the same samples share statistics as in
        micro-batches.
        """
        if not self.task.fixed_spatial or not self._norm.uses_other_samples:
            return self.micro_batch  # pads, or a norm without a Ghost, depend on it
        size, fastest = self.config.evaluation.batch_size, self.task.evaluation_batch
        if size is None:
            size = min(MIN_BATCH, fastest)
        elif size == "auto":
            size = fastest
        norm_batch = self.config.norm_batch
        return max(self.micro_batch, size // norm_batch * norm_batch)

    def _in_any_batches(
        self, model: nn.Module, samples: Mapping[str, Tensor], usual: int
    ) -> dict[str, float]:
        """Return metrics that depend on no batch statistics.

        A batch has `usual` samples, unless the config sets another number and the norm
        gives the same results with other pads.
        """
        size, norm = self.config.evaluation.batch_size, self._norm
        ignores_pads = norm.honours_mask or norm.fixed_map_in_eval
        if size is None or not (self.task.fixed_spatial or ignores_pads):
            return evaluate(self.task, model, samples, usual)
        lengths = self.task.lengths
        if lengths is not None:  # texts of similar length need few pads
            samples = {
                split: index[lengths[index].argsort(stable=True)]
                for split, index in samples.items()
            }
        if size == "auto":
            size = self.task.evaluation_batch
        return evaluate(self.task, model, samples, size)

    @property
    def _norm(self) -> type[Norm]:
        return NORMS.get(self.config.norm.name)


def same_under_other_statistics(
    metrics: Mapping[str, float], kinds: Sequence[str] = ("recomputed", "batch")
) -> dict[str, float]:
    """Return the held-out `metrics` under the names of `Evaluator.other_statistics`."""
    held_out = {
        key: value for key, value in metrics.items() if key.split("/")[0] in HELD_OUT
    }
    return {
        name: value
        for kind in kinds
        for name, value in _renamed(held_out, kind).items()
    }


def _forward(task: Task, model: nn.Module, index: Tensor) -> None:
    model(*task.training_inputs(index))


def _renamed(metrics: Mapping[str, float], statistics: str) -> dict[str, float]:
    return {
        key.replace("/", f"_{statistics}/"): value for key, value in metrics.items()
    }
