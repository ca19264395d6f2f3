"""The contract of a task: a network, its loss, its metrics."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.data.notes import Notes
from normbench.registry import Registry

REGISTRY: "Registry[Task]" = Registry("task", "normbench.tasks")


class NormFactory(Protocol):
    """Builds the norms of a model.

    The module that it returns is called as `(x, mask=None, condition=None)`. It
    normalises, then applies `activation`, unless the norm contains its own.
    """

    def __call__(
        self, channels: int, activation: type[nn.Module] | None = None
    ) -> nn.Module: ...


class Task(ABC):
    """A network with its loss and metrics on one data set.

    A subclass is built as `Task(data, device, *, **options)`, where `data` is a
    `data_kind`; a yaml may set the keyword-only parameters. No method depends on a
    property of a norm.
    """

    name: ClassVar[str]
    data_kind: ClassVar[type]
    primary_metric: ClassVar[str]
    direction: ClassVar[Literal["minimize", "maximize"]]
    norm_aliases: ClassVar[dict[str, str]]
    """Which norm an ambiguous name, such as "layer", means in this task."""

    fixed_spatial: bool = True
    """Whether every batch has the same spatial shape."""

    has_images: ClassVar[bool] = True
    """Whether the inputs of the network have rows and columns."""

    conditions: int = 1
    """The number of conditions; if there are several, `inputs` includes them."""

    batch_by: Tensor | None = None
    """A key (N,), CPU, of every sample: a training batch has samples of similar keys.

    If None, training batches are random. Held-out batches always are.
    """

    def __init_subclass__(cls, name: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = name
        REGISTRY.add(name, cls)

    splits: dict[str, Tensor]
    """Sample indices (int64, CPU) of "train", "val", "test"."""

    notes: Notes = Notes()
    """How the user's files were understood, for `doctor` and the record."""

    data_facts: Mapping[str, float] = {}
    """What the data set reports about itself, such as "skipped_images"."""

    @abstractmethod
    def build(self, norm: NormFactory) -> nn.Module:
        """Build a network that normalises with `norm` everywhere.

        It draws its weights from the global random stream, the same for every norm, and
        lists the last layers, which no norm follows, in `output_layers`.
        """

    @abstractmethod
    def inputs(self, index: Tensor) -> tuple[Tensor, ...]:
        """Return the network's arguments for samples `index` (B,), on the device."""

    def training_inputs(self, index: Tensor) -> tuple[Tensor, ...]:
        """Return `inputs` as the network trains on them: augmented, if the data are."""
        return self.inputs(index)

    def begin_epoch(self, epoch: int, order: Tensor) -> None:
        """Prepare to train on samples `order` (M,), CPU, in `epoch` (from 0).

        A resumed run begins within an epoch. The inputs of a sample depend on the
        sample and the epoch alone, so a resumed run sees the same inputs.
        """
        return

    def facts(self, batches: Sequence[Tensor]) -> dict[str, float]:
        """Return numbers to record about the data and `batches` (of samples, CPU)."""
        return dict(self.data_facts)

    @abstractmethod
    def loss(self, model: nn.Module, index: Tensor) -> Tensor:
        """Return the mean loss over samples `index` (B,): a scalar with a graph."""

    def loss_of_share(self, model: nn.Module, share: Tensor, index: Tensor) -> Tensor:
        """Return the mean loss over `share`, a part of the samples `index` of a batch.

        A sample has the same inputs as in the whole batch. A task whose inputs depend
        on the batch must override this method.
        """
        return self.loss(model, share)

    @abstractmethod
    def evaluate(
        self, model: nn.Module, split: str, batch_size: int
    ) -> dict[str, float]:
        """Return the metrics of `model` over `split`, in batches of `batch_size`.

        The mode of `model` does not change. Keys lack the split: "loss", "error".
        """

    def pictures(self, model: nn.Module) -> dict[str, Tensor]:
        """Return pictures to look at: name -> (3, H, W) float32 in [0, 1]."""
        return {}


def full_batches(index: Tensor, batch_size: int) -> Iterator[tuple[Tensor, int]]:
    """Yield (batch, count): every batch has `batch_size` samples, `count` of them new.

    The last batch is filled up with the first samples: a network whose outputs depend
    on the batch never sees a smaller batch than in training.
    """
    for start in range(0, len(index), batch_size):
        batch = index[start : start + batch_size]
        count = len(batch)
        if count < batch_size:
            repeats = -(-batch_size // len(index))
            batch = torch.cat([batch, index.repeat(repeats)])[:batch_size]
        yield batch, count


def classification_metrics(
    logits: Callable[[Tensor], Tensor],
    labels: Tensor,
    index: Tensor,
    batch_size: int,
) -> dict[str, float]:
    """Return the mean cross-entropy ("loss", nats), "error" and "accuracy" in [0, 1].

    `logits(batch)` maps indices (B,) to (B, classes); `labels` (N,) belong to the whole
    data set. An output that is not finite counts as an error. All values stay on the
    device until the end.
    """
    losses, wrong = [], []
    with torch.no_grad():
        for batch, count in full_batches(index, batch_size):
            output = logits(batch)[:count].float()
            target = labels[batch[:count].to(labels.device, non_blocking=True)]
            losses.append(F.cross_entropy(output, target, reduction="sum"))
            right = (output.argmax(1) == target) & output.isfinite().all(1)
            wrong.append((~right).sum())
    error = torch.stack(wrong).sum().item() / len(index)
    loss = torch.stack(losses).cpu().double().sum().item() / len(index)
    return {"loss": loss, "error": error, "accuracy": 1 - error}
