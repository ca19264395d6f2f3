"""One run: its network trained, evaluated, recorded and mirrored."""

import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normbench import checkpoint, evaluation, record, train
from normbench.config import run_id
from normbench.errors import Incompatible, Stopped
from normbench.network import build, check, choose_device, make_task
from normbench.norms.base import REGISTRY as NORMS
from normbench.progress import Observer, Silent
from normbench.provenance import comes_from_this_code, environment
from normbench.schema import (
    Environment,
    RunConfig,
    RunRecord,
    Seconds,
    Status,
)
from normbench.tasks.base import REGISTRY as TASKS
from normbench.tasks.base import Task
from normbench.tracking import Tracker, open_tracker


def run_one(
    config: RunConfig,
    results: Path,
    *,
    modules: Sequence[str] = (),
    observer: Observer | None = None,
    redo_stale: bool = False,
    stop: Callable[[], bool] | None = None,
) -> RunRecord:
    """The record of the run that `config` asks for: found, or trained and evaluated.

    A finished run is not done again, nor one that another process has finished just
    now; with `redo_stale`, one from other code is. A run that was interrupted goes on
    from its last checkpoint. `modules` are the user's own, already imported.

    `stop` is asked after every step; once it says so, the run is saved and Stopped is
    raised. Raises RequestError (Busy where another process is doing the run,
    Incompatible where the norm cannot work in the network) before anything is written;
    what goes wrong after that is a record with the status "diverged", "skipped" or
    "failed".
    """
    if finished := _found(config, results, modules, redo_stale):
        return finished
    so_far = _SoFar()
    observer = observer or Silent()
    torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    ran_on = environment(device, modules)
    task = make_task(config, device)
    check(config, task)
    with record.RunWriter(results, run_id(config)) as writer:
        if finished := _found(config, results, modules, redo_stale):
            return finished  # another process did it since
        identity = _identity(config, ran_on)
        state = checkpoint.latest(writer.folder, identity, observer.warn)
        writer.begin(config, resume_at=state.history if state else None)
        if state:
            so_far.resume(state)
            observer.note(f"going on from step {state.step}")
        tracker = open_tracker(
            config,
            run_id(config),
            results,
            resumed=state is not None,
            note=observer.note,
            warn=observer.warn,
        )
        saving = _Saving(
            *(identity, state, config.checkpoint.every, stop or (lambda: False)),
            *(writer, observer.warn),
        )
        try:
            _train_and_evaluate(
                config, task, device, writer, tracker, observer, so_far, saving
            )
        except Stopped:
            tracker.finish({}, ok=False)
            raise
        except Incompatible as reason:  # some norms only find out on a certain batch
            so_far.status, so_far.error = "skipped", str(reason)
        except Exception:
            so_far.status, so_far.error = "failed", traceback.format_exc()
        finally:
            observer.close()
        finished = _outcome(config, ran_on, so_far)
        try:
            writer.finish(finished)
        finally:
            tracker.finish(finished.metrics, ok=finished.status == "ok")
    return finished


def _found(
    config: RunConfig, results: Path, modules: Sequence[str], redo_stale: bool
) -> RunRecord | None:
    """The record of this run, where it needs not be done."""
    folder = record.run_folder(results, run_id(config))
    there = record.read(folder)
    if there is None or not record.satisfies(folder, there, config):
        return None
    fresh = not redo_stale or comes_from_this_code(there.environment, modules)
    return there if fresh else None


def record_failure(
    config: RunConfig,
    results: Path,
    reason: str,
    *,
    modules: Sequence[str] = (),
    redo_stale: bool = False,
) -> RunRecord:
    """Record, from outside, that the process of a run could not end it.

    Its history and checkpoints stay. Where the run is finished after all, that record
    stands and is returned: its process died, or was stuck, after writing it. Raises
    Busy where a process is doing the run, NormbenchError where the record cannot be
    written.
    """
    so_far = _SoFar(status="failed", error=reason)
    ran_on = environment(choose_device(config.device), modules)
    with record.RunWriter(results, run_id(config)) as writer:
        if there := _found(config, results, modules, redo_stale):
            return there
        finished = _outcome(config, ran_on, so_far)
        writer.finish(finished)
    return finished


@dataclass
class _SoFar:
    """What is known of a run while it goes on; its record is made of it at any end."""

    began: float = field(default_factory=time.perf_counter)
    started: str = field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds")
    )
    status: Status = "ok"
    metrics: dict[str, float | None] = field(default_factory=dict)
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

    def diverge(self, step: int, task: Task) -> None:
        """The loss after, or of, `step` is not finite."""
        self.step = self.diverged_at = step
        self.status = "diverged"
        self.metrics = {f"test/{task.primary_metric}": None}

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


def _identity(config: RunConfig, ran_on: Environment) -> dict[str, Any]:
    """What must not change between the two halves of a run, nor of its history."""
    return {
        "source": ran_on.source_hash,
        "modules": ran_on.modules,
        "torch": str(torch.__version__),
        "device": ran_on.device,
        "threads": ran_on.threads,
        "evaluations": config.evaluations,
        "log_every": config.log_every,
    }


@dataclass
class _Saving:
    """What a run goes on from, and when it leaves that for the next process."""

    identity: Mapping[str, Any]
    state: checkpoint.State | None
    every: int | None
    stop: Callable[[], bool]
    writer: record.RunWriter
    warn: Callable[[str], None]
    saved: int = 0
    warned: bool = False

    def restore(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
    ) -> tuple[int, list[Tensor]]:
        """Set all to the state there is; the steps done, and their losses not told."""
        if self.state is None:
            return 0, []
        model.load_state_dict(self.state.model)
        optimizer.load_state_dict(dict(self.state.optimizer))
        checkpoint.set_random_states(self.state.random, device)
        self.saved = self.state.step
        return self.state.step, [loss.to(device) for loss in self.state.pending]

    def after_step(
        self, step: int, last: bool, state: Callable[[], checkpoint.State]
    ) -> None:
        """Save `state()` where it is time to; raise Stopped where told to stop."""
        stopping = self.stop()
        if stopping or (self.every and (last or step % self.every == 0)):
            try:
                checkpoint.save(self.writer.folder, state())
                self.saved = step
            except OSError as error:
                if not self.warned:
                    self.warn(
                        f"no checkpoint can be written to {self.writer.folder} "
                        f"({error.strerror}); the run goes on without"
                    )
                self.warned = True
        if stopping:
            self._raise_stopped(step)

    def between_evaluations(self, steps: int) -> None:
        """Raise Stopped where told to stop and all steps are saved."""
        if self.saved == steps and self.stop():
            self._raise_stopped(steps)

    def _raise_stopped(self, step: int) -> None:
        where = f"goes on from step {self.saved}" if self.saved else "starts it again"
        raise Stopped(f"stopped after step {step}; the same command {where}")


def _train_and_evaluate(
    config: RunConfig,
    task: Task,
    device: torch.device,
    writer: record.RunWriter,
    tracker: Tracker,
    observer: Observer,
    so_far: _SoFar,
    saving: _Saving,
) -> None:
    torch.manual_seed(config.seed)
    network = build(config, task)
    model = network.model.to(device)
    micro_batch = config.batch_size // config.accumulate
    training = task.splits["train"]
    if any(is_lazy(parameter) for parameter in model.parameters()):
        with torch.no_grad():
            model.eval()(*task.inputs(training[:micro_batch]))
    so_far.parameters = sum(parameter.numel() for parameter in model.parameters())
    steps = config.budget.epochs * (len(training) // config.batch_size)
    steps = min(steps, config.budget.max_steps or steps)
    optimizer = train.make_optimizer(
        model,
        [] if config.norm_weight_decay else network.norms.parameters(),
        **config.optimizer.model_dump(),
    )

    def tell(row: Mapping[str, Any]) -> None:
        samples = so_far.step * config.batch_size
        counts = {"step": so_far.step, "samples": samples}
        row = {**counts, "epoch": samples / len(training), **row}
        writer.log(row)
        tracker.log(row)
        observer.log(row)

    def log(step: int, loss: float, lr: float) -> None:
        so_far.step = step
        tell({"lr": lr, "train/batch_loss": loss})

    at_a_time = evaluation.batch_size(task, micro_batch)

    def evaluate(step: int) -> None:
        with so_far.evaluating():
            tell(evaluation.evaluate(task, model, evaluation.HELD_OUT, at_a_time))

    observer.start(f"{task.name} {config.norm['name']} b{config.batch_size}", steps)

    def after_step(step: int, pending: Sequence[Tensor]) -> None:
        def state() -> checkpoint.State:
            return checkpoint.State(
                identity=saving.identity,
                step=step,
                model=model.state_dict(),
                optimizer=optimizer.state_dict(),
                random=checkpoint.random_states(device),
                pending=pending,
                history=writer.flushed_history(),
                started=so_far.started,
                seconds=so_far.seconds().model_dump(),
            )

        saving.after_step(step, step == steps, state)

    start, pending = saving.restore(model, optimizer, device)
    so_far.setup = time.perf_counter() - so_far.began
    diverged_at = train.fit(
        model,
        task.loss,
        optimizer,
        steps=steps,
        micro_batches=train.micro_batches(
            training, config.seed, config.batch_size, config.accumulate
        ),
        learning_rate=train.warmup_cosine(_peak_lr(config), steps, config.warmup),
        clip=config.clip,
        log_every=config.log_every or max(1, steps // 200),
        log=log,
        evaluate_at=_evenly(steps, config.evaluations or config.budget.epochs),
        evaluate=evaluate,
        after_step=after_step,
        start=start,
        pending=pending,
    )
    if diverged_at is not None:
        so_far.diverge(diverged_at, task)
        return

    with so_far.evaluating():
        metrics = evaluation.evaluate(task, model, ("train",), at_a_time)
        if not math.isfinite(metrics["train/loss"]):
            so_far.diverge(steps, task)  # the last step did it: no loss came after
            return
        saving.between_evaluations(steps)
        metrics |= evaluation.evaluate(task, model, evaluation.HELD_OUT, at_a_time)
        saving.between_evaluations(steps)
        if NORMS.get(config.norm["name"]).differs_in_eval:
            metrics |= evaluation.evaluate_other_statistics(
                task, model, network.norms.modules, micro_batch
            )
        else:
            metrics |= evaluation.same_under_other_statistics(metrics)
        so_far.metrics = record.finite(metrics)
        tell(metrics)
        pictures = writer.pictures(task.pictures(model))
        if pictures:
            tracker.pictures(so_far.step, pictures)
        if config.keep_weights:
            writer.weights(model.state_dict())


def _evenly(steps: int, evaluations: int) -> frozenset[int]:
    """The steps of all evaluations but the last, which ends the run."""
    evaluations = min(evaluations, steps)
    at = {round(steps * i / evaluations) for i in range(1, evaluations)}
    return frozenset(at - {0, steps})


def _peak_lr(config: RunConfig) -> float:
    return train.peak_learning_rate(
        config.lr, config.lr_rule, config.batch_size, config.lr_reference_batch_size
    )


def _outcome(config: RunConfig, ran_on: Environment, so_far: _SoFar) -> RunRecord:
    task = TASKS.get(config.task["name"])
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
        peak_lr=_peak_lr(config),
        diverged_at=so_far.diverged_at,
        error=so_far.error,
        seconds=seconds,
        samples_per_second=samples / seconds.train if samples else None,
        started=so_far.started,
        environment=ran_on,
    )
