"""Metrics of a network, for each kind of statistics that its norms can use."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import get_args

from torch import Tensor, nn

from normbench.config.evaluation import AtEnd, is_ema
from normbench.config.schema import RunConfig
from normbench.norms import Norm, recompute_statistics, use_batch_statistics
from normbench.tasks.base import Scores, Task
from normbench.training.network import norm_class

HELD_OUT = ("val", "test")
KINDS = ("recomputed", "batch")
"""Statistics of held-out metrics, other than the running ones."""

MIN_BATCH = 32
"""Minimum number of samples in a forward pass of several norm batches.

A forward pass of a few samples costs up to ten times more per sample."""


def differs_in_eval(config: RunConfig) -> bool:
    """Return whether the norms of a run, with their options, differ in evaluation."""
    norm = norm_class(config)
    own_options = config.norm.options if norm.name == config.norm.name else {}
    return norm.differs_with(own_options)


def evaluate(
    task: Task,
    model: nn.Module,
    samples: Mapping[str, Tensor],
    batch_size: int,
    *,
    few_pads: bool = False,
) -> dict[str, float]:
    """Return the metrics of `model` by "split/name".

    `samples` has the indices of each split. The other arguments are those of
    `Task.score`.
    """
    metrics: dict[str, float] = {}
    for split, index in samples.items():
        scores = task.score(model, index, batch_size, few_pads=few_pads)
        metrics |= by_split(split, scores)
    return metrics


def by_split(split: str, scores: Scores) -> dict[str, float]:
    """Return the metrics of `scores` by "split/name"."""
    return {f"{split}/{name}": value for name, value in scores.metrics.items()}


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

    @property
    def splits(self) -> list[str]:
        """The splits to evaluate with running statistics at the end of a run."""
        names = [name for name in self.config.measured if not is_ema(name)]
        needed = {"test", *names}
        if not differs_in_eval(self.config):  # see `same_under_other_statistics`
            needed |= {name.partition("_")[0] for name in names}
        return [split for split in ("train", *HELD_OUT) if split in needed]

    def running(self, model: nn.Module, *splits: str) -> dict[str, float]:
        """Return the metrics of `model`, a network in evaluation mode, on `splits`."""
        metrics: dict[str, float] = {}
        for split in splits:
            metrics |= by_split(split, self.scores(model, split))
        return metrics

    def scores(self, model: nn.Module, split: str) -> Scores:
        """Return the scores of `model`, a network in evaluation mode, on `split`."""
        limits = {"train": self.config.evaluation.train_samples}
        samples = self.task.evaluation_samples(split)[: limits.get(split)]
        # For images, this is a batch that is small enough for the caches of a CPU.
        usual = 64 if self.task.fixed_spatial else self.micro_batch
        size, few_pads = self._batches(usual)
        return self.task.score(model, samples, size, few_pads=few_pads)

    def other_statistics(
        self, model: nn.Module, norms: Sequence[nn.Module], training_samples: Tensor
    ) -> dict[str, float]:
        """Return held-out metrics without the running statistics of training.

        This is for a network whose norms differ between training and evaluation. The
        metrics "test_recomputed/..." use running statistics that are averaged anew over
        the batches of `training_samples` ("precise" statistics, Wu & Johnson 2021). The
        metrics "test_batch/..." use the statistics of each batch, as in training. All
        these metrics are measured on copies of the network, without dropout.
        """
        metrics: dict[str, float] = {}
        size = self._training_batch()
        for kind in KINDS:
            samples = {
                split: self.task.evaluation_samples(split)
                for split in HELD_OUT
                if f"{split}_{kind}" in self.config.measured
            }
            if not samples:
                continue
            copied_model, copied_norms = copy.deepcopy((model, list(norms)))
            if kind == "batch":
                use_batch_statistics(copied_norms)
                values = evaluate(self.task, copied_model, samples, size)
            else:
                self.recompute(copied_model, copied_norms, training_samples)
                any_size, few_pads = self._batches(size)
                values = evaluate(
                    self.task, copied_model, samples, any_size, few_pads=few_pads
                )
            metrics |= _renamed(values, kind)
        return metrics

    def recompute(
        self, model: nn.Module, norms: Sequence[nn.Module], training_samples: Tensor
    ) -> None:
        """Average the running statistics of `norms`, those of `model`, anew.

        The average is over the batches of `training_samples`.
        """
        self.task.begin_epoch(0, training_samples)
        forward = partial(_forward, self.task, model)
        batches = training_samples.split(self._training_batch())
        recompute_statistics(forward, norms, batches)

    def to_recompute(self, training_samples: Tensor) -> Tensor:
        """Return those of `training_samples` over which statistics are recomputed.

        Samples that do not fill a whole micro-batch are left out.
        """
        size, limit = self.micro_batch, self.config.evaluation.recompute_samples
        count = len(training_samples)
        if limit is not None:
            count = min(count, ceil(limit / size) * size)
        return training_samples[: count // size * size]

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

    def _batches(self, usual: int) -> tuple[int, bool]:
        """Return batch size and `few_pads` for norms without statistics of batches.

        A batch has `usual` samples, unless the config sets another number and the norm
        gives the same results in other batches.
        """
        size, norm = self.config.evaluation.batch_size, self._norm
        differs = differs_in_eval(self.config)
        honours_mask = norm.honours_mask or (norm.fixed_map_in_eval and differs)
        ignores_pads = honours_mask and self.task.ignores_pads
        ignores_samples = differs or not norm.uses_other_samples
        ignores_batch = (self.task.fixed_spatial or ignores_pads) and ignores_samples
        if size is None or not ignores_batch:
            return usual, False
        if size == "auto":
            size = self.task.evaluation_batch
        return size, ignores_pads

    @property
    def _norm(self) -> type[Norm]:
        return norm_class(self.config)


def same_under_other_statistics(
    metrics: Mapping[str, float], names: Sequence[str] = get_args(AtEnd)
) -> dict[str, float]:
    """Return the held-out `metrics` under `names`, such as "val_batch".

    This is for a network whose norms do not differ between training and evaluation.
    """
    held_out = {
        key: value for key, value in metrics.items() if key.split("/")[0] in HELD_OUT
    }
    renamed = _renamed(held_out, "recomputed") | _renamed(held_out, "batch")
    return {key: x for key, x in renamed.items() if key.split("/")[0] in names}


def _forward(task: Task, model: nn.Module, index: Tensor) -> None:
    model(*task.training_inputs(index))


def _renamed(metrics: Mapping[str, float], statistics: str) -> dict[str, float]:
    return {
        key.replace("/", f"_{statistics}/"): value for key, value in metrics.items()
    }
