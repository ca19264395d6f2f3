"""A network that redraws a photograph in the style of a picture, in one pass.

Johnson et al. 2016, "Perceptual Losses for Real-Time Style Transfer and
Super-Resolution"; the loss is that of Gatys et al. 2016, "Image Style Transfer Using
Convolutional Neural Networks", with both terms relative to their targets.
"""

from functools import cached_property
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.data.base import Photographs
from normbench.data.reading.cache import Parsed, cached
from normbench.errors import RequestError
from normbench.tasks.base import NormFactory, Task, full_batches
from normbench.tasks.networks.perceptual import Name as Perceptual
from normbench.tasks.networks.perceptual import perceptual_network

FORMAT = 2

SMALLEST = 6
"""Side of the smallest crop: a 9x9 convolution reflects 4 pixels past the border."""

PICTURES = 8
"""Photographs that `Style.pictures` shows."""


class Style(Task, name="style"):
    """Stylise photographs: the perceptual loss of a feed-forward generator.

    With F_l the features of the frozen perceptual network at layer l, G_l their Gram
    matrix over positions (`gram`), y the output for the crop x, and s its style, which
    is i mod S for crop i and S styles, in training and in evaluation:

        content = |F_c(y) - F_c(x)|^2 / |F_c(x)|^2        c: the content layer
        style   = mean over l of |G_l(y) - G_l(s)|^2 / |G_l(s)|^2
        loss    = content + style_weight * style

    Each is of one sample, and a batch has their mean. Relative terms weigh every layer
    alike, and mean the same at any size of crop: 0 is the target itself, 1 is as far
    from it as no features at all. Layers are those of strides up to 8: deeper ones have
    too few positions in a small crop for a Gram matrix. The content layer is the one of
    stride 8 of EfficientNet-Lite0, and relu2_2 of VGG16.
    """

    data_kind = Photographs
    primary_metric = "loss"
    direction: ClassVar[Literal["minimize", "maximize"]] = "minimize"
    norm_aliases: ClassVar[dict[str, str]] = {"layer": "layer_sample"}

    def __init__(
        self,
        data: Photographs,
        device: torch.device,
        *,
        width: PositiveInt = 16,
        blocks: PositiveInt = 3,
        style_weight: Annotated[float, Field(ge=0)] = 3.0,
        eval_crops: PositiveInt = 64,
        perceptual: Perceptual = "efficientnet_lite0",
    ) -> None:
        sides = tuple(data.crops.shape[2:])
        smallest = SMALLEST if perceptual == "efficientnet_lite0" else 8
        if any(side % 2 or side < smallest for side in sides):
            raise RequestError(
                f"task=style needs crops with even sides of {smallest} or more, not "
                f"{sides[0]}x{sides[1]}; set data.crop"
            )
        self.crops = data.crops.to(device)
        self.styles = data.styles.to(device)
        self.conditions = len(self.styles)
        self.key = data.key
        self.splits, self.notes = data.splits, data.notes
        self.data_facts = data.facts
        self.width, self.blocks = width, blocks
        self.style_weight, self.eval_crops = style_weight, eval_crops
        self.perceptual = perceptual_network(device, perceptual)

    def build(self, norm: NormFactory) -> nn.Module:
        return Generator(norm, width=self.width, blocks=self.blocks)

    def inputs(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Crops (B, 3, H, W) and the condition (B,) int64: the style of each."""
        index = index.to(self.crops.device, non_blocking=True)
        return self.crops[index], index % self.conditions

    def loss(self, model: nn.Module, index: Tensor) -> Tensor:
        content, style = self.terms(model(*self.inputs(index)), index)
        return (content + self.style_weight * style).mean()

    def evaluate(
        self, model: nn.Module, split: str, batch_size: int
    ) -> dict[str, float]:
        """Means of "loss", "content" and "style" over the samples of `split`.

        Of the training split, over the first `eval_crops` at most.
        """
        index = self.splits[split]
        if split == "train":
            index = index[: self.eval_crops]
        terms = []
        with torch.no_grad():
            for batch, count in full_batches(index, batch_size):
                output = model(*self.inputs(batch))[:count]
                terms.append(torch.stack(self.terms(output, batch[:count])))
        content, style = torch.cat(terms, 1).cpu().double().mean(1).tolist()
        return {
            "loss": content + self.style_weight * style,
            "content": content,
            "style": style,
        }

    def pictures(self, model: nn.Module) -> dict[str, Tensor]:
        """ "stylised": test crops and styles above, each crop in its style below."""
        crops, condition = self.inputs(self.splits["test"][:PICTURES])
        with torch.no_grad():
            outputs = model(crops, condition)
        styles = F.interpolate(
            self.styles, crops.shape[2:], mode="bilinear", antialias=True
        )
        blank = torch.ones_like(styles)
        above, below = torch.cat([crops, styles]), torch.cat([outputs, blank])
        grid = torch.cat([torch.cat([*row], 2) for row in (above, below)], 1)
        return {"stylised": grid.clamp(0, 1).cpu()}

    def terms(self, output: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Content and style loss, each (B,), of pictures for the samples `index`."""
        features = self.perceptual(output)
        index = index.to(output.device, non_blocking=True)
        target = self.content_targets[index]
        content = relative_error(features[self.perceptual.content_layer], target)
        style = index % self.conditions
        styles = [
            relative_error(gram(feature), wanted[style])
            for feature, wanted in zip(features, self.style_targets, strict=True)
        ]
        return content, torch.stack(styles).mean(0)

    @property
    def content_targets(self) -> Tensor:
        """Features of every crop at the content layer: (N, C, positions...)."""
        return self._targets["content"]

    @property
    def style_targets(self) -> list[Tensor]:
        """Gram matrices (S, C, C) of the styles at each layer."""
        return [self._targets[f"style{i}"] for i in range(len(self.perceptual.strides))]

    @cached_property
    def _targets(self) -> dict[str, Tensor]:
        # Not in __init__: asking whether a norm fits in needs none of it.
        identity = {
            "format": FORMAT,
            "photographs": self.key,
            "network": self.perceptual.identity,
            "torch": torch.__version__,
            "device": self.crops.device.type,
        }
        tensors = cached("style-targets", identity, self._make_targets).tensors
        return {name: tensor.to(self.crops.device) for name, tensor in tensors.items()}

    @torch.no_grad()
    def _make_targets(self) -> Parsed:
        content = [
            self.perceptual(crops)[self.perceptual.content_layer]
            for crops in torch.split(self.crops, 32)
        ]
        targets = {"content": torch.cat(content).cpu()}
        for i, feature in enumerate(self.perceptual(self.styles)):
            targets[f"style{i}"] = gram(feature).cpu()
        return Parsed(targets)


def gram(features: Tensor) -> Tensor:
    """Second moments of the channels over all positions: (N, C, H, W) -> (N, C, C)."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def relative_error(x: Tensor, target: Tensor) -> Tensor:
    """|x - target|^2 / |target|^2 of each sample: (N, ...), (N, ...) -> (N,)."""
    error = (x - target).square().flatten(1).sum(1)
    return error / target.square().flatten(1).sum(1)


class Generator(nn.Module):
    """(N, 3, H, W) in [0, 1] -> the same, for even H and W from 6 on.

    `condition` (N,) int64, the style of each sample, goes to every norm: those with
    several affine maps choose by it, and nothing else in the network knows of styles.
    Residual blocks at half the resolution, between a strided convolution and a nearest
    upsampling (Odena et al. 2016: without checkerboards). Reflection at every border,
    so that no frame of zeros tells a norm's input apart from the picture's.
    """

    def __init__(self, norm: NormFactory, *, width: int, blocks: int) -> None:
        super().__init__()
        self.conv1 = conv(3, width, 9)
        self.norm1 = norm(width, nn.ReLU)
        self.conv2 = conv(width, 2 * width, 3, stride=2)
        self.norm2 = norm(2 * width, nn.ReLU)
        self.blocks = nn.ModuleList(
            ResidualBlock(norm, 2 * width) for _ in range(blocks)
        )
        self.conv3 = conv(2 * width, width, 3)
        self.norm3 = norm(width, nn.ReLU)
        self.head = conv(width, 3, 9, bias=True)
        self.output_layers = [self.head]

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        x = self.norm1(self.conv1(x), condition=condition)
        x = self.norm2(self.conv2(x), condition=condition)
        for block in self.blocks:
            x = block(x, condition)
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = self.norm3(self.conv3(x), condition=condition)
        return torch.sigmoid(self.head(x))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside the identity, nothing after the sum.

    As Johnson et al. 2016 do, after Gross & Wilber 2016.
    """

    def __init__(self, norm: NormFactory, channels: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels, 3)
        self.norm1 = norm(channels, nn.ReLU)
        self.conv2 = conv(channels, channels, 3)
        self.norm2 = norm(channels)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        y: Tensor = self.norm1(self.conv1(x), condition=condition)
        y = self.norm2(self.conv2(y), condition=condition)
        return x + y


def conv(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, bias: bool = False
) -> nn.Conv2d:
    """A convolution that keeps the size, but for its stride."""
    return nn.Conv2d(
        inputs,
        outputs,
        kernel,
        stride=stride,
        padding=kernel // 2,
        padding_mode="reflect",
        bias=bias,
    )
