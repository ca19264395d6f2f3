"""The ResNets of torchvision, with any norm.

He et al. 2016, "Deep Residual Learning for Image Recognition". Unlike the paper,
torchvision strides the 3x3 convolution of a bottleneck, not the first 1x1 convolution.
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet as torchvision

from normbench.tasks.base import NormFactory


def resnet(name: str, norm: NormFactory, in_channels: int, classes: int) -> nn.Module:
    """Build "resnet18" or "resnet50": (N, in_channels, H, W) -> (N, classes)."""
    block, layers = {
        "resnet18": (_BasicBlock, (2, 2, 2, 2)),
        "resnet50": (_Bottleneck, (3, 4, 6, 3)),
    }[name]
    return _ResNet(block, layers, norm, in_channels, classes)


class _NormLayer:
    """A `norm_layer` for torchvision: the n-th call builds a norm with activation n.

    torchvision passes no activation. But `norm` must know it: some norms contain an
    activation, and then no second one is added. When `activations` are used up, a call
    uses its argument `activation`. Only the `_NormLayer` of a block passes one, to the
    `_NormLayer` of the network.
    """

    def __init__(
        self, norm: NormFactory, activations: Sequence[type[nn.Module] | None]
    ) -> None:
        self._norm = norm
        self._activations: Iterator[type[nn.Module] | None] = iter(activations)

    def __call__(
        self, channels: int, activation: type[nn.Module] | None = None
    ) -> nn.Module:
        return self._norm(channels, next(self._activations, activation))


def _with_activations(
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    activations: Sequence[type[nn.Module] | None],
) -> dict[str, Any]:
    """Return the keyword arguments of a block, with `norm_layer` replaced.

    torchvision passes some of them by position (`arguments`) and some by name.
    """
    names = tuple(inspect.signature(torchvision.BasicBlock).parameters)
    keywords = dict(zip(names, arguments, strict=False)) | options
    return keywords | {"norm_layer": _NormLayer(keywords["norm_layer"], activations)}


class _BasicBlock(torchvision.BasicBlock):  # type: ignore[misc]
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(**_with_activations(arguments, options, (nn.ReLU, None)))
        del self.relu

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class _Bottleneck(torchvision.Bottleneck):  # type: ignore[misc]
    def __init__(self, *arguments: Any, **options: Any) -> None:
        activations = (nn.ReLU, nn.ReLU, None)
        super().__init__(**_with_activations(arguments, options, activations))
        del self.relu

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class _ResNet(torchvision.ResNet):  # type: ignore[misc]
    def __init__(
        self,
        block: Any,
        layers: Sequence[int],
        norm: NormFactory,
        in_channels: int,
        classes: int,
    ) -> None:
        super().__init__(
            block, layers, num_classes=classes, norm_layer=_NormLayer(norm, (nn.ReLU,))
        )
        del self.relu  # the norms apply the activations
        if in_channels != 3:
            self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(
                self.conv1.weight, mode="fan_out", nonlinearity="relu"
            )
        self.output_layers = [self.fc]

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits
