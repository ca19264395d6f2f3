"""One run as it goes on: its network trained, told of, saved and evaluated."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normbench.config.rates import peak_lr
from normbench.config.schema import RunConfig
from normbench.config.titles import title
from normbench.norms.base import REGISTRY as NORMS
from normbench.probes.base import PROBES, Trained
from normbench.records.store import NoWriter, RunWriter, finite
from normbench.records.tracking import Tracker
from normbench.tasks.base import Task
from normbench.training import checkpoint, evaluation, loop
from normbench.training.distributed import World
from normbench.training.network import build
from normbench.training.observer import Observer
from normbench.training.outcome import SoFar
from normbench.training.replica import Replica


@dataclass(frozen=True)
class Outlets:
    """All who hear of a run: its record, its mirror, and whoever is looking on."""

    writer: RunWriter | NoWriter
    tracker: Tracker
    observer: Observer

    def log(self, row: Mapping[str, Any]) -> None:
        """Tell them one row of the history."""
        self.writer.log(row)
        self.tracker.log(row)
        self.observer.log(row)


class Run:
    """A network, its optimiser and its data, from the first step to the last metric.

    What comes of it is in `so_far`, whatever ends it.
    """

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        device: torch.device,
        world: World,
        outlets: Outlets,
        saver: checkpoint.Saver,
        so_far: SoFar,
    ) -> None:
        torch.manual_seed(config.seed)
        network = build(config, task, world.size)
        self.config, self.task, self.device = config, task, device
        self.world, self.outlets = world, outlets
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
        self.optimizer = loop.make_optimizer(
            self.model,
            [] if config.norm_weight_decay else network.norms.parameters(),
            **config.optimizer.model_dump(),
        )
        self.scaler = None
        if config.precision == "fp16":
            self.scaler = torch.amp.GradScaler(device.type)
            loop.begin_momentum(self.optimizer)
        self.replica = Replica(config, task, self.model, self.norms, device, world)
        steps = config.budget.epochs * (len(self.training) // config.batch_size)
        self.steps = min(steps, config.budget.max_steps or steps)
        order = (self.training, config.seed, config.batch_size, config.accumulate)
        self.micro_batches = loop.micro_batches(
            *order, task.batch_by, self.replica.begin_epoch
        )
        first_epoch = loop.micro_batches(*order, task.batch_by)
        steps_in_it = min(self.steps, len(self.training) // config.batch_size)
        so_far.data_notes = task.notes.lines()
        if world.first:
            task.notes.warn()
        so_far.facts = finite(
            task.facts(
                [b for step in range(1, steps_in_it + 1) for b in first_epoch(step)]
            )
        )

    def train(self) -> None:
        """All steps, from the beginning or from where an earlier process stopped."""
        config, steps = self.config, self.steps
        self.outlets.observer.start(title(config), steps)
        start, pending = self.saver.restore(
            self.model, self.optimizer, self.scaler, self.device, self.world.rank
        )
        self.so_far.training_begins()
        diverged_at = loop.fit(
            self.replica.model,
            self.replica.loss,
            self.optimizer,
            steps=steps,
            micro_batches=self.micro_batches,
            learning_rate=loop.warmup_cosine(peak_lr(config), steps, config.warmup),
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
            if NORMS.get(self.config.norm.name).differs_in_eval:
                order = self._in_batches()
                task.begin_epoch(0, order)
                metrics |= evaluation.evaluate_other_statistics(
                    task, model, self.norms, self.micro_batch, order
                )
            else:
                metrics |= evaluation.same_under_other_statistics(metrics)
            self.so_far.metrics = finite(metrics)
            self._tell(metrics)
            pictures = self.outlets.writer.pictures(
                {name: _image(x) for name, x in task.pictures(model).items()}
            )
            if pictures:
                self.outlets.tracker.pictures(self.so_far.step, pictures)
            if self.config.keep_weights:
                self.outlets.writer.weights(_safetensors(model))
            self.so_far.probes = finite(self._probe())

    def _in_batches(self) -> Tensor:
        """The training samples in an order whose batches are like those of training."""
        key = self.task.batch_by
        if key is None:
            return self.training  # the split itself is in random order
        size, seed = self.config.batch_size, self.config.seed
        return loop.epoch_order(self.training, seed, 0, size, key)

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
        self.outlets.log({"step": step, "samples": samples, "epoch": epoch, **row})

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
            history=self.outlets.writer.flushed_history(),
            started=self.so_far.started,
            seconds=self.so_far.seconds().model_dump(),
        )


def _evenly(steps: int, evaluations: int) -> frozenset[int]:
    """The steps of all evaluations but the last, which ends the run."""
    evaluations = min(evaluations, steps)
    at = {round(steps * i / evaluations) for i in range(1, evaluations)}
    return frozenset(at - {0, steps})


def _image(picture: Tensor) -> Image.Image:
    """A picture (3, H, W) in [0, 1], in eight bits."""
    pixels = picture.detach().cpu().clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def _safetensors(model: nn.Module) -> bytes:
    """The parameters and buffers of a network as a safetensors file."""
    state = model.state_dict()
    return save({name: tensor.contiguous() for name, tensor in state.items()})
