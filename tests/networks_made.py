"""Networks as users write them, with norms of torch in several forms."""

from typing import Any

import torch
from torch import Tensor, nn


class UNet(nn.Module):
    """Two levels with batch norms and a skip connection; images (N, 3, H, W)."""

    def __init__(self, norm: type[nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.down = self._block(3, 8, norm)
        self.middle = self._block(8, 16, norm)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.last = self._block(16, 8, norm)
        self.head = nn.Conv2d(8, 2, 1)

    @staticmethod
    def _block(inputs: int, outputs: int, norm: type[nn.Module]) -> nn.Sequential:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
        return nn.Sequential(convolution, norm(outputs), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        y = self.up(self.middle(nn.functional.max_pool2d(skip, 2)))
        output: Tensor = self.head(self.last(torch.cat([skip, y], 1)))
        return output


def dcgan() -> nn.Sequential:
    """Return a generator as in DCGAN: noise (N, 8, 1, 1) to images (N, 3, 16, 16)."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((8, 32), (32, 16)):
        stride, padding = (1, 0) if not layers else (2, 1)
        layers += [
            nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh())


class Tagger(nn.Module):
    """Labels each token: ids (N, L) and a mask to (N, L, 4)."""

    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.norm = norm or nn.LayerNorm(16)
        self.head = nn.Linear(16, 4)

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.embedding(ids)
        if isinstance(self.norm, nn.BatchNorm1d | nn.InstanceNorm1d):
            x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        else:
            x = self.norm(x)
        output: Tensor = self.head(x)
        return output


class Encoder(nn.Module):
    """A Transformer of torch over token ids with a mask, which has a fast path."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.embedding(ids)
        output: Tensor = self.encoder(x, src_key_padding_mask=~mask)
        return output


class ManyNorms(nn.Module):
    """A layer of each kind of torch that normalizes, on images (N, 8, 4, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.batch = nn.BatchNorm2d(8, eps=1e-3, momentum=0.3)
        self.cumulative = nn.BatchNorm2d(8, momentum=None)
        self.untracked = nn.BatchNorm2d(8, affine=False, track_running_stats=False)
        self.group = nn.GroupNorm(4, 8, eps=1e-4)
        self.one_group = nn.GroupNorm(1, 8)
        self.instance = nn.InstanceNorm2d(8, affine=True)
        self.plain_instance = nn.InstanceNorm2d(8)
        self.sample = nn.LayerNorm([8, 4, 4])
        self.last = nn.LayerNorm(8)
        self.without_bias = nn.LayerNorm(8, bias=False)
        self.rms = nn.RMSNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        for norm in (self.batch, self.cumulative, self.untracked, self.group):
            x = norm(x)
        for norm in (self.one_group, self.instance, self.plain_instance, self.sample):
            x = norm(x)
        y: Tensor = self.rms(self.without_bias(self.last(x.movedim(1, -1))))
        return y.movedim(-1, 1)


def randomised(model: nn.Module) -> nn.Module:
    """Return `model` with other gains, biases and running statistics."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.add_(torch.rand(tensor.shape, generator=generator) / 2)
    return model


def difference(a: Any, b: Any) -> float:
    """Return the largest difference between two tensors, relative to the largest."""
    return float((a - b).abs().max().detach() / a.abs().max().detach())
