"""What scripts/check_device measures on a device: numbers, waits, a sweep, a run."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from normbench.config.composition import compose
from normbench.config.schema import RunConfig
from normbench.training.experiment import never, prepare
from normbench.training.network import choose_device
from normbench.training.observer import Silent
from normbench.training.progress import Progress
from normbench.training.replica import Share
from normbench.training.trainer import Trainer

RECIPES = {
    "cnn": ["data.size=14", "task.stem_stride=2", "task.width=8", "lr=0.01"],
    "transformer": ["task.width=16", "task.depth=1", "lr=0.002"],
    "style": ["task.width=8", "task.blocks=1", "data.train_crops=10", "lr=0.002"],
}


class Losses(Silent):
    """An observer that keeps the logged losses."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def log(self, row: Mapping[str, Any]) -> None:
        self.values.append(row["train/batch_loss"])


def config_of(
    task: str, norm: str, device: torch.device, steps: int, *words: str
) -> RunConfig:
    """Return the config of a small run whose only evaluation is after the training."""
    fixed = ["batch_size=8", "lr_rule=none", f"budget.max_steps={steps}"]
    fixed += ["budget.epochs=100", "evaluations=1", "checkpoint.every=null"]
    fixed += ["tracker=none", f"device={device}"]
    return compose([f"task={task}", f"norm={norm}", *RECIPES[task], *fixed, *words])


def trained(config: RunConfig) -> tuple[Tensor, float]:
    """Train; return the gradient of the first step (float64, CPU) and the last loss."""
    device, task = prepare(config, choose_device(config.device))
    losses, gradients = Losses(), list[Tensor]()
    progress = Progress(config, losses)
    trainer = Trainer(task, device, progress, never, Share())
    scale = 1.0
    if trainer.scaler is not None:
        # With the default scale, the first steps are skipped; how many they are depends
        # on the device.
        scale = 64.0
        trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": scale})

    def keep(*_: object) -> None:
        if not gradients:
            values = [p.grad for p in trainer.model.parameters() if p.grad is not None]
            flat = [g.detach().cpu().double().flatten() for g in values]
            gradients.append(torch.cat(flat) / scale)

    trainer.optimizer.register_step_pre_hook(keep)
    trainer.train(None)
    if progress.status != "ok":
        raise RuntimeError(
            f"the loss on {device} is not finite at step {progress.step}"
        )
    return gradients[0], losses.values[-1]


@cache
def on_the_cpu(task: str, norm: str, steps: int) -> tuple[Tensor, float]:
    cpu = torch.device("cpu")
    return trained(config_of(task, norm, cpu, steps, "log_every=1"))


def numbers(
    task: str, norm: str, word: str, device: torch.device, steps: int
) -> dict[str, float]:
    gradient, loss = on_the_cpu(task, norm, steps)
    config = config_of(task, norm, device, steps, "log_every=1", word)
    other_gradient, other_loss = trained(config)
    return errors((gradient, loss), (other_gradient, other_loss))


def errors(
    expected: tuple[Tensor, float], computed: tuple[Tensor, float]
) -> dict[str, float]:
    """Return the relative errors of a gradient (in its norm) and of a loss."""
    gradient, loss = expected
    difference = (computed[0] - gradient).norm() / gradient.norm()
    return {
        "gradient": difference.item(),
        "loss": abs(computed[1] - loss) / abs(loss),
    }


def waits(task: str, norm: str, device: torch.device) -> dict[str, float]:
    """Train five steps; torch raises if a call of the third or fourth one waits.

    The first two steps may wait: they allocate memory and choose algorithms.
    """
    config = config_of(task, norm, device, 5, "log_every=5")
    _, data = prepare(config, device)
    steps = iter(range(1, 6))

    def after_step() -> bool:
        step = next(steps)
        if step == 2:
            torch.cuda.set_sync_debug_mode("error")
        if step == 4:
            require_waits_to_raise(device)
            torch.cuda.set_sync_debug_mode("default")
        return False

    progress = Progress(config)
    trainer = Trainer(data, device, progress, after_step, Share())
    try:
        trainer.train(None)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"steps": progress.step}


def require_waits_to_raise(device: torch.device) -> None:
    """Raise RuntimeError unless torch notices a call that waits, the control."""
    try:
        torch.ones(1, device=device).item()
    except RuntimeError:
        return
    raise RuntimeError("torch did not notice the call of the control, which waits")


def records(folder: Path, command: str, *words: str) -> list[dict[str, Any]]:
    """Return the records that `normbench COMMAND WORDS` prints as JSON."""
    options = ["tracker=none", "--json", f"--results={folder / 'results'}"]
    variables = {"OMP_NUM_THREADS": "1", "NORMBENCH_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "normbench", command, *words, *options],
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if not done.stdout.strip():
        lines = done.stderr.strip().splitlines() or ["no output"]
        raise RuntimeError(
            f"normbench {command} ended with {done.returncode}: {lines[-1]}"
        )
    printed = json.loads(done.stdout)
    return printed if isinstance(printed, list) else [printed]


def count_ok(done: Iterable[Mapping[str, Any]], device: torch.device) -> int:
    """Return the number of records. Raise if a run is not ok or not of `device`."""
    count = 0
    for record in done:
        ran_on = record["environment"]["device"]
        if record["status"] != "ok":
            lines = (record["error"] or "it has no error").strip().splitlines()
            raise RuntimeError(f"a run is {record['status']}: {lines[-1]}")
        if not ran_on.startswith(device.type):
            raise RuntimeError(f"a run was done on {ran_on}, not on {device}")
        count += 1
    return count


def sweep(device: torch.device, runs: int) -> dict[str, float]:
    words = ["task=cnn", *RECIPES["cnn"], "budget=smoke", f"seed=range(0,{runs})"]
    words += [f"device={device}", "engine=local", "engine.workers=2"]
    with tempfile.TemporaryDirectory() as folder:
        return {"runs": count_ok(records(Path(folder), "sweep", *words), device)}


def resnet(device: torch.device, steps: int, batch_size: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images", count=4 * batch_size)
        words = ["task=resnet20", "data=folder", f"data.path='{folder / 'images'}'"]
        words += ["data.size=32", f"batch_size={batch_size}", "evaluations=1"]
        words += ["budget.epochs=100", f"budget.max_steps={steps}"]
        done = records(folder, "train", *words, f"device={device}")
        count = count_ok(done, device)
        return {"runs": count, "samples/s": done[0]["samples_per_second"]}


def write_images(folder: Path, count: int) -> None:
    """Write `count` images of noise, 32x32 in colour, in ten classes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 32, 32, 3), generator=generator)
    for index, image in enumerate(pixels.byte().numpy()):
        path = folder / f"class{index % 10}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
