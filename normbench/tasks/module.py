"""Classification with a network of the user's own, or of torchvision or timm.

The network is built as it is. Then every norm in it is replaced by one that the factory
of the run makes, so that `norm_batch`, accumulation, several processes and the three
kinds of evaluation work as in other tasks.
"""

import inspect
import random
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.data.base import Images, Tokens
from normbench.data.notes import Notes
from normbench.data.reading.augmentation import as_source
from normbench.errors import RequestError
from normbench.models.forward import Example, observe
from normbench.models.loading import COLLECTIONS, find_factory, load
from normbench.norms.factory import NormFactory as Factory
from normbench.tasks.base import NormFactory, Scores, Task, classification_scores
from normbench.tasks.networks.foreign import Classifier, mask_name, masks, with_norms

ModelOptions = dict[str, bool | int | float | str]
NO_OPTIONS: ModelOptions = {}


class ModuleTask(Task, name="module"):
    """Classification of images or texts with the cross-entropy loss.

    `model` is the name of a factory, as `models.loading.load` takes it, and
    `model_options` are its arguments. A model of torchvision or timm gets the number of
    classes as `num_classes`, and one of timm the number of channels as `in_chans`,
    unless `model_options` set them.

    The network is called with images (B, C, H, W), or with token ids (B, T) int64. If
    its forward has a parameter `attention_mask`, it gets the mask (B, T) int64, 1 at
    real tokens; if it has a parameter `mask`, it gets the mask (B, T) bool, True at
    real tokens. It returns logits (B, classes), or an object with `.logits`.

    `where` is a regular expression for the names of the norms that the norm of the run
    replaces. The others are kept. The network must draw its initial weights from torch,
    numpy or random, which are seeded.

    `padding` and `max_length` are for texts, as in the task `transformer`.
    """

    data_kind = (Images, Tokens)
    primary_metric = "error"
    direction: ClassVar[Literal["minimize", "maximize"]] = "minimize"
    norm_aliases: ClassVar[dict[str, str]] = {}  # "layer" depends on the layer
    ignores_pads = False
    has_default_network = False
    check_device = "cpu"  # not every network works on the meta device
    failures = (Exception,)  # the user's code can raise anything
    packages: ClassVar[tuple[str, ...]] = ("torchvision", "timm")

    def __init__(
        self,
        data: Images | Tokens,
        device: torch.device,
        *,
        model: str | None = None,
        model_options: ModelOptions = NO_OPTIONS,
        where: str | None = None,
        padding: Literal["longest", "max_length"] = "longest",
        max_length: PositiveInt = 64,
    ) -> None:
        if model is None:
            raise RequestError(
                "task=module needs a network: task.model=PACKAGE.MODULE:FACTORY, or "
                "one of torchvision or timm, such as task.model=torchvision:resnet18"
            )
        find_factory(model)  # before a run starts: later errors become its record
        self.model, self.model_options, self.where = model, model_options, where
        self.inputs_of: _Pictures | _Texts
        if isinstance(data, Images):
            self.inputs_of = _Pictures(data, device)
        else:
            self.inputs_of = _Texts(data, device, padding == "max_length", max_length)
        self.has_images = isinstance(data, Images)
        self.fixed_spatial = self.has_images or padding == "max_length"
        self.device = device
        self.labels = data.labels.to(device)
        self.classes = len(data.classes)
        self.splits, self.data_facts = data.splits, data.facts
        self.data_notes = self.notes = data.notes
        self.epoch = 0

    def check(self) -> None:
        """Call the network as it is; raise RequestError if it does not fit the data."""
        index = self.splits["train"][:2]
        with torch.random.fork_rng(devices=[]):
            network = self._load()
            inputs = [x.cpu() for x in self.inputs(index)]
            try:
                observe(network, _example(network, inputs))
            except RequestError as error:
                raise RequestError(
                    f"task.model={self.model}: {error}; the input is "
                    f"{self.inputs_of.description}"
                ) from None
            with torch.no_grad():
                self._classifier(network).eval()(*inputs)

    def build(self, norm: NormFactory) -> nn.Module:
        if not isinstance(norm, Factory):
            raise TypeError(f"task=module needs a {Factory.__module__}.NormFactory")
        network = self._load()
        network, left = with_norms(
            network, norm, self.where, has_masks=not self.has_images
        )
        self.notes = self.data_notes.plus(Notes(warnings=tuple(left)))
        return self._classifier(network)

    def network(self) -> nn.Module:
        """Return a new network as it is, without changes to its norms."""
        with torch.random.fork_rng(devices=[]):
            return self._load()

    def examples(
        self, network: nn.Module, split: str, batch_size: int, count: int
    ) -> list[tuple[Example, Tensor]]:
        """Return up to `count` full batches of `split`: arguments and labels (B,).

        The arguments are those of the forward of `network`, on the CPU.
        """
        batches = self.splits[split].split(batch_size)
        full = [index for index in batches if len(index) == batch_size][:count]
        return [
            (
                _example(network, [x.cpu() for x in self.inputs(index)]),
                self.labels.cpu()[index],
            )
            for index in full
        ]

    def _classifier(self, network: nn.Module) -> nn.Module:
        return Classifier(network, self.model, self.classes)

    def _load(self) -> nn.Module:
        """Return a new network, and seed all generators by the state of torch's.

        So its weights depend on the seed even if the factory draws them elsewhere, and
        what follows does not depend on what the factory draws or seeds.
        """
        options: dict[str, Any] = dict(self.model_options)
        collection = self.model.partition(":")[0]
        if collection in COLLECTIONS:
            options.setdefault("num_classes", self.classes)
        if collection == "timm" and isinstance(self.inputs_of, _Pictures):
            options.setdefault("in_chans", self.inputs_of.images.shape[1])
        before, after = torch.randint(2**31, (2,), device="cpu").tolist()
        random.seed(before)
        np.random.seed(before)
        network = load(self.model, options)
        torch.manual_seed(after)
        return network

    def begin_epoch(self, epoch: int, order: Tensor) -> None:
        self.epoch = epoch
        self.inputs_of.expect(order, epoch)

    def inputs(self, index: Tensor) -> tuple[Tensor, ...]:
        """Return images (B, C, H, W), or tokens (B, T) int64 and their mask (B, T)."""
        return self.inputs_of.batch(index, index)

    def training_inputs(self, index: Tensor) -> tuple[Tensor, ...]:
        return self.inputs_of.batch(index, index, self.epoch)

    def loss(self, model: nn.Module, index: Tensor) -> Tensor:
        return self.loss_of_share(model, index, index)

    def loss_of_share(self, model: nn.Module, share: Tensor, index: Tensor) -> Tensor:
        labels = self.labels[share.to(self.labels.device, non_blocking=True)]
        inputs = self.inputs_of.batch(share, index, self.epoch)
        return F.cross_entropy(model(*inputs), labels)

    def score(
        self,
        model: nn.Module,
        index: Tensor,
        batch_size: int,
        *,
        few_pads: bool = False,
    ) -> Scores:
        self.inputs_of.expect(index)
        return classification_scores(
            lambda batch: model(*self.inputs(batch)), self.labels, index, batch_size
        )


class _Pictures:
    """The images of a data set as inputs of a network."""

    def __init__(self, data: Images, device: torch.device) -> None:
        self.images = as_source(data.images).to(device)
        self.description = f"images (B, {', '.join(map(str, self.images.shape[1:]))})"

    def expect(self, order: Tensor, epoch: int | None = None) -> None:
        self.images.expect(order, epoch)

    def batch(
        self, share: Tensor, index: Tensor, epoch: int | None = None
    ) -> tuple[Tensor, ...]:
        return (self.images.batch(share, epoch),)


class _Texts:
    """The texts of a data set as inputs of a network: tokens and mask."""

    def __init__(
        self, data: Tokens, device: torch.device, full: bool, max_length: int
    ) -> None:
        self.tokens = data.tokens[:, :max_length].to(device)
        self.lengths = data.lengths.clamp(max=max_length)
        self.full, self.pad, self.max_length = full, data.pad, max_length
        self.description = (
            f"token ids (B, T), T up to {max_length}, ids below {data.vocab_size}, "
            f"padded with {data.pad}"
        )

    def expect(self, order: Tensor, epoch: int | None = None) -> None:
        return

    def batch(
        self, share: Tensor, index: Tensor, epoch: int | None = None
    ) -> tuple[Tensor, ...]:
        """Return tokens and mask of the samples `share` of the batch `index`."""
        length = self.max_length if self.full else int(self.lengths[index].max())
        device = self.tokens.device
        tokens = self.tokens[share.to(device, non_blocking=True), :length]
        if tokens.shape[1] < length:
            tokens = F.pad(tokens, (0, length - tokens.shape[1]), value=self.pad)
        real_counts = self.lengths[share].to(device, non_blocking=True)[:, None]
        return tokens, torch.arange(length, device=device) < real_counts


def _example(network: nn.Module, inputs: list[Tensor]) -> Example:
    """Return the arguments of the forward of a network for `inputs`."""
    name = mask_name(network)
    if name is None or len(inputs) == 1:
        return inputs[0]
    first = next(iter(inspect.signature(network.forward).parameters))
    return {first: inputs[0], **masks(name, inputs[1])}
