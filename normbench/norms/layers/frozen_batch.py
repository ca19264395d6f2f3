"""Frozen batch normalization: constant statistics, gain and bias (He et al. 2016, for
fine-tuning with the statistics of a trained network).

y = weight * (x - running_mean) / sqrt(running_var + eps) + bias, in training and in
evaluation. All four tensors are buffers that neither a forward nor an optimizer
changes. A new layer is the identity, except for eps; it is meant to load the state dict
of a batch normalization.
weight, bias, running_mean, running_var: (C,). Equals torchvision's FrozenBatchNorm2d.
"""

from typing import Any

import torch
from pydantic import PositiveFloat
from torch import Tensor

from normbench.norms.base import Norm, per_channel


class FrozenBatchNorm(Norm, name="frozen_batch"):
    also_called = ("FixedBatchNorm",)
    source = "He et al. 2016"
    axes = "one sample, one channel, one position"
    honours_mask = True

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int, *, eps: PositiveFloat = 1e-5) -> None:
        super().__init__(channels)
        self.eps = eps
        for name in ("weight", "running_var"):
            self.register_buffer(name, torch.ones(channels))
        for name in ("bias", "running_mean"):
            self.register_buffer(name, torch.zeros(channels))

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * scale
        y = torch.addcmul(per_channel(shift, x), per_channel(scale, x), x)
        return y.to(x.dtype)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        state_dict.pop(prefix + "num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args)
