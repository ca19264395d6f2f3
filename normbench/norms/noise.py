"""Noise after a norm, in training only.

y is an output of the norm, of channel c. There are two kinds of noise:

    activation  y' = s * y + m
                m = m_c + spread * u    m_c uniform in [-shift, shift]
                s = s_c + spread * z    s_c uniform in [1, 1 + scale]
                u uniform in [-1, 1], z normal

    statistic   y' = bias + exp(scale * a) * (y - bias) + shift * b * weight
                a and b normal

"activation" is the noise of Santurkar et al. 2018 ("How Does Batch Normalization Help
Optimization?", the "noisy" BatchNorm). Every value, that is every position of every
sample, has a u and a z of its own. m_c and s_c, the mean and the deviation that the
noise gives to a channel, are drawn anew in every optimizer step, so the distribution of
each channel changes from step to step. The paper has shift .5, scale .25 and spread .1.

"statistic" acts as noise of the statistics of the norm: a and b are drawn for every
norm batch and channel. `weight` and `bias` are the attributes of the norm with these
names, its gain and its bias, or 1 and 0 without them. With Batch Normalization, y' is
the output for a mean that is off by -exp(-scale * a) * shift * b standard deviations,
and for a standard deviation that is off by the factor exp(-scale * a). The probe
`statistic_noise` measures the same quantities, `mean_noise` and `std_noise`. The
network cannot make this noise relatively smaller by a larger gain.

m_c, s_c, a and b depend only on the seed, the layer and the number of training forwards
so far. They are equal on all devices. The samples of one norm batch get the same a and
b even if they are in several processes. u and z come from torch's random stream of the
device, as those of dropout.
"""

import hashlib
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from normbench.errors import Incompatible, RequestError
from normbench.norms.base import Norm, per_channel
from normbench.norms.ghost import Ghost
from normbench.norms.sharing import replica_count


class Noise(NamedTuple):
    """The noise of a model; the docstring of the module has the formulas."""

    kind: Literal["activation", "statistic"]
    shift: float
    scale: float
    spread: float
    seed: int


class NoisyNorm(nn.Module):
    """A norm and noise after it, called with the arguments of a norm.

    In evaluation mode, the output is that of the norm. `layer` is the number of the
    norm in its model. The state dictionary contains the number of training forwards, so
    that a resumed run continues with the same noise.

    `__init__` raises Incompatible if `kind` is "statistic" and the norm contains an
    activation or has several affine maps. A training forward raises RequestError if
    `norm_batch` does not divide the batch.
    """

    def __init__(
        self, norm: Norm | Ghost, noise: Noise, norm_batch: int, layer: int
    ) -> None:
        super().__init__()
        inner = norm.norm if isinstance(norm, Ghost) else norm
        if noise.kind == "statistic" and inner.contains_activation:
            raise Incompatible(
                f"norm_noise.kind=statistic acts before the gain and the bias of a "
                f"norm, but norm={inner.name} ends in an activation; use "
                "norm_noise.kind=activation"
            )
        if noise.kind == "statistic" and inner.conditions is not None:
            raise Incompatible(
                f"norm_noise.kind=statistic needs one gain and one bias per channel, "
                f"but norm={inner.name} has several; use norm_noise.kind=activation"
            )
        self.norm = norm
        self.noise, self.norm_batch, self.layer = noise, norm_batch, layer
        self.forwards_per_step = inner.forwards_per_step
        self.forwards = 0

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        y: Tensor = self.norm(x, mask, condition)
        if not self.training or y.numel() == 0:
            return y
        if self.noise.kind == "activation":
            noisy = self._with_activation_noise(y)
        else:
            noisy = self._with_statistic_noise(y)
        return noisy.to(y.dtype)

    def _with_activation_noise(self, y: Tensor) -> Tensor:
        shift, scale, spread = self.noise.shift, self.noise.scale, self.noise.spread
        uniform = self._step_numbers(y)
        factor = per_channel(1 + scale * uniform[0], y)
        offset = per_channel(shift * (2 * uniform[1] - 1), y)
        if spread:
            factor = factor + spread * torch.randn_like(y, dtype=factor.dtype)
            offset = offset + spread * (2 * torch.rand_like(y, dtype=factor.dtype) - 1)
        return factor * y + offset

    def _with_statistic_noise(self, y: Tensor) -> Tensor:
        if len(y) > self.norm_batch and len(y) % self.norm_batch:
            raise RequestError(
                f"norm_batch={self.norm_batch} does not divide a batch of {len(y)}"
            )
        normal = self._norm_batch_numbers(y)
        factor = per_channel((self.noise.scale * normal[0]).exp(), y)
        offset = per_channel(self.noise.shift * normal[1], y)
        norm = self.norm.norm if isinstance(self.norm, Ghost) else self.norm
        weight, bias = (getattr(norm, name, None) for name in ("weight", "bias"))
        if weight is not None:
            offset = offset * _broadcast(weight, y)
        if bias is not None:
            offset = offset + (1 - factor) * _broadcast(bias, y)
        return factor * y + offset

    # A generator breaks a compiled graph; `disable` avoids the warning.
    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch has no type for it
    def _step_numbers(self, y: Tensor) -> Tensor:
        """Return two uniform numbers in [0, 1] for each channel in a step: (2, C)."""
        generator = self._generator(self.forwards // self.forwards_per_step)
        self.forwards += 1
        return torch.rand(2, y.shape[1], generator=generator).to(y.device)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch has no type for it
    def _norm_batch_numbers(self, y: Tensor) -> Tensor:
        """Return two normal numbers for each norm batch in `y` and channel: (2, k, C).

        Each process draws the numbers of all norm batches in the batch of all processes
        and returns those of its own samples.
        """
        generator = self._generator(self.forwards)
        self.forwards += 1
        replicas, rank = replica_count(), 0
        if replicas > 1:
            rank = dist.get_rank()
        total = max(1, len(y) * replicas // self.norm_batch)
        normal = torch.randn(2, total, y.shape[1], generator=generator)
        first = rank * len(y) // self.norm_batch
        of_this_rank = normal[:, first : first + max(1, len(y) // self.norm_batch)]
        return of_this_rank.to(y.device)

    def _generator(self, count: int) -> torch.Generator:
        text = f"norm noise {self.noise.seed} {self.layer} {count}"
        digest = hashlib.sha256(text.encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.forwards)

    def set_extra_state(self, state: Tensor) -> None:
        self.forwards = int(state)


def _broadcast(values: Tensor, y: Tensor) -> Tensor:
    """Return `values` (C,) or (C, *spatial) in a shape that broadcasts with `y`."""
    return per_channel(values, y) if values.dim() == 1 else values.unsqueeze(0)
