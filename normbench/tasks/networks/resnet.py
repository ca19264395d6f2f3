"""torchvision's ResNets with any norm in them.

He et al. 2016, "Deep Residual Learning for Image Recognition"; torchvision's have the
stride of a bottleneck in its 3x3 convolution.
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet as torchvision


class Norm(Protocol):
    """What makes the norms: a norm of channels, then the activation, if any."""

    def __call__(
        self, channels: int, activation: type[nn.Module] | None = None
    ) -> nn.Module: ...


def resnet(name: str, norm: Norm, in_channels: int, classes: int) -> nn.Module:
    """(N, in_channels, H, W) -> (N, classes): "resnet18" or "resnet50" with `norm`."""
    block, layers = {
        "resnet18": (_BasicBlock, (2, 2, 2, 2)),
        "resnet50": (_Bottleneck, (3, 4, 6, 3)),
    }[name]
    return _ResNet(block, layers, norm, in_channels, classes)


class _InOrder:
    """torchvision's `norm_layer`: its n-th norm is followed by the n-th activation.

    A norm that contains its activation so gets no second one. Those after the last are
    followed by what they are asked for with.
    """

    def __init__(
        self, norm: Norm, activations: Sequence[type[nn.Module] | None]
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
    """The options of a block, which torchvision gives by position or by name."""
    names = tuple(inspect.signature(torchvision.BasicBlock).parameters)
    named = dict(zip(names, arguments, strict=False)) | options
    return named | {"norm_layer": _InOrder(named["norm_layer"], activations)}


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
        norm: Norm,
        in_channels: int,
        classes: int,
    ) -> None:
        super().__init__(
            block, layers, num_classes=classes, norm_layer=_InOrder(norm, (nn.ReLU,))
        )
        del self.relu  # each norm brings its own
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
