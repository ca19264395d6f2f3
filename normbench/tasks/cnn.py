"""A small residual CNN that classifies images.

He et al. 2016, "Deep Residual Learning for Image Recognition" (basic blocks, the norm
after each convolution and before the activation).
"""

from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.data.base import Images
from normbench.tasks.base import NormFactory, Task, classification_metrics


class CNN(Task, name="cnn"):
    """Classify images: cross-entropy of a residual network."""

    data_kind = Images
    primary_metric = "error"
    direction: ClassVar[Literal["minimize", "maximize"]] = "minimize"
    norm_aliases: ClassVar[dict[str, str]] = {"layer": "layer_sample"}

    def __init__(
        self,
        data: Images,
        device: torch.device,
        *,
        width: PositiveInt = 16,
        depth: PositiveInt = 1,
        stem_stride: Literal[1, 2] = 1,
    ) -> None:
        self.images = data.images.to(device)
        self.labels = data.labels.to(device)
        self.splits = data.splits
        self.classes = len(data.classes)
        self.width, self.depth, self.stem_stride = width, depth, stem_stride

    def build(self, norm: NormFactory) -> nn.Module:
        return ResidualNetwork(
            norm,
            in_channels=self.images.shape[1],
            classes=self.classes,
            width=self.width,
            depth=self.depth,
            stem_stride=self.stem_stride,
        )

    def inputs(self, index: Tensor) -> tuple[Tensor]:
        return (self.images[index.to(self.images.device)],)

    def loss(self, model: nn.Module, index: Tensor) -> Tensor:
        index = index.to(self.images.device)
        return F.cross_entropy(model(self.images[index]), self.labels[index])

    def evaluate(
        self, model: nn.Module, split: str, batch_size: int
    ) -> dict[str, float]:
        return classification_metrics(
            lambda index: model(*self.inputs(index)),
            self.labels,
            self.splits[split],
            batch_size,
        )


class ResidualNetwork(nn.Module):
    """Three stages of `depth` basic blocks, `width`, 2 and 4 times `width` channels.

    (N, in_channels, H, W) -> (N, classes). Each stage but the first halves H and W.
    """

    def __init__(
        self,
        norm: NormFactory,
        *,
        in_channels: int,
        classes: int,
        width: int,
        depth: int,
        stem_stride: int,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(
            in_channels, width, 3, stride=stem_stride, padding=1, bias=False
        )
        self.norm = norm(width, nn.ReLU)
        blocks, channels = [], width
        for stage in range(3):
            for position in range(depth):
                stride = 2 if stage > 0 and position == 0 else 1
                blocks.append(BasicBlock(norm, channels, width << stage, stride))
                channels = width << stage
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, classes)
        self.output_layers = [self.head]

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.norm(self.stem(x)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, projected where the shape changes."""

    def __init__(
        self, norm: NormFactory, in_channels: int, channels: int, stride: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(
            in_channels, channels, 3, stride=stride, padding=1, bias=False
        )
        self.norm1 = norm(channels, nn.ReLU)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = norm(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False),
                norm(channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        residual = self.norm2(self.conv2(self.norm1(self.conv1(x))))
        return F.relu(residual + self.shortcut(x))
