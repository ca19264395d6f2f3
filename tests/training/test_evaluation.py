"""What the evaluation of a run measures, on which samples and in which batches."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import torch
from conftest import SMALL, Run
from torch import Tensor, nn

from normbench.config.composition import compose
from normbench.config.schema import AtEnd, RunConfig, RunRecord
from normbench.norms import use_batch_statistics
from normbench.norms.layers.batch import BatchNorm
from normbench.probes.base import PROBES, Trained
from normbench.tasks.base import REGISTRY as TASKS
from normbench.tasks.base import Task
from normbench.training import evaluation, experiment, network
from normbench.training.evaluation import Evaluator, evaluate

FEW = {"train": 90, "val": 40, "test": 40}
STEPS = ["budget.max_steps=2", "evaluations=1", "batch_size=8"]


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs train and evaluate on the first samples of each split."""
    make_task = network.make_task

    def make(config: RunConfig, device: torch.device) -> Task:
        task = make_task(config, device)
        few = dict.fromkeys(FEW, 10) if task.name == "style" else FEW
        task.splits = {split: task.splits[split][: few[split]] for split in few}
        return task

    monkeypatch.setattr(experiment, "make_task", make)


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """The shapes of the first inputs of all forwards in evaluations, in order."""
    shapes: list[tuple[int, ...]] = []
    build = network.build

    def recorded(*args: object) -> network.Network:
        made = build(*args)

        def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if not module.training:
                shapes.append(tuple(inputs[0].shape))

        made.model.register_forward_pre_hook(record)
        return made

    monkeypatch.setattr("normbench.training.trainer.build", recorded)
    yield shapes


def splits(record: RunRecord) -> set[str]:
    return {key.split("/")[0] for key in record.metrics}


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_run_measures_what_it_is_asked_for(
    norm: str, run: Run, tmp_path: Path
) -> None:
    overrides = [*SMALL["cnn"], *STEPS, f"norm={norm}", "ema=0.5"]
    whole = run(*overrides, results=tmp_path / "whole")
    assert splits(whole) == {"test", *get_args(AtEnd)}
    for names in (["train"], ["val_recomputed"], ["test_batch", "val", "train"], []):
        at_end = f"evaluation.at_end=[{','.join(names)}]"
        part = run(*overrides, at_end, results=tmp_path / f"part {names}")
        assert part.run_id == whole.run_id
        needed = {"val"} if norm == "group" and "val_recomputed" in names else set()
        assert splits(part) == {"test", *names} | needed
        assert part.metrics.items() <= whole.metrics.items()


def test_a_run_is_redone_for_metrics_that_its_record_lacks(
    run: Run, tmp_path: Path
) -> None:
    overrides = [*SMALL["cnn"], *STEPS, "norm=batch"]
    fresh = run(*overrides, results=tmp_path / "fresh")
    little = run(*overrides, "evaluation.at_end=[val_recomputed]")
    assert splits(little) == {"test", "val_recomputed"}
    less = run(*overrides, "evaluation.other_statistics=never")
    assert splits(less) == {"test", "train", "val"}
    redone = run(*overrides)
    assert redone.metrics == fresh.metrics
    assert redone.config == fresh.config
    assert run(*overrides, "evaluation.at_end=[val_batch]") == redone
    assert run(*overrides, "evaluation.other_statistics=never") == redone


def test_a_run_diverges_without_its_training_split_too(run: Run) -> None:
    overrides = [*SMALL["cnn"], *STEPS, "lr=1e30", "budget.max_steps=1"]
    for at_end in ("train", "val", ""):
        ended = run(*overrides, f"evaluation.at_end=[{at_end}]")
        assert (ended.status, ended.diverged_at) == ("diverged", 1)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["auto", "7"])
@pytest.mark.parametrize("norm", ["batch", "group norm.num_groups=4"])
@pytest.mark.parametrize("task", [*TASKS.names(), "transformer task.long_batches=0.5"])
def test_batches_of_an_evaluation_change_metrics_by_rounding_only(
    task: str, norm: str, size: str, run: Run, tmp_path: Path
) -> None:
    task, *more = task.split()
    overrides = [*SMALL[task], *STEPS, *more, *f"norm={norm}".split()]
    if norm == "batch":
        overrides.append("norm_batch=2")
    usual = run(*overrides, results=tmp_path / "usual")
    other = run(*overrides, f"evaluation.batch_size={size}")
    assert other.run_id == usual.run_id
    assert other.metrics == pytest.approx(usual.metrics, rel=1e-4, abs=1e-5)
    # Pads change what GroupNorm computes, so its batches of texts stay the same.
    if task == "transformer" and norm != "batch":
        assert other.metrics == usual.metrics


def test_texts_of_similar_length_share_a_batch(
    run: Run, forwards: list[tuple[int, ...]], tmp_path: Path
) -> None:
    overrides = [*SMALL["transformer"], *STEPS, "evaluation.at_end=[]"]
    for padding, share in (("longest", 0.8), ("max_length", 0.2)):
        tokens = {}
        for size in ("null", "8"):
            forwards.clear()
            batch = f"evaluation.batch_size={size}"
            folder = tmp_path / padding / size
            run(*overrides, f"task.padding={padding}", batch, results=folder)
            tokens[size] = sum(samples * length for samples, length in forwards)
        assert tokens["8"] < share * tokens["null"], padding


def evaluator(*overrides: str) -> tuple[Evaluator, network.Network]:
    config = compose([*SMALL["cnn"], "tracker=none", *overrides])
    task = experiment.make_task(config, torch.device("cpu"))
    torch.manual_seed(0)
    built = network.build(config, task)
    built.model.eval()
    return Evaluator(task, config), built


def test_many_norm_batches_in_a_forward_are_those_of_training() -> None:
    """The batch statistics of 2 samples, although a forward has more."""
    measured, built = evaluator("batch_size=2")
    order = measured.to_recompute(measured.task.splits["train"])
    sizes = []
    built.model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    metrics = measured.other_statistics(built.model, built.norms.modules, order)
    assert max(sizes) == evaluation.MIN_BATCH
    use_batch_statistics(built.norms.modules)
    samples = {split: measured.task.splits[split] for split in ("val", "test")}
    by_two = evaluate(measured.task, built.model, samples, 2)
    for key, value in by_two.items():
        assert metrics[key.replace("/", "_batch/")] == pytest.approx(value, rel=1e-5)


def test_a_norm_without_ghost_batches_sees_micro_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(BatchNorm, "uses_other_samples", False)
    measured, built = evaluator("batch_size=2", "evaluation.batch_size=64")
    sizes = set()
    built.model.register_forward_pre_hook(lambda _, args: sizes.add(len(args[0])))
    order = measured.task.splits["train"]
    measured.other_statistics(built.model, built.norms.modules, order)
    assert sizes == {2, 64}


def test_a_norm_that_uses_other_samples_in_evaluation_keeps_its_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured, built = evaluator("evaluation.batch_size=7")
    sizes = set()
    built.model.register_forward_pre_hook(lambda _, args: sizes.add(len(args[0])))
    for differs, size in ((True, 7), (False, 64)):
        sizes.clear()
        monkeypatch.setattr(BatchNorm, "differs_in_eval", differs)
        measured.running(built.model, "val")
        assert sizes == {size}


@pytest.mark.parametrize("task", TASKS.names())
def test_limits_take_the_first_samples_of_a_split(
    task: str, run: Run, tmp_path: Path
) -> None:
    overrides = [*SMALL[task], *STEPS, "batch_size=4", "norm=batch"]
    limits = ["evaluation.train_samples=5", "evaluation.recompute_samples=3"]
    whole = run(*overrides, results=tmp_path / "whole")
    few = run(*overrides, *limits)
    assert few.run_id != whole.run_id
    changed = {key for key in whole.metrics if few.metrics[key] != whole.metrics[key]}
    assert changed >= {"train/loss", "val_recomputed/loss", "test_recomputed/loss"}
    names = {key.split("/")[0] for key in changed}
    assert names == {"train", "val_recomputed", "test_recomputed"}


def test_the_recomputed_samples_fill_whole_micro_batches() -> None:
    for samples, limit, count in ((90, 9, 12), (90, 12, 12), (10, 9, 8), (10, 90, 8)):
        recompute = f"evaluation.recompute_samples={limit}"
        measured, _ = evaluator("batch_size=8", "accumulate=2", recompute)
        train = measured.task.splits["train"]
        assert measured.to_recompute(train[:samples]).equal(train[:count])


def test_limits_above_a_split_change_nothing(run: Run, tmp_path: Path) -> None:
    overrides = [*SMALL["cnn"], *STEPS, "norm=batch"]
    limits = [f"evaluation.{key}_samples=90" for key in ("train", "recompute")]
    whole = run(*overrides, results=tmp_path / "whole")
    assert run(*overrides, *limits).metrics == whole.metrics


def test_the_samples_of_a_limit_are_the_same_for_all_norms_and_differ_by_seed() -> None:
    limit = "evaluation.recompute_samples=8"
    orders = []
    for overrides in (["norm=batch"], ["norm=power"], ["norm=batch", "seed=1"]):
        measured, _ = evaluator("batch_size=8", limit, *overrides)
        orders.append(measured.to_recompute(measured.task.splits["train"]))
    assert orders[0].equal(orders[1])
    assert not orders[0].equal(orders[2])


def test_the_seconds_of_probes_are_not_those_of_evaluation(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1.0
        return now

    def slow(trained: Trained) -> dict[str, float]:
        nonlocal now
        now += 1000.0
        return {"x": 1.0}

    monkeypatch.setitem(PROBES._functions, "slow", slow)
    monkeypatch.setitem(PROBES._data, "slow", object)
    monkeypatch.setattr("normbench.training.progress.time.perf_counter", clock)
    seconds = run(*SMALL["cnn"], *STEPS, "probes=[slow]").seconds
    assert seconds.probes == 1001.0
    assert seconds.evaluate > 0
    assert seconds.total - seconds.probes < 100
