"""The contract of a task: a network, its loss, its metrics."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.data.notes import Notes
from normbench.registry import Registry

REGISTRY: "Registry[Task]" = Registry("task", "normbench.tasks")


class NormFactory(Protocol):
    """What a model normalises with.

    The module it returns is called `(x, mask=None, condition=None)`, normalises, then
    applies `activation`, unless the norm contains its own.
    """

    def __call__(
        self, channels: int, activation: type[nn.Module] | None = None
    ) -> nn.Module: ...


class Task(ABC):
    """A network with its loss and metrics on one data set.

    A subclass is built as `Task(data, device, *, **options)`, where `data` is of the
    class `data_kind`; keyword-only parameters are what a yaml may set. No method knows
    a trait of a norm.
    """

    name: ClassVar[str]
    data_kind: ClassVar[type]
    primary_metric: ClassVar[str]
    direction: ClassVar[Literal["minimize", "maximize"]]
    norm_aliases: ClassVar[dict[str, str]]
    """What a norm's name means in this task, for names that the field uses twice."""

    fixed_spatial: bool = True
    """Every batch has the same spatial shape."""

    has_images: ClassVar[bool] = True
    """What its network sees has rows and columns."""

    conditions: int = 1
    """How many conditions the samples come in; if several, `inputs` has each one's."""

    batch_by: Tensor | None = None
    """A sort key (N,), CPU, of every sample: training batches are alike in it.

    None: they are drawn at random, as held-out batches always are.
    """

    def __init_subclass__(cls, name: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = name
        REGISTRY.add(name, cls)

    splits: dict[str, Tensor]
    """Sample indices (int64, CPU) of "train", "val", "test"."""

    notes: Notes = Notes()
    """What data of the user's own were understood as, for `doctor` and the record."""

    @abstractmethod
    def build(self, norm: NormFactory) -> nn.Module:
        """A new network with `norm` everywhere it normalises.

        Draws its weights from the global random stream, the same whatever the norm. It
        lists its last layers, those that no norm follows, in `output_layers`.
        """

    @abstractmethod
    def inputs(self, index: Tensor) -> tuple[Tensor, ...]:
        """The network's arguments for the samples `index` (B,), on the device."""

    def training_inputs(self, index: Tensor) -> tuple[Tensor, ...]:
        """`inputs` as the network trains on them: augmented, where the data are."""
        return self.inputs(index)

    def begin_epoch(self, epoch: int, order: Tensor) -> None:
        """Training on samples `order` (M,), CPU, in this order, in `epoch` (from 0).

        It may begin within an epoch. What a sample is in an epoch depends on nothing
        else, so that a run that is resumed sees the same.
        """
        return

    def facts(self, batches: Sequence[Tensor]) -> dict[str, float]:
        """What to record of the data, trained on in `batches` (micro-batches, CPU)."""
        return {}

    @abstractmethod
    def loss(self, model: nn.Module, index: Tensor) -> Tensor:
        """The mean loss over the samples `index` (B,): a scalar with a graph."""

    def loss_of_share(self, model: nn.Module, share: Tensor, index: Tensor) -> Tensor:
        """The mean loss over `share`, some of the samples `index` that a batch has.

        What a network sees of a sample is what it sees in the whole batch. This is for
        tasks where that does not depend on the batch.
        """
        return self.loss(model, share)

    @abstractmethod
    def evaluate(
        self, model: nn.Module, split: str, batch_size: int
    ) -> dict[str, float]:
        """Metrics of `model`, as it is set, over `split`, `batch_size` at a time.

        Leaves the mode of `model` alone. Keys have no split: "loss", "error".
        """

    def pictures(self, model: nn.Module) -> dict[str, Tensor]:
        """What a person should look at: name -> (3, H, W) float32 in [0, 1]."""
        return {}


def full_batches(index: Tensor, batch_size: int) -> Iterator[tuple[Tensor, int]]:
    """Yield (batch, count): every batch has `batch_size` samples, `count` of them new.

    The last batch is filled up with the first samples, so that a network whose outputs
    depend on the batch never sees a smaller one than it was trained with.
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
    """Mean cross-entropy ("loss", nats), "error" and "accuracy" in [0, 1].

    An output that is not finite is an error.

    `logits(batch)` maps indices (B,) to (B, classes); `labels` (N,) are those of the
    whole data set. Stays on the device until the end.
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
