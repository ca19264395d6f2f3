"""The factory that makes the norm layers of a model."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from normbench.errors import Incompatible
from normbench.norms.base import Norm, make
from normbench.norms.ghost import Ghost


class NormFactory:
    """Makes the norm layers of one model: `factory(channels, activation=None)`.

    `options` are those of the norm `name`; `norm_batch` is the number of samples that
    share statistics. `forwards_per_step` is the number of training forwards of a norm
    in one optimizer step (batch size / norm_batch): together they move running
    statistics as far as one forward at the norm's own momentum would. `conditions` is
    the number of conditions that samples have.

    `modules` lists the norms in the order they were made, each in its Ghost if it has
    one.
    Raises RequestError for an unknown name or option, Incompatible as the norm does.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        norm_batch: int,
        forwards_per_step: int = 1,
        conditions: int = 1,
    ) -> None:
        self.name = name
        self.options = dict(options)
        self.norm_batch = norm_batch
        self.forwards_per_step = forwards_per_step
        self.conditions = conditions
        self.modules: list[Norm | Ghost] = []

    def __call__(
        self, channels: int, activation: type[nn.Module] | None = None
    ) -> nn.Module:
        # A norm may draw its first weights; the model's own must not depend on that.
        with torch.random.fork_rng(devices=[]):
            norm = make(self.name, channels, **self.options)
        if norm.conditions is not None and norm.conditions < self.conditions:
            raise Incompatible(
                f"norm.conditions={norm.conditions} is how many affine maps there are, "
                f"and the samples come in {self.conditions} conditions; set "
                f"norm.conditions={self.conditions}"
            )
        if norm.differs_in_eval:
            norm.momentum = 1 - (1 - norm.momentum) ** (1 / self.forwards_per_step)
        module = Ghost(norm, self.norm_batch) if norm.uses_other_samples else norm
        self.modules.append(module)
        if activation is None or norm.contains_activation:
            return module
        return NormAct(module, activation())

    def parameters(self) -> list[nn.Parameter]:
        """The parameters of all norms, which take no weight decay."""
        return [p for module in self.modules for p in module.parameters()]


class NormAct(nn.Module):
    """A norm, then an activation; called as a norm is."""

    def __init__(self, norm: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.activation = activation

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        y: Tensor = self.activation(self.norm(x, mask, condition))
        return y
