"""Times of a training step, of normbench's loop and of a bare PyTorch loop.

scripts/bench_step and scripts/check_device share it.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from normbench.config.composition import compose
from normbench.tasks.base import NormFactory, Task
from normbench.training import loop
from normbench.training.network import build, make_task

BLOCK_SECONDS = 0.2


class Bare(nn.Module):
    """torch's own norm and activation, called as a task calls a norm."""

    def __init__(self, norm: nn.Module, activation: type[nn.Module] | None) -> None:
        super().__init__()
        self.norm = norm
        self.activation = activation() if activation else None

    def forward(
        self, x: Tensor, mask: object = None, condition: object = None
    ) -> Tensor:
        y: Tensor = self.norm(x)
        return y if self.activation is None else self.activation(y)


class TokenLayerNorm(nn.LayerNorm):
    """nn.LayerNorm on a (N, C, T) view."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x.transpose(1, 2))
        return y.transpose(1, 2)


def bare_norm(task: str) -> NormFactory:
    norms: dict[str, Callable[[int], nn.Module]] = {
        "cnn": nn.BatchNorm2d,
        "transformer": TokenLayerNorm,
        "style": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    }

    def factory(channels: int, activation: type[nn.Module] | None = None) -> nn.Module:
        return Bare(norms[task](channels), activation)

    return factory


NORM = {"cnn": "batch", "transformer": "layer", "style": "instance"}


def bare_loop(
    model: nn.Module,
    task: Task,
    optimizer: torch.optim.Optimizer,
    order: Tensor,
    batch_size: int,
) -> Callable[[int], None]:
    def steps(count: int) -> None:
        model.train()
        for step in range(count):
            index = order[step * batch_size : (step + 1) * batch_size]
            optimizer.zero_grad(set_to_none=True)
            task.loss(model, index).backward()
            optimizer.step()

    return steps


def normbench_loop(
    model: nn.Module,
    task: Task,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
    log_every: int,
) -> Callable[[int], None]:
    batches = loop.micro_batches(task.splits["train"], 0, batch_size, 1)

    def steps(count: int) -> None:
        loop.fit(
            model,
            task.loss,
            optimizer,
            steps=count,
            micro_batches=batches,
            learning_rate=loop.warmup_cosine(1e-3, count, 0.1),
            clip=None,
            log_every=log_every,
            log=lambda step, loss, lr: None,
            evaluate_at=frozenset(),
            evaluate=lambda step: None,
        )

    return steps


def timed(steps: Callable[[int], None], count: int, device: torch.device) -> float:
    """Seconds of one of `count` steps, until `device` has finished all of them."""
    synchronize(device)
    began = time.perf_counter()
    steps(count)
    synchronize(device)
    return (time.perf_counter() - began) / count


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def measure(
    task_name: str, batch_size: int, rounds: int, device: torch.device
) -> dict[str, Any]:
    config = compose(
        [f"task={task_name}", f"norm={NORM[task_name]}", f"batch_size={batch_size}"]
    )
    task = make_task(config, device)

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        undecayed = [p for p in model.parameters() if p.dim() == 1]
        made = loop.make_optimizer(model, undecayed, **config.optimizer.model_dump())
        for group in made.param_groups:
            group["lr"] = 1e-3
        return made

    same_order = loop.epoch_order(task.splits["train"], seed=0, epoch=0)
    torch.manual_seed(0)
    bare_model = task.build(bare_norm(task_name)).to(device)
    torch.manual_seed(0)
    model = build(config, task).model.to(device)
    bare = bare_loop(bare_model, task, optimizer(bare_model), same_order, batch_size)
    # A run logs about 200 times; here every tenth step.
    ours = normbench_loop(model, task, optimizer(model), batch_size, log_every=10)
    for warm_up in (bare, ours):
        warm_up(3)
    most = len(task.splits["train"]) // batch_size
    count = min(most, max(2, round(BLOCK_SECONDS / timed(bare, 3, device))))
    ratios, times = [], []
    for turn in range(rounds):
        if turn % 2:
            mine, theirs = timed(ours, count, device), timed(bare, count, device)
        else:
            theirs, mine = timed(bare, count, device), timed(ours, count, device)
        ratios.append(mine / theirs)
        times.append(theirs)
    lower, median, upper = statistics.quantiles(ratios, n=4)
    return {
        "task": task_name,
        "norm": config.norm.name,
        "batch_size": batch_size,
        "bare_ms": round(1000 * statistics.median(times), 2),
        "ratio": round(median, 3),
        "quartiles": [round(lower, 3), round(upper, 3)],
        "blocks": rounds,
        "steps_per_block": count,
    }
