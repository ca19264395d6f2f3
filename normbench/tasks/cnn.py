"""Classify images with a CNN: a small one, or torchvision's ResNets."""

from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.data.base import Images
from normbench.data.reading.augmentation import as_source
from normbench.errors import RequestError
from normbench.tasks.base import NormFactory, Task, classification_metrics
from normbench.tasks.networks.cnn import (
    BLOCKS,
    Network,
    Padding,
    Shape,
    Shortcut,
    require_shape,
)


class CNN(Task, name="cnn"):
    """Classify images: cross-entropy of a residual or a plain network.

    The networks "residual" and "plain" have a first convolution of `width` channels and
    stride `stem_stride`, then three stages of `width`, 2 and 4 times `width` channels,
    each but the first with stride 2, the mean over all positions and a linear
    classifier. A stage has `depth` blocks of two convolutions with a shortcut
    ("residual"), or `depth` convolutions, each with a norm and a ReLU ("plain"; four in
    all at depth 1). "resnet18" and "resnet50" are torchvision's and take no other
    option.

    `shortcut` is how a residual block adds its input where the shape changes:
    "projection" is a 1x1 convolution with a norm; "pad" leaves positions out and adds
    channels of zeros, without parameters (options B and A of He et al.).
    `padding` applies to all 3x3 convolutions; "valid" is none, for plain networks only.
    `conv_groups` divides the channels of every convolution except the first, which sees
    all channels of the picture: the groups meet in the classifier only.
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
    ) -> None:
        shape = Shape(width, depth, shortcut, stem_stride, padding, conv_groups)
        self.images = as_source(data.images).to(device)
        if network in BLOCKS:
            require_shape(network, shape, *self.images.shape[2:])
        for option, value, default in zip(Shape._fields, shape, Shape(), strict=True):
            if network not in BLOCKS and value != default:
                raise RequestError(
                    f"task.{option}={value} has no meaning in task.network={network}, "
                    f"whose shape is fixed; leave it at {default}"
                )
        self.labels = data.labels.to(device)
        self.classes = len(data.classes)
        self.splits, self.notes = data.splits, data.notes
        self.data_facts = data.facts
        self.network, self.shape = network, shape
        self.epoch = 0

    def build(self, norm: NormFactory) -> nn.Module:
        channels = self.images.shape[1]
        if self.network in BLOCKS:
            return Network(norm, self.network, self.shape, channels, self.classes)
        # Importing torchvision takes two seconds.
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

    def evaluate(
        self, model: nn.Module, split: str, batch_size: int
    ) -> dict[str, float]:
        self.images.expect(self.splits[split])
        return classification_metrics(
            lambda index: model(*self.inputs(index)),
            self.labels,
            self.splits[split],
            batch_size,
        )
