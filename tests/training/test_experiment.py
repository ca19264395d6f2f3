"""One run, end to end: every task and norm, determinism, the three statistics."""

import json
import math
import weakref
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, Run

from normbench.config.choices import choices
from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.config.schema import RunConfig
from normbench.errors import RequestError
from normbench.records import store
from normbench.records.source import source_hash
from normbench.records.store import Results
from normbench.tasks.base import REGISTRY as TASKS
from normbench.tasks.base import Task
from normbench.training import experiment, network
from normbench.training.experiment import run_one

WAYS = ("", "_recomputed", "_batch")
ONE_STEP = ["budget.max_steps=1", "evaluations=1", "tracker=none"]


def groups(norm: str) -> list[str]:
    """The override that a norm needs in the small networks."""
    has_groups = "num_groups" in choices("norm")[norm].read_text()
    return ["norm.num_groups=4"] if has_groups else []


def composed(task: str, *overrides: str) -> RunConfig:
    return compose([*SMALL[task], *ONE_STEP, *overrides])


def made(config: RunConfig) -> tuple[Task, torch.nn.Module]:
    task = network.make_task(config, torch.device("cpu"))
    torch.manual_seed(config.seed)
    return task, network.build(config, task).model


@pytest.fixture
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs train and evaluate on the first samples of each part."""
    make_task = experiment.make_task

    def make(config: RunConfig, device: torch.device) -> Task:
        task = make_task(config, device)
        few = 8 if task.name == "style" else 64
        task.splits = {split: index[:few] for split, index in task.splits.items()}
        return task

    monkeypatch.setattr(experiment, "make_task", make)


@cache
def without_norms(task: str) -> tuple[Task, dict[str, torch.Tensor]]:
    """Return a task, and the initial weights of its network without norms."""
    made_task, model = made(composed(task, "norm=none"))
    return made_task, dict(model.named_parameters())


@pytest.mark.usefixtures("few_samples")
@pytest.mark.parametrize("norm", choices("norm"))
@pytest.mark.parametrize("task", TASKS.names())
def test_every_task_runs_a_step_with_every_norm_from_the_same_weights(
    task: str, norm: str, tmp_path: Path
) -> None:
    # Statistics are recomputed over all training samples: a few large batches.
    batch_size = 4 if task == "style" else 32
    overrides = ["budget=smoke", *SMALL[task], *ONE_STEP, f"norm={norm}", *groups(norm)]
    config = compose([*overrides, f"batch_size={batch_size}"])
    if reason := network.incompatible(config):
        if norm == "keep" and task != "module":
            return
        assert (task, norm) == ("transformer", "layer_shape"), reason
        config = compose([*overrides, "task.padding=max_length"])

    made_task, weights = without_norms(task)
    torch.manual_seed(config.seed)
    model = network.build(config, made_task).model
    assert len(weights) > 5
    for name, weight in weights.items():
        assert torch.equal(model.get_parameter(name), weight), name

    finished = run_one(config, Results(tmp_path))
    assert finished.status == "ok", finished.error
    assert finished.steps == 1
    assert all(value is not None for value in finished.metrics.values())
    splits = {key.split("/")[0] for key in finished.metrics}
    held_out = {f"{split}{way}" for split in ("val", "test") for way in WAYS}
    assert splits == {"train"} | held_out
    assert finished.primary_metric in finished.metrics


def test_norms_have_no_say_in_the_order_of_the_data_or_the_split() -> None:
    tasks = [made(composed("cnn", f"norm={norm}"))[0] for norm in ("batch", "group")]
    for split in ("train", "val", "test"):
        assert torch.equal(tasks[0].splits[split], tasks[1].splits[split])


@pytest.mark.usefixtures("few_samples")
@pytest.mark.parametrize("task", TASKS.names())
def test_the_same_seed_gives_bit_identical_metrics(
    task: str, run: Run, tmp_path: Path
) -> None:
    overrides = [*SMALL[task], "norm=batch", "batch_size=4", "budget.max_steps=2"]
    first = run(*overrides, results=tmp_path / "first")
    torch.rand(5)
    second = run(*overrides, results=tmp_path / "second")
    other = run(*overrides, "seed=1", results=tmp_path / "first")
    assert first.metrics == second.metrics
    assert first.metrics != other.metrics


@pytest.mark.usefixtures("few_samples")
def test_how_often_a_run_is_evaluated_does_not_change_it(
    run: Run, tmp_path: Path
) -> None:
    overrides = [*SMALL["cnn"], "norm=batch"]
    rarely = run(*overrides, "evaluations=1", "log_every=10", results=tmp_path / "a")
    often = run(*overrides, "evaluations=10", "log_every=1", results=tmp_path / "b")
    assert rarely.run_id == often.run_id
    assert rarely.metrics == often.metrics


@pytest.mark.usefixtures("few_samples")
def test_norm_batch_and_the_three_statistics_are_of_batch_norm_only(run: Run) -> None:
    for norm, different in (("layer", False), ("batch", True)):
        overrides = [*SMALL["cnn"], f"norm={norm}", "batch_size=8"]
        whole, ghosts = run(*overrides), run(*overrides, "norm_batch=2")
        assert whole.run_id != ghosts.run_id
        assert (whole.metrics != ghosts.metrics) == different, norm
        losses = {ghosts.metrics[f"test{way}/loss"] for way in WAYS}
        assert len(losses) == (3 if different else 1), norm


def test_accumulating_equals_the_full_batch_only_without_other_samples() -> None:
    def gradient(norm: str, accumulate: int) -> list[torch.Tensor]:
        config = composed(
            "cnn", f"norm={norm}", "batch_size=8", f"accumulate={accumulate}"
        )
        task, model = made(config)
        model.double()
        images: Any = task.images  # type: ignore[attr-defined]
        task.images = replace(images, pixels=images.pixels.double())  # type: ignore[attr-defined]
        for index in task.splits["train"][:8].chunk(accumulate):
            (task.loss(model, index) / accumulate).backward()  # type: ignore[no-untyped-call]
        return [p.grad for p in model.parameters() if p.grad is not None]

    torch.testing.assert_close(gradient("layer", 4), gradient("layer", 1))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(gradient("batch", 4), gradient("batch", 1))


def test_a_batch_may_be_larger_than_a_held_out_split(run: Run) -> None:
    finished = run(*SMALL["cnn"], "norm=batch", "batch_size=1024", "norm_batch=512")
    assert finished.status == "ok", finished.error
    assert finished.metrics["val_batch/error"] is not None


def test_divergence_is_a_status_with_its_step(run: Run, tmp_path: Path) -> None:
    finished = run(*SMALL["cnn"], "norm=none", "lr=1e30", "warmup=0.0")
    assert finished.status == "diverged"
    assert finished.diverged_at is not None
    assert 1 < finished.diverged_at <= 10
    assert finished.metrics == {"test/error": None}
    last_step = run(
        *[*SMALL["cnn"], "norm=none", "lr=1e38", "warmup=0.0", "budget.max_steps=1"]
    )
    assert (last_step.status, last_step.diverged_at) == ("diverged", 1)
    folder = store.run_folder(tmp_path / "runs", finished.run_id)
    assert store.read(folder) == finished


def test_a_norm_that_meets_a_batch_it_cannot_work_on_ends_the_run_as_skipped(
    run: Run,
) -> None:
    one_token_at_a_time = ["norm=instance", "batch_size=1", "budget.max_steps=300"]
    finished = run(*SMALL["transformer"], *one_token_at_a_time)
    assert finished.status == "skipped"
    assert "instance" in (finished.error or "")
    assert 0 < finished.steps < 300


def test_a_run_that_raises_is_recorded_with_its_traceback(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("the loop broke")

    monkeypatch.setattr("normbench.training.loop.fit", broken)
    finished = run(*SMALL["cnn"])
    assert finished.status == "failed"
    assert "the loop broke" in (finished.error or "")
    folder = store.run_folder(tmp_path / "runs", finished.run_id)
    assert store.read(folder) == finished


def test_the_history_has_rows_of_training_and_of_evaluation(
    run: Run, tmp_path: Path
) -> None:
    finished = run(*SMALL["cnn"], "evaluations=2", "log_every=3")
    folder = store.run_folder(tmp_path / "runs", finished.run_id)
    rows = store.read_history(folder)
    trained = [row["step"] for row in rows if "train/batch_loss" in row]
    evaluated = [row["step"] for row in rows if "test/error" in row]
    assert trained == [3, 5, 6, 9, 10]
    assert evaluated == [5, 10]
    assert rows[-1]["samples"] == finished.samples == 320
    for key, value in finished.metrics.items():
        assert rows[-1][key] == value


def test_style_leaves_a_picture_and_its_weights(run: Run, tmp_path: Path) -> None:
    from PIL import Image
    from safetensors.torch import load_file

    finished = run(*SMALL["style"], "budget.max_steps=1", "keep_weights=true")
    folder = store.run_folder(tmp_path / "runs", finished.run_id)
    (picture,) = folder.glob("*.png")
    with Image.open(picture) as image:
        assert min(image.size) >= 64
        assert max(high - low for low, high in image.getextrema()) > 100
    weights = load_file(folder / store.WEIGHTS)
    _, model = made(finished.config)
    model.load_state_dict(weights)


def test_a_record_says_what_it_ran_on(run: Run) -> None:
    finished = run(*SMALL["cnn"], "budget.max_steps=1")
    environment = finished.environment
    assert environment.packages["torch"] == torch.__version__.split("+")[0]
    assert environment.device == "cpu"
    assert environment.threads == 1
    assert environment.source_hash == source_hash(finished.config)
    assert finished.seconds.train > 0
    assert finished.samples_per_second == finished.samples / finished.seconds.train
    json.loads(finished.model_dump_json())


def test_a_config_is_checked_on_the_network_before_anything_is_written(
    run: Run, tmp_path: Path
) -> None:
    for overrides, message in (
        (["norm=group", "norm.num_groups=3"], "num_groups.*3"),
        (["batch_size=100000"], "batch_size=100000.*3000"),
        (["task=transformer", "task.heads=5"], r"task\.width=64.*5|5.*task\.width=64"),
    ):
        with pytest.raises(RequestError, match=message):
            run("task=cnn", *overrides)
    assert not (tmp_path / "runs").exists()


def test_incompatible_is_a_value() -> None:
    reason = network.incompatible(
        compose(["task=cnn", "norm=group", "norm.num_groups=5"])
    )
    assert reason is not None
    assert "num_groups" in reason
    assert network.incompatible(compose(["task=cnn", "norm=group"])) is None
    two_styles = ["task=style", "data.styles=[brick,grass]"]
    one_map = ["norm=conditional_instance", "norm.conditions=1"]
    assert network.incompatible(compose([*two_styles, "norm=instance"])) is None
    reason = network.incompatible(compose([*two_styles, *one_map]))
    assert reason is not None
    assert "norm.conditions=2" in reason
    needs_convolutions = compose(["task=transformer", "reparam=weight_std"])
    assert "convolution" in (network.incompatible(needs_convolutions) or "")


def test_checking_leaves_the_random_stream_alone() -> None:
    config = composed("cnn", "norm=batch")
    task = network.make_task(config, torch.device("cpu"))
    before = torch.get_rng_state()
    network.check(config, task)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(RequestError, match="device=cuda"):
        network.choose_device("cuda")
    assert network.choose_device("auto") == torch.device("cpu")


def test_parameters_are_counted_and_the_peak_rate_is_scaled(run: Run) -> None:
    finished = run(*SMALL["cnn"], "batch_size=8", "lr=0.4", "budget.max_steps=1")
    _, model = made(finished.config)
    assert finished.parameters == sum(p.numel() for p in model.parameters())
    assert math.isclose(finished.peak_lr, 0.1)
    assert finished.run_id == run_id(finished.config)


def test_a_process_holds_one_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the run before is gone by the time that the next one is loaded."""
    loaded: list[weakref.ref[torch.Tensor]] = []

    class Data:
        def __init__(self, **_: object) -> None:
            assert all(data() is None for data in loaded)

        def load(self, seed: int) -> torch.Tensor:
            data = torch.zeros(1)
            loaded.append(weakref.ref(data))
            return data

    configs = [compose([f"seed={seed}"]) for seed in (0, 0, 1, 0)]
    monkeypatch.setattr(network, "_loaded", {})
    monkeypatch.setattr(network.DATA, "get", lambda name: Data)
    monkeypatch.setattr(network.TASKS, "get", lambda name: lambda data, *_, **__: data)
    for config in configs:
        network.make_task(config, torch.device("cpu"))
    assert len(loaded) == 3
