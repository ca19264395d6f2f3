"""Train, save and evaluate the network of one run."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor
from torch.nn.parameter import is_lazy

from normbench.config.rates import peak_lr
from normbench.config.titles import title
from normbench.errors import Stopped
from normbench.probes.base import PROBES, Trained
from normbench.records.items import Items, packed, sorted_items
from normbench.records.store import RunWriter, finite
from normbench.tasks.base import Scores, Task
from normbench.training import checkpoint, loop
from normbench.training.decay import scale_invariant_rate
from normbench.training.evaluation import (
    HELD_OUT,
    Evaluator,
    by_split,
    same_under_other_statistics,
)
from normbench.training.network import build, norm_class, training_steps
from normbench.training.progress import Progress
from normbench.training.replica import Replica, Share
from normbench.training.weight_average import WeightAverage, averaged_metrics


class Trainer:
    """Trains and evaluates the network of one run. The results go to `progress`.

    `stop` is called after every step. If it returns True in any process of the run, the
    trainer saves the state and raises Stopped.
    """

    def __init__(
        self,
        task: Task,
        device: torch.device,
        progress: Progress,
        stop: Callable[[], bool],
        share: Share,
    ) -> None:
        config = progress.config
        torch.manual_seed(config.seed + config.init_offset)
        network = build(config, task, share.size)
        self.config, self.task, self.device = config, task, device
        self.progress, self.stop, self.share = progress, stop, share
        self.saved_step, self.warned = 0, False
        self.training_samples = task.splits["train"]
        self.evaluator = Evaluator(task, config)
        self.model = network.model.to(device)
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.norms = network.norms.modules
        if any(is_lazy(parameter) for parameter in self.model.parameters()):
            with torch.no_grad():  # a forward pass gives lazy parameters a shape
                first = self.training_samples[: self.evaluator.micro_batch]
                self.model.eval()(*task.inputs(first))
        progress.parameters = sum(p.numel() for p in self.model.parameters())
        self.optimizer = loop.make_optimizer(
            self.model,
            [] if config.norm_weight_decay else network.norms.parameters(),
            **config.optimizer.model_dump(),
        )
        self.average = None
        if config.ema is not None:
            self.average = WeightAverage(self.model, config.ema)
        self.scaler = None
        if config.precision == "fp16":
            self.scaler = torch.amp.GradScaler(device.type)
            loop.begin_momentum(self.optimizer)
        self.replica = Replica(config, task, self.model, self.norms, device, share)
        per_epoch = len(self.training_samples) // config.batch_size
        self.steps = training_steps(config, len(self.training_samples))
        self.micro_batches = self._make_micro_batches(self.replica.begin_epoch)
        progress.data_notes = task.notes.lines()
        if progress.writer is not None:  # only in the first process
            task.notes.warn()
        # These batches are only for `task.facts`, so they do not begin an epoch.
        batches_of_step = self._make_micro_batches()
        first_epoch = range(1, min(self.steps, per_epoch) + 1)
        progress.facts = finite(
            task.facts([x for step in first_epoch for x in batches_of_step(step)])
        )

    def _make_micro_batches(
        self, begin_epoch: Callable[[int, Tensor], None] | None = None
    ) -> Callable[[int], Sequence[Tensor]]:
        return loop.micro_batches(
            self.training_samples,
            self.config.seed,
            self.config.batch_size,
            self.config.accumulate,
            self.task.batch_by,
            begin_epoch,
            self.task.sort_within_batch,
        )

    def train(self, state: checkpoint.State | None) -> None:
        """Do all steps, or those after `state` if it is not None."""
        config, steps = self.config, self.steps
        rate = loop.warmup_cosine(peak_lr(config), steps, config.warmup)
        self.progress.observer.start(title(config), steps)
        start, pending = self._restore(state) if state else (0, [])
        self.progress.begin_training()
        diverged_at = loop.fit(
            self.replica.model,
            self.replica.loss,
            self.optimizer,
            steps=steps,
            micro_batches=self.micro_batches,
            learning_rate=rate,
            clip=config.clip,
            log_every=config.log_every or max(1, steps // 200),
            log=self._log_step,
            evaluate_at=_evaluation_steps(
                steps, config.evaluations or config.budget.epochs
            ),
            evaluate=self._evaluate_held_out,
            after_step=self._after_step,
            start=start,
            pending=pending,
            scaler=self.scaler,
            average=self.share.mean,
            scale_invariant_rate=scale_invariant_rate(config, rate, steps),
        )
        if diverged_at is not None:
            self.progress.diverge(diverged_at)

    def evaluate(self, writer: RunWriter) -> None:
        """Measure the trained network, and write its pictures and weights."""
        task, model, progress = self.task, self.model, self.progress
        with progress.evaluating():
            metrics: dict[str, float] = {}
            for split in self.evaluator.splits:
                first = not metrics
                scores = self.evaluator.scores(model, split)
                metrics |= by_split(split, scores)
                if first and not math.isfinite(metrics[f"{split}/loss"]):
                    progress.diverge(self.steps)  # the update of the last step diverged
                    return
                self._stop_between_evaluations()
            metrics |= self._other_statistics(metrics)
            if self.average is not None:
                samples = self.evaluator.to_recompute(self._order_like_training())
                metrics |= averaged_metrics(
                    self.average, self.evaluator, self.norms, samples, metrics
                )
            progress.metrics = finite(metrics)
            self._log(metrics)
            if scores.samples:  # of the test split, which is always the last
                writer.items(packed({progress.run_id: _items(scores)}))
            pictures = writer.pictures(
                {name: _image(x) for name, x in task.pictures(model).items()}
            )
            if pictures:
                progress.tracker.pictures(progress.step, pictures)
            if self.config.keep_weights:
                weights = model.state_dict()
                writer.weights(save({k: t.contiguous() for k, t in weights.items()}))
        with progress.probing():
            progress.probes = finite(self._probe())

    def _other_statistics(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return held-out metrics without running statistics; `metrics` have these."""
        if not norm_class(self.config).differs_in_eval:
            names = self.config.measured
            return same_under_other_statistics(metrics, names)
        samples = self.evaluator.to_recompute(self._order_like_training())
        return self.evaluator.other_statistics(self.model, self.norms, samples)

    def _order_like_training(self) -> Tensor:
        """Return the training samples in an order that gives batches as in training."""
        key = self.task.batch_by
        if key is None:
            return self.training_samples  # the split is in random order already
        size, seed = self.config.batch_size, self.config.seed
        within = self.task.sort_within_batch
        return loop.epoch_order(self.training_samples, seed, 0, size, key, within)

    def _probe(self) -> dict[str, float]:
        """Return the results of all probes of the config, each measured on a copy."""
        quantities: dict[str, float] = {}
        if not self.config.probes:
            return quantities
        steps = range(1, len(self.training_samples) // self.config.batch_size + 1)
        batches = [batch for step in steps for batch in self.micro_batches(step)]
        for name in self.config.probes:
            model, norms, optimizer = copy.deepcopy(
                (self.model, self.norms, self.optimizer)
            )
            for group in optimizer.param_groups:
                group["lr"] = peak_lr(self.config)
            norm_batch = self.config.norm_batch
            trained = Trained(self.task, model, norms, batches, norm_batch, optimizer)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.config.seed)
                measured = PROBES.get(name)(trained)
            quantities |= {f"{name}/{key}": value for key, value in measured.items()}
        return quantities

    def _log_step(self, step: int, loss: float, lr: float) -> None:
        self.progress.step = step
        self._log({"lr": lr, "train/batch_loss": loss})

    def _evaluate_held_out(self, step: int) -> None:
        if self.progress.writer is not None:  # only in the first process
            with self.progress.evaluating():
                self._log(self.evaluator.running(self.model, *HELD_OUT))

    def _log(self, row: Mapping[str, Any]) -> None:
        step = self.progress.step
        samples = step * self.config.batch_size
        epoch = samples / len(self.training_samples)
        self.progress.log({"step": step, "samples": samples, "epoch": epoch, **row})

    def _after_step(self, step: int, pending: Sequence[Tensor]) -> None:
        self.replica.average_statistics()
        if self.average is not None:
            self.average.update()
        stopping = self.share.any(self.stop())
        every = self.config.checkpoint.every
        if stopping or (every and (step == self.steps or step % every == 0)):
            self._save(step, pending)
        if stopping:
            self._raise_stopped(step)

    def _stop_between_evaluations(self) -> None:
        """Raise Stopped if requested and if the state after the last step is saved."""
        if self.saved_step == self.steps and self.stop():
            self._raise_stopped(self.steps)

    def _raise_stopped(self, step: int) -> None:
        start = f"step {self.saved_step}" if self.saved_step else "the beginning"
        raise Stopped(
            f"stopped after step {step}; the same command continues from {start}"
        )

    def _restore(self, state: checkpoint.State) -> tuple[int, list[Tensor]]:
        """Load `state`; return its step and the losses that are not logged yet."""
        self.model.load_state_dict(state.model)
        self.optimizer.load_state_dict(dict(state.optimizer))
        if self.scaler is not None:
            self.scaler.load_state_dict(dict(state.scaler))
        if self.average is not None:
            self.average.load(state.average)
        checkpoint.set_random_states(state.random[self.share.rank], self.device)
        self.saved_step = state.step
        return state.step, [loss.to(self.device) for loss in state.pending]

    def _save(self, step: int, pending: Sequence[Tensor]) -> None:
        """Write a checkpoint. If it cannot be written, warn once and continue."""
        random = self.share.gather(checkpoint.random_states(self.device))
        if pending:  # each process has only the losses of its share of the samples
            pending = [*self.share.mean(torch.stack([*pending])).cpu()]
        progress, writer = self.progress, self.progress.writer
        if writer is None:  # the first process writes for all processes
            return
        try:
            state = checkpoint.State(
                identity=progress.identity,
                step=step,
                model=self.model.state_dict(),
                optimizer=self.optimizer.state_dict(),
                random=random,
                pending=pending,
                scaler={} if self.scaler is None else self.scaler.state_dict(),
                average={} if self.average is None else self.average.state(),
                history=writer.flushed_history(),
                started=progress.started,
                seconds=progress.seconds().model_dump(),
            )
            checkpoint.save(writer.folder, state)
            self.saved_step = step
        except OSError as error:
            if not self.warned:
                progress.observer.warn(
                    f"no checkpoint can be written to {writer.folder} "
                    f"({error.strerror}); the run continues without checkpoints"
                )
            self.warned = True


def _evaluation_steps(steps: int, evaluations: int) -> frozenset[int]:
    """Return evenly spaced steps for all evaluations except the last.

    The last evaluation is that of the trained network, at the end of the run.
    """
    evaluations = min(evaluations, steps)
    spaced = {round(steps * i / evaluations) for i in range(1, evaluations)}
    return frozenset(spaced - {0, steps})


def _items(scores: Scores) -> Items:
    values = {name: value.cpu().numpy() for name, value in scores.samples.items()}
    return sorted_items(scores.index.numpy(), values)


def _image(picture: Tensor) -> Image.Image:
    """Convert a picture (3, H, W) in [0, 1] to an image with 8 bits per channel."""
    pixels = picture.detach().cpu().clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())
