"""Build small versions of the real networks and train them for a few steps."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normbench.claims.theorems.base import difference, largest
from normbench.config.composition import compose
from normbench.config.schema import Choice, RunConfig
from normbench.norms.base import REGISTRY
from normbench.tasks.base import Task
from normbench.training import loop
from normbench.training.decay import scale_invariant_rate
from normbench.training.network import Network, build, make_task

SMALL = {
    "cnn": ["task=cnn", "data.size=14", "task.stem_stride=2", "task.width=8"],
    "transformer": ["task=transformer", "task.width=16", "task.max_length=40"],
}


def small(task: str, *overrides: str) -> RunConfig:
    """Return the config of a small network of `task` with a batch size of 16.

    A training step of it takes milliseconds.
    """
    return compose([*SMALL[task], "batch_size=16", "tracker=none", *overrides])


def with_norm(config: RunConfig, name: str, **options: Any) -> RunConfig:
    """Return `config` with another norm and checked options; the norm needs no yaml."""
    norm = Choice(name=name, **REGISTRY.options(name, options))
    return config.model_copy(update={"norm": norm})


def built(config: RunConfig, dtype: torch.dtype) -> tuple[Task, Network]:
    """Build the task and its network in `dtype`, with weights drawn from the seed."""
    task = make_task(config, torch.device("cpu"))
    torch.manual_seed(config.seed)
    network = build(config, task)
    model = in_dtype(network.model, dtype)
    if any(is_lazy(parameter) for parameter in model.parameters()):
        # A forward initializes lazy parameters. `loop.fit` sets the training mode.
        with torch.no_grad():
            model.eval()(*task.inputs(task.splits["train"][: config.batch_size]))
    return task, network


def in_dtype(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Convert `model` to `dtype` in place; it then casts its floating-point inputs."""
    model.register_forward_pre_hook(
        lambda module, inputs: tuple(
            x.to(dtype) if x.is_floating_point() else x for x in inputs
        )
    )
    return model.to(dtype)


@dataclass(frozen=True)
class Trained:
    """A network after some training steps, and the results of these steps."""

    losses: Tensor
    """(steps,) float64: the loss of each step, before its update."""
    gradients: Mapping[str, Tensor]
    """The gradients of the last step, by parameter name."""
    state: Mapping[str, Tensor]
    """Weights and running statistics by name, without counters."""
    task: Task
    network: Network

    def differences(self, other: "Trained") -> dict[str, float]:
        """Return the largest difference to `other`, by kind of quantity."""
        weights = [name for name, _ in self.network.model.named_parameters()]
        statistics = [name for name in self.state if name not in weights]
        return {
            "losses": difference(self.losses, other.losses),
            "gradients": _largest_difference(
                self.gradients, other.gradients, self.gradients
            ),
            "weights": _largest_difference(self.state, other.state, weights),
            "running statistics": _largest_difference(
                self.state, other.state, statistics
            ),
        }


def _largest_difference(
    a: Mapping[str, Tensor], b: Mapping[str, Tensor], names: Iterable[str]
) -> float:
    differences = {name: difference(a[name], b[name]) for name in names}
    _, value = largest({"no tensor": 0.0} | differences)
    return value


def trained(
    config: RunConfig, steps: int, dtype: torch.dtype = torch.float64
) -> Trained:
    """Train the network of `config` for `steps` steps at its learning rate."""
    task, network = built(config, dtype)
    return fitted(config, task, network, steps)


def fitted(config: RunConfig, task: Task, network: Network, steps: int) -> Trained:
    """Train `network` in place for `steps` steps, by the training loop of real runs."""
    model: nn.Module = network.model
    losses: list[float] = []
    optimizer = loop.make_optimizer(
        model, network.norms.parameters(), **config.optimizer.model_dump()
    )

    def rate(step: int) -> float:
        return config.lr

    loop.fit(
        model,
        task.loss,
        optimizer,
        steps=steps,
        micro_batches=loop.micro_batches(
            task.splits["train"],
            config.seed,
            config.batch_size,
            config.accumulate,
            task.batch_by,
            sort_within_batch=task.sort_within_batch,
        ),
        learning_rate=rate,
        scale_invariant_rate=scale_invariant_rate(config, rate, steps),
        clip=None,
        log_every=1,
        log=lambda step, loss, lr: losses.append(loss),
        evaluate_at=frozenset(),
        evaluate=lambda step: None,
    )
    return Trained(
        losses=torch.tensor(losses, dtype=torch.float64),
        gradients={
            name: parameter.grad
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        },
        state={
            name: tensor.clone()
            for name, tensor in model.state_dict().items()
            if tensor.is_floating_point()
        },
        task=task,
        network=network,
    )
