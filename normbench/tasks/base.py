"""The contract of a task: a network, its loss, its metrics."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.data.notes import Notes
from normbench.registry import Registry

REGISTRY: "Registry[Task]" = Registry("task", "normbench.tasks")


class NormFactory(Protocol):
    """Builds the norms of a model.

    The returned module is called as `(x, mask=None, condition=None)`. It normalizes,
    then applies `activation`. A norm that has an activation of its own applies that one
    instead of `activation`.
    """

    def __call__(
        self, channels: int, activation: type[nn.Module] | None = None
    ) -> nn.Module: ...


@dataclass(frozen=True)
class Scores:
    """The scores of a network on M samples.

    `metrics`, such as "loss" and "error", are over all samples. Their keys do not
    contain the name of a split. `samples` has a value (M,) of each sample by name, in
    the order of `index` (M,) int64; bool or float32, on any device. They may be empty.
    """

    metrics: dict[str, float]
    index: Tensor
    samples: Mapping[str, Tensor] = field(default_factory=dict)


class Task(ABC):
    """A network with its loss and metrics on one data set.

    A subclass is built as `Task(data, device, *, **options)`. `data` is an instance of
    `data_kind`, or of one of these classes. A yaml file may set the keyword-only
    parameters. No method may depend on which norm the network has.
    """

    name: ClassVar[str]
    data_kind: ClassVar[type | tuple[type, ...]]
    primary_metric: ClassVar[str]
    direction: ClassVar[Literal["minimize", "maximize"]]
    norm_aliases: ClassVar[dict[str, str]]
    """Maps an ambiguous name, such as "layer", to the norm that it means here."""

    fixed_spatial: bool = True
    """Whether every batch has the same spatial shape."""

    has_images: bool = True
    """Whether the inputs of the network have rows and columns."""

    ignores_pads: ClassVar[bool] = True
    """Whether padding changes an output only by the norms, in a batch of any length."""

    packages: ClassVar[tuple[str, ...]] = ()
    """Packages that the network comes from. A record contains their versions."""

    has_default_network: ClassVar[bool] = True
    """Whether the task builds a network without any option."""

    check_device: ClassVar[str] = "meta"
    """The device on which the network is tried before a run; "meta" computes shapes."""

    failures: ClassVar[tuple[type[Exception], ...]] = (
        RuntimeError,
        NotImplementedError,
    )
    """What the network may raise there if a norm cannot work in it."""

    conditions: int = 1
    """Number of conditions. Above 1, `inputs` has the condition of each sample."""

    batch_by: Tensor | None = None
    """Sort keys (N,) of all samples, on the CPU.

    A training batch consists of samples with similar keys. If this is None, training
    batches are random. Validation and test batches never use the keys.
    """

    sort_within_batch: bool = False
    """Whether a training batch is random and its samples are sorted by `batch_by`.

    Then its micro-batches and norm batches, not the whole batch, have similar keys.
    """

    evaluation_batch: int = 64
    """The number of samples per forward with which one CPU core evaluates fastest."""

    def __init_subclass__(cls, name: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = name
        REGISTRY.add(name, cls)

    splits: dict[str, Tensor]
    """Sample indices (int64, CPU) of "train", "val", "test"."""

    notes: Notes = Notes()
    """How the data set interpreted the user's files, for `doctor` and the record."""

    data_facts: Mapping[str, float] = {}
    """Numbers that describe the data set, such as "skipped_images"."""

    @abstractmethod
    def build(self, norm: NormFactory) -> nn.Module:
        """Build a network whose norms are all built by `norm`.

        The network draws its initial weights from PyTorch's global random generator.
        They must be the same for every norm. The attribute `output_layers` of the
        network lists the last layers, which no norm follows.
        """

    def check(self) -> None:
        """Raise RequestError if the network cannot work, whatever its norm is.

        This is called before the network is tried with a norm.
        """
        return

    @abstractmethod
    def inputs(self, index: Tensor) -> tuple[Tensor, ...]:
        """Return the network inputs of samples `index` (B,), on the device."""

    def training_inputs(self, index: Tensor) -> tuple[Tensor, ...]:
        """Return `inputs` for a training step: augmented if the data set augments."""
        return self.inputs(index)

    def begin_epoch(self, epoch: int, order: Tensor) -> None:
        """Prepare to train in `epoch` (from 0) on the samples in `order`.

        `order` (M,), on the CPU, has their indices in the order of training. A resumed
        run may begin in the middle of an epoch. The inputs of a sample must depend only
        on the sample and the epoch, so that a resumed run sees the same inputs.
        """
        return

    def facts(self, batches: Sequence[Tensor]) -> dict[str, float]:
        """Return numbers to record about the data and the training batches.

        `batches` are all micro-batches of the first epoch, as indices on the CPU.
        """
        return dict(self.data_facts)

    @abstractmethod
    def loss(self, model: nn.Module, index: Tensor) -> Tensor:
        """Return the mean loss over samples `index` (B,): a differentiable scalar."""

    def loss_of_share(self, model: nn.Module, share: Tensor, index: Tensor) -> Tensor:
        """Return the mean loss over `share`, a part of the batch `index`.

        Distributed training calls it with the share of one process. Every sample must
        have the same inputs as in the whole batch. So a task whose inputs depend on the
        batch must override this method.
        """
        return self.loss(model, share)

    def evaluation_samples(self, split: str) -> Tensor:
        """Return the samples (M,) on which `split` is evaluated."""
        return self.splits[split]

    @abstractmethod
    def score(
        self,
        model: nn.Module,
        index: Tensor,
        batch_size: int,
        *,
        few_pads: bool = False,
    ) -> Scores:
        """Return the scores of `model` on the samples `index` (M,), on the CPU.

        A batch has `batch_size` consecutive samples of `index`. If `few_pads`, neither
        the other samples of a batch nor padding changes an output, so the task may
        choose batches that need little padding. The training flag of `model` does not
        change.
        """

    def evaluate(
        self,
        model: nn.Module,
        index: Tensor,
        batch_size: int,
        *,
        few_pads: bool = False,
    ) -> dict[str, float]:
        """Return only the metrics of `score`."""
        return self.score(model, index, batch_size, few_pads=few_pads).metrics

    def pictures(self, model: nn.Module) -> dict[str, Tensor]:
        """Return example outputs as pictures: name -> (3, H, W) float32 in [0, 1]."""
        return {}


def full_batches(index: Tensor, batch_size: int) -> Iterator[tuple[Tensor, int]]:
    """Yield (batch, count): `batch_size` indices, and how many are not repeats.

    The last batch is filled up with repeats from the start of `index`. So a network
    whose outputs depend on the batch always sees batches of the same size.
    """
    for start in range(0, len(index), batch_size):
        batch = index[start : start + batch_size]
        count = len(batch)
        if count < batch_size:
            repeats = ceil(batch_size / len(index))
            batch = torch.cat([batch, index.repeat(repeats)])[:batch_size]
        yield batch, count


def classification_scores(
    logits: Callable[[Tensor], Tensor],
    labels: Tensor,
    index: Tensor,
    batch_size: int,
) -> Scores:
    """Return the mean cross-entropy ("loss", nats), "error" and "accuracy" in [0, 1].

    The values of each sample are its "loss", and whether the class is "correct".
    `logits(batch)` maps indices (B,) to (B, classes). `labels` (N,) are the labels of
    the whole data set, `index` the samples to classify. An output that is not finite
    counts as an error. All values stay on the device until the end.
    """
    losses, losses_of_samples, correct = [], [], []
    with torch.no_grad():
        for batch, count in full_batches(index, batch_size):
            output = logits(batch)[:count].float()
            target = labels[batch[:count].to(labels.device, non_blocking=True)]
            log_likelihoods = output.log_softmax(1)
            losses.append(F.nll_loss(log_likelihoods, target, reduction="sum"))
            losses_of_samples.append(
                F.nll_loss(log_likelihoods, target, reduction="none")
            )
            correct.append((output.argmax(1) == target) & output.isfinite().all(1))
    is_correct = torch.cat(correct)
    error = (~is_correct).sum().item() / len(index)
    loss = torch.stack(losses).cpu().double().sum().item() / len(index)
    return Scores(
        {"loss": loss, "error": error, "accuracy": 1 - error},
        index,
        {"correct": is_correct, "loss": torch.cat(losses_of_samples)},
    )
