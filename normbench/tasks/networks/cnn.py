"""CNNs with three stages of blocks, with shortcuts (residual) or without (plain).

The residual block is the basic block of He et al. 2016, "Deep Residual Learning for
Image Recognition": a norm follows every convolution, before the activation. Width 16,
shortcut "pad" and depth 3 or 9 give the ResNet-20 or ResNet-56 of that paper. Grouped
convolutions are from Krizhevsky et al. 2012, "ImageNet Classification with Deep
Convolutional Neural Networks".
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from normbench.errors import RequestError
from normbench.tasks.base import NormFactory

Padding = Literal["zeros", "reflect", "valid"]
Shortcut = Literal["projection", "pad"]


class Shape(NamedTuple):
    """Options of a network. The docstring of the task `CNN` explains them."""

    width: int = 16
    depth: int = 1
    shortcut: Shortcut = "projection"
    stem_stride: int = 1
    padding: Padding = "zeros"
    conv_groups: int = 1

    def blocks(self) -> Iterator[tuple[int, int, int]]:
        """Yield (input channels, output channels, stride) for every block."""
        channels_in = self.width
        for stage in range(3):
            for position in range(self.depth):
                channels = self.width * 2**stage
                stride = 2 if stage > 0 and position == 0 else 1
                yield channels_in, channels, stride
                channels_in = channels


class Network(nn.Module):
    """A convolution, three stages of blocks, the mean over positions, a classifier.

    Maps (N, in_channels, H, W) to (N, classes). `kind` is a key of BLOCKS.
    """

    def __init__(
        self, norm: NormFactory, kind: str, shape: Shape, in_channels: int, classes: int
    ) -> None:
        super().__init__()
        ungrouped = shape._replace(conv_groups=1)
        self.stem = conv3x3(in_channels, shape.width, shape.stem_stride, ungrouped)
        self.norm = norm(shape.width, nn.ReLU)
        self.blocks = nn.Sequential(
            *(BLOCKS[kind](norm, *block, shape) for block in shape.blocks())
        )
        self.head = nn.Linear(4 * shape.width, classes)
        self.output_layers = [self.head]

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.norm(self.stem(x)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(
        self,
        norm: NormFactory,
        in_channels: int,
        channels: int,
        stride: int,
        shape: Shape,
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride, shape)
        self.norm1 = norm(channels, nn.ReLU)
        self.conv2 = conv3x3(channels, channels, 1, shape)
        self.norm2 = norm(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride == 1 and in_channels == channels:
            return
        if shape.shortcut == "pad":
            self.shortcut = PadShortcut(channels - in_channels, stride)
            return
        groups = shape.conv_groups
        projection = nn.Conv2d(
            in_channels, channels, 1, stride=stride, groups=groups, bias=False
        )
        self.shortcut = nn.Sequential(projection, norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        residual = self.norm2(self.conv2(self.norm1(self.conv1(x))))
        return F.relu(residual + self.shortcut(x))


class PadShortcut(nn.Module):
    """Keeps every `stride`-th position and appends `added` channels of zeros."""

    def __init__(self, added: int, stride: int) -> None:
        super().__init__()
        self.added, self.stride = added, stride

    def forward(self, x: Tensor) -> Tensor:
        kept = x[:, :, :: self.stride, :: self.stride]
        return F.pad(kept, (0, 0, 0, 0, 0, self.added))


class PlainBlock(nn.Module):
    """A 3x3 convolution, a norm and a ReLU."""

    def __init__(
        self,
        norm: NormFactory,
        in_channels: int,
        channels: int,
        stride: int,
        shape: Shape,
    ) -> None:
        super().__init__()
        self.conv = conv3x3(in_channels, channels, stride, shape)
        self.norm = norm(channels, nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y


BLOCKS: dict[str, type[BasicBlock | PlainBlock]] = {
    "residual": BasicBlock,
    "plain": PlainBlock,
}


def conv3x3(in_channels: int, channels: int, stride: int, shape: Shape) -> nn.Conv2d:
    """Build a 3x3 convolution without a bias: many norms would remove the bias."""
    return nn.Conv2d(
        in_channels,
        channels,
        3,
        stride=stride,
        padding=0 if shape.padding == "valid" else 1,
        padding_mode="reflect" if shape.padding == "reflect" else "zeros",
        groups=shape.conv_groups,
        bias=False,
    )


def require_shape(kind: str, shape: Shape, height: int, width: int) -> None:
    """Raise RequestError if a network of this shape cannot take images of this size."""
    if kind == "residual" and shape.padding == "valid":
        raise RequestError(
            "task.padding=valid does not work with task.network=residual: a residual "
            "block adds its input to its output, so both need the same size. Set "
            "task.padding to zeros or reflect, or task.network=plain"
        )
    if shape.width % shape.conv_groups:
        raise RequestError(
            f"task.conv_groups={shape.conv_groups} does not divide "
            f"task.width={shape.width}"
        )
    if shape.shortcut == "pad" and kind == "plain":
        raise RequestError(
            "task.shortcut=pad does not apply to task.network=plain, which has no "
            "shortcuts; leave task.shortcut at projection"
        )
    if shape.shortcut == "pad" and shape.conv_groups > 1:
        raise RequestError(
            "task.shortcut=pad appends channels of zeros, which would mix the groups "
            f"of task.conv_groups={shape.conv_groups}; set task.shortcut=projection"
        )
    strides = [shape.stem_stride]
    for *_, stride in shape.blocks():
        strides += [stride, 1] if kind == "residual" else [stride]
    # The smallest input side and the pixels that padding adds, for a 3x3 convolution.
    min_side = {"zeros": 1, "reflect": 2, "valid": 3}[shape.padding]
    padded = 0 if shape.padding == "valid" else 2
    side = min(height, width)
    for number, stride in enumerate(strides, 1):
        if side < min_side:
            raise RequestError(
                f"task.padding={shape.padding} needs {min_side} pixels a side at every "
                f"convolution, but convolution {number} gets {side} for images of "
                f"{height}x{width} pixels; use larger images, fewer convolutions "
                "(task.depth) or task.padding=zeros"
            )
        side = (side + padded - 3) // stride + 1
