"""One run: its network trained, evaluated, recorded and mirrored."""

import copy
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from normbench import checkpoint, evaluation, record, train
from normbench.config import run_id
from normbench.errors import Busy, Incompatible, NormbenchError, Stopped
from normbench.network import (
    build,
    check,
    choose_device,
    make_task,
    require_compiler,
)
from normbench.norms.base import REGISTRY as NORMS
from normbench.parallel import World, lost_another
from normbench.probes.trained import PROBES, Trained
from normbench.progress import Observer, Silent, title
from normbench.provenance import comes_from_this_code, environment
from normbench.replica import Replica, require_equal_shares
from normbench.schema import (
    Environment,
    RunConfig,
    RunRecord,
    Seconds,
    Status,
)
from normbench.tasks.base import REGISTRY as TASKS
from normbench.tasks.base import Task
from normbench.tracking import NoTracker, Tracker, open_tracker

ALONE = World()


def run_one(
    config: RunConfig,
    results: Path,
    *,
    modules: Sequence[str] = (),
    observer: Observer | None = None,
    redo_stale: bool = False,
    stop: Callable[[], bool] | None = None,
    world: World = ALONE,
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

    The processes of a `world` do it together. The first one does what is said here of
    files; where it dies, one that is left records the failure. Where another fails, it
    raises NormbenchError, and the first one records why.
    """
    if finished := world.from_first(
        lambda: _found(config, results, modules, redo_stale)
    ):
        return finished
    so_far = _SoFar()
    observer = observer or Silent()
    torch.set_num_threads(config.threads)

    def prepare() -> tuple[torch.device, Task]:
        device = world.device(choose_device(config.device))
        require_equal_shares(config, world.size)
        if config.compile:
            require_compiler(device)
        task = make_task(config, device)
        check(config, task)
        return device, task

    device, task = world.together(prepare)
    ran_on = _environment(config, device, modules, world.size)
    identity = _identity(config, ran_on)
    with ExitStack() as stack:
        writers: list[record.RunWriter] = []

        def begin() -> RunRecord | checkpoint.State | None:
            writer = stack.enter_context(record.RunWriter(results, run_id(config)))
            if finished := _found(config, results, modules, redo_stale):
                return finished  # another process did it since
            state = checkpoint.latest(writer.folder, identity, observer.warn)
            writer.begin(config, resume_at=state.history if state else None)
            writers.append(writer)
            return state

        begun = world.from_first(begin)
        if isinstance(begun, RunRecord):
            return begun
        if begun:
            so_far.resume(begun)
            observer.note(f"going on from step {begun.step}")
        tracker: Tracker = NoTracker()
        if world.first:
            tracker = open_tracker(
                config,
                run_id(config),
                results,
                resumed=begun is not None,
                note=observer.note,
                warn=observer.warn,
            )
        saver = checkpoint.Saver(
            writers[0].folder if writers else None,
            identity,
            begun,
            every=config.checkpoint.every,
            stop=stop or (lambda: False),
            agree=world.any,
            warn=observer.warn,
        )

        def finish() -> RunRecord:
            finished = _outcome(config, ran_on, so_far)
            try:
                writers[0].finish(finished)
            finally:
                tracker.finish(finished.metrics, ok=finished.status == "ok")
            return finished

        try:
            writer = writers[0] if writers else record.NoWriter()
            outlets = writer, tracker, observer
            run = _Run(config, task, device, world, outlets, saver, so_far)
            run.train()
            if so_far.status == "ok":
                world.from_first(run.evaluate)
        except Stopped:
            tracker.finish({}, ok=False)
            raise
        except Incompatible as reason:  # some norms only find out on a certain batch
            so_far.status, so_far.error = "skipped", str(reason)
        except Exception as error:  # whatever it was, the record tells it
            so_far.status, so_far.error = "failed", traceback.format_exc()
            if world.first and lost_another(error):
                so_far.hear_of_others(world)
        finally:
            observer.close()
        if so_far.status in {"ok", "diverged"}:
            return world.from_first(finish)
        if not world.first:
            _leave(config, results, modules, so_far, world)
        finished = finish()
        # Before the lock goes: another asks under it (`_leave`).
        world.leave_word("recorded", finished.status)
    return finished


def _leave(
    config: RunConfig,
    results: Path,
    modules: Sequence[str],
    so_far: "_SoFar",
    world: World,
) -> NoReturn:
    """End a process that is not the first; the others lose it, and hear why.

    The first one records the run, unless it is what was lost.
    """
    world.leave_word(so_far.status, str(so_far.error))
    reason = f"process {world.rank} of {world.size} lost the first: {so_far.error}"
    failure = _failure(config, reason, modules, processes=world.size)
    with suppress(Busy), record.RunWriter(results, run_id(config)) as writer:
        # Asked under the lock, which the first one holds until it has left that word.
        recorded = world.words("recorded") or _found(config, results, modules, False)
        if not recorded:
            writer.finish(failure)
    last = str(so_far.error).strip().splitlines()[-1]
    raise NormbenchError(
        f"process {world.rank} of {world.size} {so_far.status}: {last}"
    )


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
    failure = _failure(config, reason, modules, processes=1)
    with record.RunWriter(results, run_id(config)) as writer:
        if there := _found(config, results, modules, redo_stale):
            return there
        writer.finish(failure)
    return failure


def _failure(
    config: RunConfig, reason: str, modules: Sequence[str], *, processes: int
) -> RunRecord:
    """The record of a run that did not end, written by a process that did not do it."""
    # Of the device only the name that was asked for: it may be another machine's.
    ran_on = _environment(config, config.device, modules, processes)
    return _outcome(config, ran_on, _SoFar(status="failed", error=reason))


@dataclass
class _SoFar:
    """What is known of a run while it goes on; its record is made of it at any end."""

    began: float = field(default_factory=time.perf_counter)
    started: str = field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds")
    )
    status: Status = "ok"
    metrics: dict[str, float | None] = field(default_factory=dict)
    probes: dict[str, float | None] = field(default_factory=dict)
    facts: dict[str, float | None] = field(default_factory=dict)
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


def _environment(
    config: RunConfig,
    device: torch.device | str,
    modules: Sequence[str],
    processes: int,
) -> Environment:
    ways = {"compiled": config.compile, "channels last": config.channels_last}
    return environment(
        device,
        modules,
        processes=processes,
        device_batch_size=config.batch_size // processes,
        how=[way for way, used in ways.items() if used],
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


class _Run:
    """A network, its optimiser and its data, and all who hear of its training."""

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        device: torch.device,
        world: World,
        outlets: tuple[record.RunWriter | record.NoWriter, Tracker, Observer],
        saver: checkpoint.Saver,
        so_far: _SoFar,
    ) -> None:
        torch.manual_seed(config.seed)
        network = build(config, task, world.size)
        self.config, self.task, self.device = config, task, device
        self.world = world
        self.writer, self.tracker, self.observer = outlets
        self.saver, self.so_far = saver, so_far
        self.training = task.splits["train"]
        self.micro_batch = config.batch_size // config.accumulate
        self.at_a_time = evaluation.batch_size(task, self.micro_batch)
        self.model = network.model.to(device)
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.norms = network.norms.modules
        if any(is_lazy(parameter) for parameter in self.model.parameters()):
            with torch.no_grad():
                self.model.eval()(*task.inputs(self.training[: self.micro_batch]))
        so_far.parameters = sum(p.numel() for p in self.model.parameters())
        self.optimizer = train.make_optimizer(
            self.model,
            [] if config.norm_weight_decay else network.norms.parameters(),
            **config.optimizer.model_dump(),
        )
        self.scaler = None
        if config.precision == "fp16":
            self.scaler = torch.amp.GradScaler(device.type)
            train.begin_momentum(self.optimizer)
        self.replica = Replica(config, task, self.model, self.norms, device, world)
        steps = config.budget.epochs * (len(self.training) // config.batch_size)
        self.steps = min(steps, config.budget.max_steps or steps)
        order = (self.training, config.seed, config.batch_size, config.accumulate)
        self.micro_batches = train.micro_batches(
            *order, task.batch_by, self.replica.begin_epoch
        )
        first_epoch = train.micro_batches(*order, task.batch_by)
        steps_in_it = min(self.steps, len(self.training) // config.batch_size)
        so_far.facts = record.finite(
            task.facts(
                [b for step in range(1, steps_in_it + 1) for b in first_epoch(step)]
            )
        )

    def train(self) -> None:
        """All steps, from the beginning or from where an earlier process stopped."""
        config, steps = self.config, self.steps
        self.observer.start(title(config), steps)
        start, pending = self.saver.restore(
            *(self.model, self.optimizer, self.scaler, self.device, self.world.rank)
        )
        self.so_far.training_begins()
        diverged_at = train.fit(
            self.replica.model,
            self.replica.loss,
            self.optimizer,
            steps=steps,
            micro_batches=self.micro_batches,
            learning_rate=train.warmup_cosine(_peak_lr(config), steps, config.warmup),
            clip=config.clip,
            log_every=config.log_every or max(1, steps // 200),
            log=self._log,
            evaluate_at=_evenly(steps, config.evaluations or config.budget.epochs),
            evaluate=self._evaluate_held_out,
            after_step=self._after_step,
            start=start,
            pending=pending,
            scaler=self.scaler,
            average=self.world.mean,
        )
        if diverged_at is not None:
            self.so_far.diverge(diverged_at, self.task)

    def evaluate(self) -> None:
        """The metrics of the trained network, its pictures and its weights."""
        task, model = self.task, self.model
        with self.so_far.evaluating():
            metrics = evaluation.evaluate(task, model, ("train",), self.at_a_time)
            if not math.isfinite(metrics["train/loss"]):
                # The last step did it: no loss came after.
                self.so_far.diverge(self.steps, task)
                return
            self.saver.between_evaluations(self.steps)
            held_out = evaluation.HELD_OUT
            metrics |= evaluation.evaluate(task, model, held_out, self.at_a_time)
            self.saver.between_evaluations(self.steps)
            if NORMS.get(self.config.norm["name"]).differs_in_eval:
                order = self._in_batches()
                task.begin_epoch(0, order)
                metrics |= evaluation.evaluate_other_statistics(
                    task, model, self.norms, self.micro_batch, order
                )
            else:
                metrics |= evaluation.same_under_other_statistics(metrics)
            self.so_far.metrics = record.finite(metrics)
            self._tell(metrics)
            pictures = self.writer.pictures(task.pictures(model))
            if pictures:
                self.tracker.pictures(self.so_far.step, pictures)
            if self.config.keep_weights:
                self.writer.weights(model.state_dict())
            self.so_far.probes = record.finite(self._probe())

    def _in_batches(self) -> Tensor:
        """The training samples in an order whose batches are like those of training."""
        key = self.task.batch_by
        if key is None:
            return self.training  # the split itself is in random order
        size, seed = self.config.batch_size, self.config.seed
        return train.epoch_order(self.training, seed, 0, size, key)

    def _probe(self) -> dict[str, float]:
        """What the config's probes find, each on a copy: they change nothing."""
        found: dict[str, float] = {}
        if not self.config.probes:
            return found
        epoch = range(1, len(self.training) // self.config.batch_size + 1)
        batches = [batch for step in epoch for batch in self.micro_batches(step)]
        for name in self.config.probes:
            model, norms = copy.deepcopy((self.model, self.norms))
            trained = Trained(self.task, model, norms, batches, self.config.norm_batch)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.config.seed)
                quantities = PROBES.get(name)(trained)
            found |= {f"{name}/{key}": value for key, value in quantities.items()}
        return found

    def _log(self, step: int, loss: float, lr: float) -> None:
        self.so_far.step = step
        self._tell({"lr": lr, "train/batch_loss": loss})

    def _evaluate_held_out(self, step: int) -> None:
        if not self.world.first:
            return
        with self.so_far.evaluating():
            held_out = evaluation.HELD_OUT
            self._tell(
                evaluation.evaluate(self.task, self.model, held_out, self.at_a_time)
            )

    def _tell(self, row: Mapping[str, Any]) -> None:
        step = self.so_far.step
        samples = step * self.config.batch_size
        epoch = samples / len(self.training)
        row = {"step": step, "samples": samples, "epoch": epoch, **row}
        self.writer.log(row)
        self.tracker.log(row)
        self.observer.log(row)

    def _after_step(self, step: int, pending: Sequence[Tensor]) -> None:
        self.replica.agree_on_statistics()
        self.saver.after_step(
            step, step == self.steps, lambda: self._state(step, pending)
        )

    def _state(self, step: int, pending: Sequence[Tensor]) -> checkpoint.State:
        if pending:  # each process has the losses of its own share
            pending = self.world.mean(torch.stack([*pending])).unbind()
        return checkpoint.State(
            identity=self.saver.identity,
            step=step,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            random=self.world.each(checkpoint.random_states(self.device)),
            pending=pending,
            scaler={} if self.scaler is None else self.scaler.state_dict(),
            history=self.writer.flushed_history(),
            started=self.so_far.started,
            seconds=self.so_far.seconds().model_dump(),
        )


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
        probes=so_far.probes,
        facts=so_far.facts,
        seconds=seconds,
        samples_per_second=samples / seconds.train if samples else None,
        started=so_far.started,
        environment=ran_on,
    )
