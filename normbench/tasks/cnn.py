"""CNNs that classify images: residual ones, and the same without shortcuts.

He et al. 2016, "Deep Residual Learning for Image Recognition" (basic blocks, the norm
after each convolution and before the activation; of width 16, depth 3 or 9 and with
shortcuts that pad, their ResNet-20 and ResNet-56 for CIFAR-10). Grouped convolutions:
Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural
Networks".
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.data.base import Images
from normbench.data.reading.augmentation import source
from normbench.errors import RequestError
from normbench.tasks.base import NormFactory, Task, classification_metrics

Padding = Literal["zeros", "reflect", "valid"]
Shortcut = Literal["projection", "pad"]


class CNN(Task, name="cnn"):
    """Classify images: cross-entropy of a residual or a plain network.

    `network` "residual" and "plain" have a first convolution of `width` channels and
    stride `stem_stride`, then three stages of `width`, 2 and 4 times `width` channels,
    each but the first of stride 2, the mean over all positions and a linear classifier.
    A stage is `depth` blocks of two convolutions with a shortcut ("residual"), or
    `depth` convolutions, each with a norm and a ReLU ("plain": four in all at depth 1).
    "resnet18" and "resnet50" are torchvision's, and no other option is of them.

    `shortcut` is how a residual block of another shape than its input's adds the two:
    "projection" is a 1x1 convolution with a norm, "pad" leaves positions out and adds
    channels of zeros, and has no parameters (He et al.'s options B and A).
    `padding` is that of all 3x3 convolutions; "valid" is none, for plain networks.
    `conv_groups` parts the channels of all convolutions but the first, which sees all
    of the picture's: the parts meet in the classifier only.
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
        shape: dict[str, Any] = {
            "width": width,
            "depth": depth,
            "shortcut": shortcut,
            "stem_stride": stem_stride,
            "padding": padding,
            "conv_groups": conv_groups,
        }
        self.images = source(data.images).to(device)
        if network in BLOCKS:
            _require_shape(network, self.images.shape, **shape)
        else:
            _require_default_shape(network, shape)
        self.labels = data.labels.to(device)
        self.splits = data.splits
        self.classes = len(data.classes)
        self.known = dict(data.facts)
        self.notes = data.notes
        self.network, self.options = network, shape
        self.epoch = 0

    def build(self, norm: NormFactory) -> nn.Module:
        channels = self.images.shape[1]
        if self.network not in BLOCKS:
            # torchvision takes two seconds to import.
            from normbench.tasks.networks.resnet import resnet

            return resnet(self.network, norm, channels, self.classes)
        return Network(
            norm,
            block=BLOCKS[self.network],
            in_channels=channels,
            classes=self.classes,
            **self.options,
        )

    def begin_epoch(self, epoch: int, order: Tensor) -> None:
        self.epoch = epoch
        self.images.expect(order, epoch)

    def facts(self, batches: Sequence[Tensor]) -> dict[str, float]:
        """What the data set says of itself."""
        return self.known

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


def _require_shape(
    network: str,
    images: tuple[int, int, int, int],
    *,
    width: int,
    depth: int,
    shortcut: Shortcut,
    stem_stride: int,
    padding: Padding,
    conv_groups: int,
) -> None:
    """Raise RequestError where there is no network of this shape on these images."""
    if network == "residual" and padding == "valid":
        raise RequestError(
            "task.padding=valid does not work in task.network=residual, where a "
            "block must keep the size of its input; choose zeros or reflect, or "
            "task.network=plain"
        )
    if width % conv_groups:
        raise RequestError(
            f"task.conv_groups={conv_groups} does not divide task.width={width}"
        )
    if shortcut == "pad" and network == "plain":
        raise RequestError(
            "task.shortcut=pad has no meaning in task.network=plain, which has no "
            "shortcuts; leave it at projection"
        )
    if shortcut == "pad" and conv_groups > 1:
        raise RequestError(
            f"task.shortcut=pad adds its channels after the others, which would mix "
            f"the parts of task.conv_groups={conv_groups}; use projection"
        )
    strides = [stem_stride]
    for _, _, stride in block_shapes(width, depth):
        strides += BLOCKS[network].strides(stride)
    require_room(*images[2:], strides, padding)


def _require_default_shape(network: str, shape: dict[str, Any]) -> None:
    """Raise RequestError where a network of a fixed shape is given another."""
    default = inspect.signature(CNN).parameters
    for option, value in shape.items():
        if value != default[option].default:
            raise RequestError(
                f"task.{option}={value} has no meaning in task.network={network}, "
                f"whose shape is fixed; leave it at {default[option].default}"
            )


class Network(nn.Module):
    """A convolution, three stages of blocks, the mean over positions, a classifier.

    (N, in_channels, H, W) -> (N, classes).
    """

    def __init__(
        self,
        norm: NormFactory,
        *,
        block: "type[BasicBlock | PlainBlock]",
        in_channels: int,
        classes: int,
        width: int,
        depth: int,
        shortcut: Shortcut,
        stem_stride: int,
        padding: Padding,
        conv_groups: int,
    ) -> None:
        super().__init__()
        self.stem = conv3x3(in_channels, width, stem_stride, padding, groups=1)
        self.norm = norm(width, nn.ReLU)
        self.blocks = nn.Sequential(
            *(
                block(
                    norm,
                    channels_in,
                    channels,
                    stride,
                    shortcut,
                    padding,
                    conv_groups,
                )
                for channels_in, channels, stride in block_shapes(width, depth)
            )
        )
        self.head = nn.Linear(4 * width, classes)
        self.output_layers = [self.head]

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.norm(self.stem(x)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, see `CNN` where the shape changes."""

    def __init__(
        self,
        norm: NormFactory,
        in_channels: int,
        channels: int,
        stride: int,
        shortcut: Shortcut,
        padding: Padding,
        groups: int,
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride, padding, groups)
        self.norm1 = norm(channels, nn.ReLU)
        self.conv2 = conv3x3(channels, channels, 1, padding, groups)
        self.norm2 = norm(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride == 1 and in_channels == channels:
            return
        if shortcut == "pad":
            self.shortcut = PadShortcut(channels - in_channels, stride)
        else:
            self.shortcut = nn.Sequential(
                nn.Conv2d(
                    in_channels, channels, 1, stride=stride, groups=groups, bias=False
                ),
                norm(channels),
            )

    @staticmethod
    def strides(stride: int) -> tuple[int, ...]:
        """Those of the 3x3 convolutions, one after the other."""
        return stride, 1

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

    def __init__(
        self,
        norm: NormFactory,
        in_channels: int,
        channels: int,
        stride: int,
        shortcut: Shortcut,
        padding: Padding,
        groups: int,
    ) -> None:
        super().__init__()
        self.conv = conv3x3(in_channels, channels, stride, padding, groups)
        self.norm = norm(channels, nn.ReLU)

    @staticmethod
    def strides(stride: int) -> tuple[int, ...]:
        """That of the convolution."""
        return (stride,)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y


BLOCKS: dict[str, type[BasicBlock | PlainBlock]] = {
    "residual": BasicBlock,
    "plain": PlainBlock,
}


def block_shapes(width: int, depth: int) -> Iterator[tuple[int, int, int]]:
    """(channels in, channels out, stride) of each block of the three stages."""
    channels_in = width
    for stage in range(3):
        for position in range(depth):
            channels = width << stage
            yield channels_in, channels, 2 if stage > 0 and position == 0 else 1
            channels_in = channels


def conv3x3(
    in_channels: int, channels: int, stride: int, padding: Padding, groups: int
) -> nn.Conv2d:
    """A convolution without a bias, which the norm after it would take away."""
    return nn.Conv2d(
        in_channels,
        channels,
        3,
        stride=stride,
        padding=0 if padding == "valid" else 1,
        padding_mode="reflect" if padding == "reflect" else "zeros",
        groups=groups,
        bias=False,
    )


def require_room(
    height: int, width: int, strides: Sequence[int], padding: Padding
) -> None:
    """Raise RequestError where 3x3 convolutions of `strides` run out of pixels."""
    least = {"zeros": 1, "reflect": 2, "valid": 3}[padding]
    added = 0 if padding == "valid" else 2
    side = min(height, width)
    for number, stride in enumerate(strides, 1):
        if side < least:
            raise RequestError(
                f"task.padding={padding} needs {least} pixels a side at each "
                f"convolution, and of images of {height}x{width} pixels {side} "
                f"{'is' if side == 1 else 'are'} left at convolution {number}; use "
                "larger images, fewer convolutions (task.depth) or task.padding=zeros"
            )
        side = (side + added - 3) // stride + 1
