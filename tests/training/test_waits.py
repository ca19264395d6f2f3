"""No training step waits for the device.

Tensors on the meta device have no values. So a step that works on the meta device reads
no value from the device, and no shape depends on such a value.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import pytest
import torch
from conftest import SMALL
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from normbench.claims.theorems.networks import with_norm
from normbench.config.composition import compose
from normbench.errors import Incompatible
from normbench.norms import names
from normbench.tasks.base import Task
from normbench.training import loop, network

CPU, META = torch.device("cpu"), torch.device("meta")


class _Copies(TorchDispatchMode):
    """Counts copies to the device, blocking copies, and reads of values."""

    def __init__(self) -> None:
        super().__init__()
        self.to_device = self.blocking = self.reads = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name in {"_to_copy", "copy_"}:
            source = args[1] if name == "copy_" else args[0]
            if source.device != result.device:
                assert result.device == META, "a copy from the device"
                self.to_device += 1
                non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking")
                self.blocking += not non_blocking
        tensors = [a for a in args if isinstance(a, Tensor) and a.device == META]
        if tensors and name in {"_local_scalar_dense", "nonzero", "masked_select"}:
            self.reads += 1
        return result


class _TwoStepsDone(Exception):
    pass


@cache
def task_on_both(task: str) -> tuple[Task, Task]:
    """The task on the CPU and on the meta device; it is the same for all norms."""
    config = compose(SMALL[task])
    on_cpu: Any = network.make_task(config, CPU)
    on_device: Any = network.make_task(config, META)
    if task == "style":
        targets: dict[str, Tensor] = on_cpu._targets
        on_device.__dict__["_targets"] = {k: t.to(META) for k, t in targets.items()}
    return on_cpu, on_device


def train_on_meta(
    task: str, name: str, wrap: Callable[[nn.Module], nn.Module] = lambda model: model
) -> None:
    """Train two steps on the meta device; fail if a step would wait."""
    plain = compose([*SMALL[task], "batch_size=4", "norm_batch=2"])
    config = with_norm(plain, name)
    on_cpu, on_device = task_on_both(task)
    try:
        network.check(config, on_cpu)
    except Incompatible:
        return
    model = wrap(network.build(config, on_cpu).model)
    if any(is_lazy(parameter) for parameter in model.parameters()):
        model(*on_cpu.inputs(torch.arange(4)))
    model.to(META)
    copies = _Copies()
    per_step: list[int] = []

    def after_step(step: int, pending: Sequence[Tensor]) -> None:
        per_step.append(copies.to_device)
        if step == 2:
            raise _TwoStepsDone

    with copies, pytest.raises(_TwoStepsDone):
        loop.fit(
            model,
            on_device.loss,
            torch.optim.SGD(model.parameters(), lr=0.1, foreach=True),
            steps=10,
            micro_batches=loop.micro_batches(on_device.splits["train"], 0, 4, 1),
            learning_rate=lambda step: 0.1,
            clip=1.0,
            log_every=10,
            log=lambda *row: None,
            evaluate_at=frozenset(),
            evaluate=lambda step: None,
            after_step=after_step,
        )
    assert copies.reads == copies.blocking == 0, name
    assert 1 <= per_step[0] <= 3, name
    assert per_step == [per_step[0], 2 * per_step[0]], name


@pytest.mark.slow
@pytest.mark.parametrize("task", SMALL)
def test_no_step_waits_for_the_device(task: str) -> None:
    # Norms get nothing here that they do not get in style transfer.
    like_style = task in {"cnn", "module"}
    for name in ("batch", "group") if like_style else names():
        train_on_meta(task, name)


WAITS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda y: y.sum().item(),
    "if": lambda y: bool((y > 0).all()),
    "to the CPU": lambda y: y.cpu(),
    "a shape": lambda y: y[y > 0],
    "a copy": lambda y: y + torch.ones(y.shape[-1]).to(y.device),
}


def test_a_step_that_waits_is_noticed() -> None:
    """The test above fails for every kind of operation that waits."""

    class Waiting(nn.Module):
        def __init__(self, model: nn.Module, wait: Callable[[Tensor], object]) -> None:
            super().__init__()
            self.model, self.wait = model, wait

        def forward(self, *inputs: Tensor) -> Tensor:
            y: Tensor = self.model(*inputs)
            self.wait(y)
            return y

    train_on_meta("cnn", "batch")
    for name, wait in WAITS.items():
        waiting = partial(Waiting, wait=wait)
        try:
            train_on_meta("cnn", "batch", waiting)
        except (AssertionError, RuntimeError, NotImplementedError):
            continue
        pytest.fail(f"{name} is not noticed")
