"""The factory that makes the norm layers of a model."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from normbench.errors import Incompatible
from normbench.norms.base import Norm, make
from normbench.norms.ghost import Ghost
from normbench.norms.noise import Noise, NoisyNorm


class NormFactory:
    """Creates the norm layers of one model: `factory(channels, activation=None)`.

    `name` and `options` choose the norm; `norm_batch` is the number of samples that
    share statistics. `forwards_per_step` is the number of training forwards per
    optimizer step, and `chunks` is the number of norm batches in a forward. The factory
    lowers the momentum of each norm, so that all norm batches of a step together update
    the running statistics as much as one norm batch with the original momentum.
    `conditions` is the number of conditions in the data. `noise` is added after every
    norm in training, before the activation; None means no noise.

    `modules` lists the norms in the order of their creation. A norm whose
    output for a sample depends on other samples is wrapped in a Ghost.

    A call raises RequestError for an unknown name or option, and Incompatible if the
    norm does not fit the channels or the noise, or has fewer affine maps than there are
    conditions.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        norm_batch: int,
        forwards_per_step: int = 1,
        chunks: int = 1,
        conditions: int = 1,
        noise: Noise | None = None,
    ) -> None:
        self.name = name
        self.options = dict(options)
        self.norm_batch = norm_batch
        self.forwards_per_step = forwards_per_step
        self.chunks = chunks
        self.conditions = conditions
        self.noise = noise
        self.modules: list[Norm | Ghost] = []

    def __call__(
        self, channels: int, activation: type[nn.Module] | None = None
    ) -> nn.Module:
        # A norm may draw random initial weights. The other weights of the model must
        # not depend on these draws.
        with torch.random.fork_rng(devices=[]):
            norm = make(self.name, channels, **self.options)
        if norm.conditions is not None and norm.conditions < self.conditions:
            raise Incompatible(
                f"norm={norm.name} has {norm.conditions} affine maps, but the data has "
                f"{self.conditions} conditions; set norm.conditions={self.conditions}"
            )
        if norm.differs_in_eval:
            updates = self.forwards_per_step * self.chunks
            if norm.momentum is not None:  # else all norm batches weigh the same
                norm.momentum = 1 - (1 - norm.momentum) ** (1 / updates)
        norm.forwards_per_step = self.forwards_per_step
        with_statistics: Norm | Ghost = norm
        if norm.uses_other_samples:
            with_statistics = Ghost(norm, self.norm_batch)
        self.modules.append(with_statistics)
        module: nn.Module = with_statistics
        if self.noise is not None:
            layer = len(self.modules)
            module = NoisyNorm(with_statistics, self.noise, self.norm_batch, layer)
        if activation is None or norm.contains_activation:
            return module
        return NormAct(module, activation())

    def other(self, name: str, options: Mapping[str, Any]) -> "NormFactory":
        """Return a factory of another norm that adds its norms to the same list."""
        factory = copy.copy(self)
        factory.name, factory.options = name, dict(options)
        return factory

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters of all norms, to exclude them from weight decay."""
        return [p for module in self.modules for p in module.parameters()]


class NormAct(nn.Module):
    """A norm followed by an activation, called with the arguments of a norm."""

    def __init__(self, norm: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.activation = activation

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        y: Tensor = self.activation(self.norm(x, mask, condition))
        return y
