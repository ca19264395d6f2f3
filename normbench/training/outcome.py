"""What is known of a run while it goes on, and the record that is made of it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import torch

from normbench.config.identity import run_id
from normbench.config.rates import peak_lr
from normbench.config.schema import Environment, RunConfig, RunRecord, Seconds, Status
from normbench.data.base import REGISTRY as DATA
from normbench.tasks.base import REGISTRY as TASKS
from normbench.tasks.base import Task
from normbench.training import checkpoint
from normbench.training.distributed import World
from normbench.training.environment import environment


@dataclass
class SoFar:
    """What is known of a run while it goes on; its record is made of it at any end."""

    began: float = field(default_factory=time.perf_counter)
    started: str = field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds")
    )
    status: Status = "ok"
    metrics: dict[str, float | None] = field(default_factory=dict)
    probes: dict[str, float | None] = field(default_factory=dict)
    facts: dict[str, float | None] = field(default_factory=dict)
    data_notes: list[str] = field(default_factory=list)
    step: int = 0
    parameters: int = 0
    diverged_at: int | None = None
    error: str | None = None
    setup: float = 0.0
    evaluate: float = 0.0
    earlier: Seconds = field(
        default_factory=lambda: Seconds(setup=0.0, train=0.0, evaluate=0.0)
    )

    def resume(self, state: checkpoint.State) -> None:
        """Count what was done up to `state` as done."""
        self.step, self.started = state.step, state.started
        self.earlier = Seconds(**state.seconds)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Count what happens inside as evaluation."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.evaluate += time.perf_counter() - began

    def training_begins(self) -> None:
        """All until now was set-up."""
        self.setup = time.perf_counter() - self.began

    def diverge(self, step: int, task: Task) -> None:
        """The loss after, or of, `step` is not finite."""
        self.step = self.diverged_at = step
        self.status = "diverged"
        self.metrics = {f"test/{task.primary_metric}": None}

    def hear_of_others(self, world: World) -> None:
        """Why this process lost another, where that one could still say so."""
        for rank, reason in world.words("skipped").items():
            self.status, self.error = "skipped", f"process {rank}: {reason}"
        for rank, reason in world.words("failed").items():
            self.error = f"process {rank}: {reason}\n{self.error}"

    def seconds(self) -> Seconds:
        """Until now; what is neither set-up nor evaluation is training.

        Of a run that was interrupted, the seconds that led to its result.
        """
        total = time.perf_counter() - self.began
        setup = self.setup or total
        training = total - setup - self.evaluate
        return Seconds(
            setup=self.earlier.setup + setup,
            train=self.earlier.train + training,
            evaluate=self.earlier.evaluate + self.evaluate,
        )


def outcome(config: RunConfig, ran_on: Environment, so_far: SoFar) -> RunRecord:
    """The record of a run that has come to its end, whichever it is."""
    task = TASKS.get(config.task.name)
    samples = so_far.step * config.batch_size
    seconds = so_far.seconds()
    return RunRecord(
        run_id=run_id(config),
        status=so_far.status,
        metrics=so_far.metrics,
        primary_metric=f"test/{task.primary_metric}",
        direction=task.direction,
        config=config,
        steps=so_far.step,
        samples=samples,
        parameters=so_far.parameters,
        peak_lr=peak_lr(config),
        diverged_at=so_far.diverged_at,
        error=so_far.error,
        probes=so_far.probes,
        facts=so_far.facts,
        data_notes=so_far.data_notes,
        seconds=seconds,
        samples_per_second=samples / seconds.train if samples else None,
        started=so_far.started,
        environment=ran_on,
    )


def failure(
    config: RunConfig, reason: str, modules: Sequence[str], *, processes: int
) -> RunRecord:
    """The record of a run that did not end, written by a process that did not do it."""
    # Of the device only the name that was asked for: it may be another machine's.
    there = ran_on(config, config.device, modules, processes)
    return outcome(config, there, SoFar(status="failed", error=reason))


def ran_on(
    config: RunConfig,
    device: torch.device | str,
    modules: Sequence[str],
    processes: int,
) -> Environment:
    """What a run of `config` runs on, in this process or in several like it.

    `device` is the name of one where it may be another machine's.
    """
    ways = {"compiled": config.compile, "channels last": config.channels_last}
    return environment(
        device,
        modules,
        packages=DATA.get(config.data.name).packages,
        processes=processes,
        device_batch_size=config.batch_size // processes,
        how=[way for way, used in ways.items() if used],
    )
