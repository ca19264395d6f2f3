"""A bare training step as one CUDA graph, against the same step launched by Python."""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from _steps import NORM, bare_norm, timed
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.config.composition import compose
from normbench.tasks.base import Task
from normbench.training.network import make_task

WARM_UP = 3
STEPS = 10
"""Steps of a block, whose time is measured."""


def against_eager(
    task_name: str, batch_size: int, rounds: int, device: torch.device
) -> dict[str, float]:
    """Train twice on one batch, in blocks that alternate; compare times and losses.

    Returns "ratio", the median over `rounds` of time with the graph / time without it,
    and "loss", the relative difference of their last losses.
    """
    norm = NORM[task_name]
    words = [f"task={task_name}", f"norm={norm}", f"batch_size={batch_size}"]
    task = make_task(compose(words), device)
    loss = loss_of_one_batch(task, task.splits["train"][:batch_size], device)
    eager, graph = Step(task, loss, device), Step(task, loss, device)
    for _ in range(WARM_UP):
        eager()
    replay = captured(graph)
    ratios = []
    for _ in range(rounds):
        without = timed(lambda count: repeat(eager, count), STEPS, device)
        ratios.append(
            timed(lambda count: repeat(replay, count), STEPS, device) / without
        )
    expected, computed = eager.last_loss.item(), graph.last_loss.item()
    return {
        "ratio": statistics.median(ratios),
        "loss": abs(computed - expected) / abs(expected),
    }


def loss_of_one_batch(
    task: Any, index: Tensor, device: torch.device
) -> Callable[[nn.Module], Tensor]:
    """Return the loss of the batch `index`, whose tensors keep their addresses.

    A graph reads its inputs from these addresses. `Task.loss` copies the index from the
    CPU, which a graph cannot do.
    """
    inputs, on_device = task.inputs(index), index.to(device)
    if task.name == "style":
        return partial(task.loss, index=on_device)
    labels: Tensor = task.labels[on_device]
    return lambda model: F.cross_entropy(model(*inputs), labels)


class Step:
    """A training step of a new network with torch's norms and SGD with momentum."""

    def __init__(
        self, task: Task, loss: Callable[[nn.Module], Tensor], device: torch.device
    ) -> None:
        torch.manual_seed(0)
        self.model = task.build(bare_norm(task.name)).to(device).train()
        self.loss = loss
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=1e-3, momentum=0.9, fused=True
        )

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.model)
        loss.backward()
        self.optimizer.step()
        self.last_loss = loss.detach()


def captured(step: Step) -> Callable[[], None]:
    """Take WARM_UP steps, then capture `step`; return what replays it.

    The capture itself takes no step. As torch's notes on CUDA graphs ask, the warm-up
    is on a side stream, so that no part of autograd remembers the default stream, and
    the gradients are None before the capture, so that the graph allocates its own.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    step.optimizer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def repeat(step: Callable[[], None], count: int) -> None:
    for _ in range(count):
        step()
