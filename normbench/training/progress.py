"""The progress of one run, from which its record is made."""

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
    """The state and results of a run so far, and the receivers of its log rows.

    writer     writes the run's files; None in all processes except the first
    identity   the run resumes only from a checkpoint with an equal identity
    start      time at which this process began the run, from `time.perf_counter`
    started    date and time (ISO 8601) at which the run was first started
    setup      seconds before training, 0 until training starts
    evaluation seconds of evaluations
    probe_time seconds of probes
    earlier    seconds before the checkpoint from which the run resumed
    """

    config: RunConfig
    observer: Observer = field(default_factory=Silent)
    writer: RunWriter | None = None
    tracker: Tracker = field(default_factory=NoTracker)
    identity: Mapping[str, Any] = field(default_factory=dict)
    start: float = field(default_factory=time.perf_counter)
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
    probe_time: float = 0.0
    earlier: Mapping[str, float] = field(default_factory=dict)
    run_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.run_id = run_id(self.config)

    def resume(self, state: State) -> None:
        """Continue the counts and times of `state`."""
        self.step, self.started = state.step, state.started
        self.earlier = state.seconds
        self.observer.note(f"resuming from step {state.step}")

    def log(self, row: Mapping[str, Any]) -> None:
        """Send one row to the history file, the tracker and the observer."""
        if self.writer is not None:
            self.writer.log(row)
        self.tracker.log(row)
        self.observer.log(row)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Count the time spent in this context as evaluation."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.evaluation += time.perf_counter() - start

    @contextmanager
    def probing(self) -> Iterator[None]:
        """Count the time spent in this context as that of the probes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.probe_time += time.perf_counter() - start

    def begin_training(self) -> None:
        """Count the time until now as set-up."""
        self.setup = time.perf_counter() - self.start

    def diverge(self, step: int) -> None:
        """Set the status to "diverged" at `step`."""
        self.step = self.diverged_at = step
        self.status = "diverged"
        primary = TASKS.get(self.config.task.name).primary_metric
        self.metrics = {f"test/{primary}": None}

    def seconds(self) -> Seconds:
        """Return the time spent until now.

        Training is the time that no other part takes. If the run resumed from a
        checkpoint, the times up to the checkpoint are included.
        """
        total = time.perf_counter() - self.start
        setup = self.setup or total
        train = total - setup - self.evaluation - self.probe_time
        return Seconds(
            setup=self.earlier.get("setup", 0.0) + setup,
            train=self.earlier.get("train", 0.0) + train,
            evaluate=self.earlier.get("evaluate", 0.0) + self.evaluation,
            probes=self.earlier.get("probes", 0.0) + self.probe_time,
        )

    def record(self, ran_on: Environment) -> RunRecord:
        """Return the record of a run that has ended, with any status."""
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
    """Return the record of a failed run, made by a process that did not do the run."""
    # The record names the device as the config does. More cannot be said, because the
    # device may be in another machine.
    ran_on = environment(config.device, modules, config, processes)
    return Progress(config, status="failed", error=reason).record(ran_on)
