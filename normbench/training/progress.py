"""What is known of a run while it goes on, and the record that is made of it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from normbench.config.identity import run_id
from normbench.config.rates import peak_lr
from normbench.config.schema import Environment, RunConfig, RunRecord, Seconds, Status
from normbench.records.store import RunWriter
from normbench.records.tracking import NoTracker, Tracker
from normbench.tasks.base import REGISTRY as TASKS
from normbench.training.checkpoint import State
from normbench.training.environment import environment
from normbench.training.observer import Observer, Silent


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Progress:
    """What a run has done so far, and where its rows go.

    Only the process that keeps the record has a `writer`. `identity` must be the same
    in both halves of a run that was interrupted.
    """

    config: RunConfig
    observer: Observer = field(default_factory=Silent)
    writer: RunWriter | None = None
    tracker: Tracker = field(default_factory=NoTracker)
    identity: Mapping[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)
    started: str = field(default_factory=_now)
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
    evaluation: float = 0.0
    earlier: Mapping[str, float] = field(default_factory=dict)
    run_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.run_id = run_id(self.config)

    def resume(self, state: State) -> None:
        """Count what was done up to `state` as done."""
        self.step, self.started = state.step, state.started
        self.earlier = state.seconds
        self.observer.note(f"going on from step {state.step}")

    def log(self, row: Mapping[str, Any]) -> None:
        """Add one row to the history, the tracker and the observer."""
        if self.writer is not None:
            self.writer.log(row)
        self.tracker.log(row)
        self.observer.log(row)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Count the time that passes inside as evaluation."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.evaluation += time.perf_counter() - began

    def begin_training(self) -> None:
        """Count all time until now as set-up."""
        self.setup = time.perf_counter() - self.began

    def diverge(self, step: int) -> None:
        """Set the status of a run whose loss at or after `step` is not finite."""
        self.step = self.diverged_at = step
        self.status = "diverged"
        primary = TASKS.get(self.config.task.name).primary_metric
        self.metrics = {f"test/{primary}": None}

    def seconds(self) -> Seconds:
        """The time until now; what is neither set-up nor evaluation is training.

        The seconds before an interruption count too, up to the last checkpoint.
        """
        total = time.perf_counter() - self.began
        setup = self.setup or total
        now = {
            "setup": setup,
            "train": total - setup - self.evaluation,
            "evaluate": self.evaluation,
        }
        return Seconds(**{k: self.earlier.get(k, 0.0) + now[k] for k in now})

    def record(self, ran_on: Environment) -> RunRecord:
        """The record of a run that has ended in any way."""
        config, seconds = self.config, self.seconds()
        task = TASKS.get(config.task.name)
        samples = self.step * config.batch_size
        return RunRecord(
            run_id=self.run_id,
            status=self.status,
            metrics=self.metrics,
            primary_metric=f"test/{task.primary_metric}",
            direction=task.direction,
            config=config,
            steps=self.step,
            samples=samples,
            parameters=self.parameters,
            peak_lr=peak_lr(config),
            diverged_at=self.diverged_at,
            error=self.error,
            probes=self.probes,
            facts=self.facts,
            data_notes=self.data_notes,
            seconds=seconds,
            samples_per_second=samples / seconds.train if samples else None,
            started=self.started,
            environment=ran_on,
        )


def failure(
    config: RunConfig, reason: str, modules: Sequence[str], processes: int = 1
) -> RunRecord:
    """The record of a run that did not end, made by a process that did not do it."""
    # The device by the name that was requested: it may be in another machine.
    ran_on = environment(config.device, modules, config, processes)
    return Progress(config, status="failed", error=reason).record(ran_on)
