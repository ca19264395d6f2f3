"""CNNs of three stages: residual networks, and the same without shortcuts.

He et al. 2016, "Deep Residual Learning for Image Recognition": basic blocks, the norm
after each convolution and before the activation. With width 16, depth 3 or 9 and
shortcuts that pad, they are their ResNet-20 and ResNet-56 for CIFAR-10. Grouped
convolutions: Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional
Neural Networks".
"""

from collections.abc import Iterator
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from normbench.errors import RequestError
from normbench.tasks.base import NormFactory

Padding = Literal["zeros", "reflect", "valid"]
Shortcut = Literal["projection", "pad"]


class Shape(NamedTuple):
    """The options of a network; the task `CNN` describes them."""

    width: int = 16
    depth: int = 1
    shortcut: Shortcut = "projection"
    stem_stride: int = 1
    padding: Padding = "zeros"
    conv_groups: int = 1

    def blocks(self) -> Iterator[tuple[int, int, int]]:
        """Yield (channels in, channels out, stride) of each block of three stages."""
        channels_in = self.width
        for stage in range(3):
            for position in range(self.depth):
                channels = self.width << stage
                yield channels_in, channels, 2 if stage > 0 and position == 0 else 1
                channels_in = channels


class Network(nn.Module):
    """A convolution, three stages of blocks, the mean over positions, a classifier.

    `kind` is a name in BLOCKS. (N, in_channels, H, W) -> (N, classes).
    """

    def __init__(
        self, norm: NormFactory, kind: str, shape: Shape, in_channels: int, classes: int
    ) -> None:
        super().__init__()
        first = shape._replace(conv_groups=1)
        self.stem = conv3x3(in_channels, shape.width, shape.stem_stride, first)
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
    """Two 3x3 convolutions beside a shortcut."""

    convolutions: ClassVar[int] = 2

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
    """Every `stride`th position, and `added` channels of zeros after the others."""

    def __init__(self, added: int, stride: int) -> None:
        super().__init__()
        self.added, self.stride = added, stride

    def forward(self, x: Tensor) -> Tensor:
        kept = x[:, :, :: self.stride, :: self.stride]
        return F.pad(kept, (0, 0, 0, 0, 0, self.added))


class PlainBlock(nn.Module):
    """One 3x3 convolution, its norm, a ReLU."""

    convolutions: ClassVar[int] = 1

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
    """Build a convolution without a bias, which the norm after it would remove."""
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
    """Raise RequestError if no network of this shape fits images of this size."""
    if kind == "residual" and shape.padding == "valid":
        raise RequestError(
            "task.padding=valid does not work in task.network=residual, where a "
            "block must keep the size of its input; choose zeros or reflect, or "
            "task.network=plain"
        )
    if shape.width % shape.conv_groups:
        raise RequestError(
            f"task.conv_groups={shape.conv_groups} does not divide "
            f"task.width={shape.width}"
        )
    if shape.shortcut == "pad" and kind == "plain":
        raise RequestError(
            "task.shortcut=pad has no meaning in task.network=plain, which has no "
            "shortcuts; leave it at projection"
        )
    if shape.shortcut == "pad" and shape.conv_groups > 1:
        raise RequestError(
            "task.shortcut=pad adds its channels after the others, which would mix "
            f"the groups of task.conv_groups={shape.conv_groups}; use projection"
        )
    strides = [shape.stem_stride]
    for *_, stride in shape.blocks():
        strides += [stride, 1][: BLOCKS[kind].convolutions]
    least = {"zeros": 1, "reflect": 2, "valid": 3}[shape.padding]
    added = 0 if shape.padding == "valid" else 2
    side = min(height, width)
    for number, stride in enumerate(strides, 1):
        if side < least:
            raise RequestError(
                f"task.padding={shape.padding} needs {least} pixels a side at each "
                f"convolution, and of images of {height}x{width} pixels {side} "
                f"{'is' if side == 1 else 'are'} left at convolution {number}; use "
                "larger images, fewer convolutions (task.depth) or task.padding=zeros"
            )
        side = (side + added - 3) // stride + 1
