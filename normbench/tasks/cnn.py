"""Image classification with a small CNN or with a ResNet of torchvision."""

from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.data.base import Images
from normbench.data.reading.augmentation import as_source
from normbench.errors import RequestError
from normbench.tasks.base import NormFactory, Scores, Task, classification_scores
from normbench.tasks.networks.cnn import (
    BLOCKS,
    Network,
    Padding,
    Shape,
    Shortcut,
    require_shape,
)


class CNN(Task, name="cnn"):
    """Image classification with the cross-entropy loss.

    The networks "residual" and "plain" consist of

    - a first convolution with `width` output channels and stride `stem_stride`;
    - three stages with `width`, 2 `width` and 4 `width` channels. The second and the
      third stage begin with stride 2;
    - the mean over all positions and a linear classifier.

    A stage has `depth` blocks. A block of "residual" has two convolutions and a
    shortcut. A block of "plain" has one convolution, a norm and a ReLU.
    The networks "resnet18" and "resnet50" are those of torchvision; the other options
    do not apply to them.

    `shortcut` says how a residual block adds its input if its output has another shape.
    "projection" is a 1x1 convolution with a norm (option B of He et al.). "pad" skips
    positions and appends channels of zeros, without parameters (option A).
    `padding` is the padding of all 3x3 convolutions. "valid" means no padding and is
    for plain networks only.
    `conv_groups` is the number of groups of every convolution except the first. Only
    the classifier combines the groups.

    `batching="class"` makes training batches of samples of one class, or of two where a
    class ends in the middle of a batch, and `batching="quality"` those of images of one
    quality. Micro-batches and norm batches are random parts of them. With
    `batching_scope="norm_batch"`, batches are random, and their samples are sorted, so
    that norm batches have as few classes or qualities as possible. The step of the
    optimizer then has the same samples as with random batches, so that only norms that
    use other samples notice the difference. Validation and test batches are random.
    """

    data_kind = Images
    primary_metric = "error"
    direction: ClassVar[Literal["minimize", "maximize"]] = "minimize"
    norm_aliases: ClassVar[dict[str, str]] = {"layer": "layer_sample"}

    def __init__(
        self,
        data: Images,
        device: torch.device,
        *,
        network: Literal["residual", "plain", "resnet18", "resnet50"] = "residual",
        width: PositiveInt = 16,
        depth: PositiveInt = 1,
        shortcut: Shortcut = "projection",
        stem_stride: Literal[1, 2] = 1,
        padding: Padding = "zeros",
        conv_groups: PositiveInt = 1,
        batching: Literal["random", "class", "quality"] = "random",
        batching_scope: Literal["batch", "norm_batch"] = "batch",
    ) -> None:
        shape = Shape(width, depth, shortcut, stem_stride, padding, conv_groups)
        self.images = as_source(data.images).to(device)
        if network in BLOCKS:
            require_shape(network, shape, *self.images.shape[2:])
        # The options of `Shape` apply only to the networks in BLOCKS.
        for option, value, default in zip(Shape._fields, shape, Shape(), strict=True):
            if network not in BLOCKS and value != default:
                raise RequestError(
                    f"task.{option}={value} does not apply to task.network={network}, "
                    f"which has a fixed shape; leave task.{option} at {default}"
                )
        if batching == "quality" and data.quality is None:
            raise RequestError(
                "task.batching=quality needs images of two qualities, but all images "
                "of the data set have the same; set data.low_quality=0.5 (of "
                "data=mnist5k or data=shapes), or task.batching=random"
            )
        if batching == "random" and batching_scope != "batch":
            raise RequestError(
                f"task.batching_scope={batching_scope} does not apply to "
                "task.batching=random; set task.batching to class or quality"
            )
        self.sort_within_batch = batching_scope == "norm_batch"
        self.batch_by = {"random": None, "class": data.labels, "quality": data.quality}[
            batching
        ]
        self.labels = data.labels.to(device)
        self.classes = len(data.classes)
        self.splits, self.notes = data.splits, data.notes
        self.data_facts = data.facts
        self.network, self.shape = network, shape
        # More small images fit into the caches of a CPU.
        rows, columns = self.images.shape[2:]
        self.evaluation_batch = max(64, 2**16 // (rows * columns))
        self.epoch = 0

    def build(self, norm: NormFactory) -> nn.Module:
        channels = self.images.shape[1]
        if self.network in BLOCKS:
            return Network(norm, self.network, self.shape, channels, self.classes)
        # The import is here because it imports torchvision, which takes two seconds.
        from normbench.tasks.networks.resnet import resnet

        return resnet(self.network, norm, channels, self.classes)

    def begin_epoch(self, epoch: int, order: Tensor) -> None:
        self.epoch = epoch
        self.images.expect(order, epoch)

    def inputs(self, index: Tensor) -> tuple[Tensor]:
        return (self.images.batch(index),)

    def training_inputs(self, index: Tensor) -> tuple[Tensor]:
        return (self.images.batch(index, self.epoch),)

    def loss(self, model: nn.Module, index: Tensor) -> Tensor:
        labels = self.labels[index.to(self.labels.device, non_blocking=True)]
        return F.cross_entropy(model(*self.training_inputs(index)), labels)

    def score(
        self,
        model: nn.Module,
        index: Tensor,
        batch_size: int,
        *,
        few_pads: bool = False,
    ) -> Scores:
        self.images.expect(index)
        return classification_scores(
            lambda batch: model(*self.inputs(batch)), self.labels, index, batch_size
        )
