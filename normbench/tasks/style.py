"""Style transfer: a network redraws a photograph in the style of a picture.

The network is that of Johnson et al. 2016, "Perceptual Losses for Real-Time Style
Transfer and Super-Resolution". The loss is that of Gatys et al. 2016, "Image Style
Transfer Using Convolutional Neural Networks", but both terms are relative errors.
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
from normbench.norms.base import Norm
from normbench.tasks.base import NormFactory, Scores, Task, full_batches
from normbench.tasks.networks.perceptual import PerceptualName, perceptual_network

FORMAT = 2
"""Version of the cached targets. Increase it when `_make_targets` changes."""

MIN_SIDE = 6
"""Smallest even side in pixels.

The 9x9 convolutions reflect 4 pixels at a border, which needs a side of 5 or more.
"""

MAX_CROPS = 8
"""Number of test crops that `Style.pictures` shows if there are no photographs."""


class Style(Task, name="style"):
    """Style transfer with the perceptual loss of a feed-forward generator.

    The loss of one sample is

        content = |F_c(y) - F_c(x)|^2 / |F_c(x)|^2
        style   = mean over l of |G_l(y) - G_l(s)|^2 / |G_l(s)|^2
        loss    = content + style_weight * style

    where

        x    the crop of a photograph
        y    the output of the generator for x
        s    the style picture i mod S for crop i; S is the number of style pictures
        F_l  the features of the frozen perceptual network at layer l
        G_l  the Gram matrix of F_l over all positions (`gram`)
        c    the content layer: stride 8 of EfficientNet-Lite0, relu2_2 of VGG16

    The loss of a batch is the mean over its samples. A relative error gives all layers
    the same weight and does not depend on the size of the crop. A relative error is 0
    if the output has the features of the target. A relative error is 1 if all features
    of the output are 0. The strides of the layers are at most 8, because a small crop
    has too few positions for a Gram matrix of deeper layers.
    """

    data_kind = Photographs
    primary_metric = "loss"
    direction: ClassVar[Literal["minimize", "maximize"]] = "minimize"
    norm_aliases: ClassVar[dict[str, str]] = {"layer": "layer_sample"}
    evaluation_batch = 4

    def __init__(
        self,
        data: Photographs,
        device: torch.device,
        *,
        width: PositiveInt = 16,
        blocks: PositiveInt = 3,
        style_weight: Annotated[float, Field(ge=0)] = 3.0,
        eval_crops: PositiveInt = 64,
        perceptual: PerceptualName = "efficientnet_lite0",
    ) -> None:
        sides = tuple(data.crops.shape[2:])
        # VGG16 needs sides of at least 8 pixels.
        min_side = MIN_SIDE if perceptual == "efficientnet_lite0" else 8
        if any(side % 2 or side < min_side for side in sides):
            raise RequestError(
                f"task=style needs crops with even sides of {min_side} or more, not "
                f"{sides[0]}x{sides[1]}; set data.crop"
            )
        self.crops = data.crops.to(device)
        self.styles = data.styles.to(device)
        self.conditions = len(self.styles)
        self.shown = data.shown
        self.key = data.key
        self.splits, self.notes = data.splits, data.notes
        self.data_facts = data.facts
        self.width, self.blocks = width, blocks
        self.style_weight, self.eval_crops = style_weight, eval_crops
        self.perceptual = perceptual_network(device, perceptual)

    def build(self, norm: NormFactory) -> nn.Module:
        return Generator(norm, width=self.width, blocks=self.blocks)

    def inputs(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return crops (B, 3, H, W) and conditions (B,) int64: the style indices."""
        index = index.to(self.crops.device, non_blocking=True)
        return self.crops[index], index % self.conditions

    def loss(self, model: nn.Module, index: Tensor) -> Tensor:
        content, style = self.terms(model(*self.inputs(index)), index)
        return (content + self.style_weight * style).mean()

    def evaluation_samples(self, split: str) -> Tensor:
        """Return the samples of `split`, or the first `eval_crops` training samples."""
        index = super().evaluation_samples(split)
        return index[: self.eval_crops] if split == "train" else index

    def score(
        self,
        model: nn.Module,
        index: Tensor,
        batch_size: int,
        *,
        few_pads: bool = False,
    ) -> Scores:
        """Return the means of "loss", "content" and "style" over crops `index` (M,).

        The values of each crop are its "content" and "style".
        """
        terms = []
        with torch.no_grad():
            # After the first `count` indices, a batch has only repeats.
            for batch, count in full_batches(index, batch_size):
                output = model(*self.inputs(batch))[:count]
                terms.append(torch.stack(self.terms(output, batch[:count])))
        by_crop = torch.cat(terms, 1)
        content, style = by_crop.cpu().double().mean(1).tolist()
        metrics = {
            "loss": content + self.style_weight * style,
            "content": content,
            "style": style,
        }
        return Scores(
            metrics, index, dict(zip(("content", "style"), by_crop, strict=True))
        )

    def pictures(self, model: nn.Module) -> dict[str, Tensor]:
        """Return one picture, "stylised", with two rows of squares.

        The upper row shows the held-out photographs, then the style pictures. The lower
        row shows the output for each photograph; number i is drawn in style i mod S. A
        network that has parameters for each position gets the centres of the
        photographs, as large as its crops. Data without photographs show test crops.
        """
        shown = self.shown
        if shown is None:
            shown = self.crops[self.splits["test"][:MAX_CROPS]]
        elif any(isinstance(m, Norm) and m.fixed_spatial for m in model.modules()):
            shown = _centre(shown, self.crops.shape[-1])
        shown = shown.to(self.crops.device)
        condition = torch.arange(len(shown), device=shown.device) % self.conditions
        with torch.no_grad():
            outputs = model(shown, condition)
        styles = F.interpolate(
            self.styles, shown.shape[2:], mode="bilinear", antialias=True
        )
        blank = torch.ones_like(styles)
        upper = torch.cat([*shown, *styles], 2)
        lower = torch.cat([*outputs, *blank], 2)
        return {"stylised": torch.cat([upper, lower], 1).clamp(0, 1).cpu()}

    def terms(self, output: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the content and the style term, both (B,), of outputs (B, 3, H, W).

        `index` (B,) has the sample of each output.
        """
        features = self.perceptual(output)
        index = index.to(output.device, non_blocking=True)
        content_target = self.content_targets[index]
        content_features = features[self.perceptual.content_layer]
        content = relative_error(content_features, content_target)
        style_index = index % self.conditions
        style_errors = [
            relative_error(gram(feature), style_target[style_index])
            for feature, style_target in zip(features, self.style_targets, strict=True)
        ]
        return content, torch.stack(style_errors).mean(0)

    @property
    def content_targets(self) -> Tensor:
        """The features (N, C, rows, columns) of all crops at the content layer."""
        return self._targets["content"]

    @property
    def style_targets(self) -> list[Tensor]:
        """The Gram matrices (S, C, C) of the style pictures, one tensor per layer."""
        return [self._targets[f"style{i}"] for i in range(len(self.perceptual.strides))]

    @cached_property
    def _targets(self) -> dict[str, Tensor]:
        # `__init__` does not compute the targets, because a check of whether a norm
        # fits the network does not need them.
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


def _centre(pictures: Tensor, side: int) -> Tensor:
    """Return the centre squares (N, C, side, side) of pictures (N, C, H, W)."""
    top, left = ((length - side) // 2 for length in pictures.shape[2:])
    return pictures[..., top : top + side, left : left + side]


def gram(features: Tensor) -> Tensor:
    """Return the Gram matrix of the channels: (N, C, H, W) -> (N, C, C).

    An entry is the mean product of two channels over all positions.
    """
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def relative_error(x: Tensor, target: Tensor) -> Tensor:
    """Return |x - target|^2 / |target|^2 per sample: (N, ...), (N, ...) -> (N,)."""
    error = (x - target).square().flatten(1).sum(1)
    return error / target.square().flatten(1).sum(1)


class Generator(nn.Module):
    """The network that redraws pictures: (N, 3, H, W) in [0, 1] -> the same shape.

    H and W are even and at least MIN_SIDE. `condition` (N,) int64 is the style index of
    each sample. Only the norms use it: they choose one of their affine maps.

    A strided convolution halves the resolution before the residual blocks.
    Nearest-neighbour upsampling doubles the resolution after the residual blocks. This
    upsampling avoids checkerboard patterns (Odena et al. 2016). All convolutions use
    reflection padding, so that no border of zeros enters the statistics of the norms.
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
    """Two 3x3 convolutions with an identity shortcut and no activation after the sum.

    Gross & Wilber 2016 proposed this block, and Johnson et al. 2016 use it.
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
    """Build a convolution with reflection padding, whose output has size H / stride."""
    return nn.Conv2d(
        inputs,
        outputs,
        kernel,
        stride=stride,
        padding=kernel // 2,
        padding_mode="reflect",
        bias=bias,
    )
