"""The moving average of the weights: its values, its metrics, and who may ask."""

import copy
from pathlib import Path

import pytest
import torch
from conftest import SMALL, Run
from torch import Tensor, nn

from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.config.schema import RunConfig
from normbench.errors import RequestError
from normbench.norms import recompute_statistics
from normbench.tasks.base import Task
from normbench.training import loop
from normbench.training.network import build, make_task
from normbench.training.weight_average import WeightAverage

DECAY = 0.6
SHORT = ["budget.max_steps=6", "evaluations=1", "batch_size=16", f"ema={DECAY}"]
SHORT += ["train_size=160", "data.val_fraction=0.02", "data.test_fraction=0.02"]
KINDS = ("ema", "ema_averaged", "ema_recomputed")


State = dict[str, Tensor]


def trained(config: RunConfig) -> tuple[Task, nn.Module, list[nn.Module], list[State]]:
    """Train by a plain loop; return the network and its states after each step."""
    task = make_task(config, torch.device("cpu"))
    torch.manual_seed(config.seed)
    network = build(config, task)
    model = network.model
    optimizer = loop.make_optimizer(
        model, network.norms.parameters(), **config.optimizer.model_dump()
    )
    batches = loop.micro_batches(task.splits["train"], config.seed, 16, 1)
    rate = loop.warmup_cosine(config.lr / 2, 6, config.warmup)
    states = []
    for step in range(1, 7):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        model.train()
        optimizer.zero_grad()
        task.loss(model, batches(step)[0]).backward()
        optimizer.step()
        states.append(copy.deepcopy(model.state_dict()))
    return task, model.eval(), list(network.norms.modules), states


def mean_of(states: list[State]) -> State:
    """Return the weighted mean of states, those of the last step with most weight."""
    weights = [DECAY ** (len(states) - 1 - s) for s in range(len(states))]
    return {
        name: torch.stack(
            [w * state[name] for w, state in zip(weights, states, strict=True)]
        ).sum(0)
        / sum(weights)
        for name in states[0]
    }


def test_the_metrics_are_those_of_a_plain_loop(run: Run) -> None:
    overrides = [*SMALL["cnn"], *SHORT, "norm=batch"]
    record = run(*overrides)
    config = record.config
    task, model, norms, states = trained(config)
    means, last = mean_of(states), states[-1]
    statistics = {name for name in last if "running" in name}
    expected: dict[str, State] = {
        "": last,
        "_ema": means | {name: last[name] for name in last.keys() & statistics},
        "_ema_averaged": means,
        "_ema_recomputed": means,
    }
    for kind, state in expected.items():
        counts = {
            name: last[name] for name in last if not last[name].is_floating_point()
        }
        model.load_state_dict(state | counts)
        if kind == "_ema_recomputed":
            samples = task.splits["train"]
            samples = samples[: len(samples) // 16 * 16]
            recompute_statistics(
                lambda index: model(*task.inputs(index)), norms, samples.split(16)
            )
        for split in ("val", "test"):
            for name, value in task.evaluate(model, task.splits[split], 64).items():
                key = f"{split}{kind}/{name}"
                assert record.metrics[key] == pytest.approx(value, rel=1e-3), key
                change = record.metrics.get(f"{key}_change", 0.0)
                usual = record.metrics[f"{split}/{name}"]
                assert change == pytest.approx(record.metrics[key] - usual), key
    losses = {record.metrics[f"test{kind}/loss"] for kind in expected}
    assert len(losses) == 4  # every kind of statistics is another network
    assert record.metrics["test_ema/loss_change"] != 0


def test_the_average_is_a_weighted_mean_without_the_initial_weights() -> None:
    model = nn.Linear(2, 1)
    average = WeightAverage(model, 0.9)
    states = []
    for _ in range(5):
        nn.init.normal_(model.weight)
        states.append(model.weight.detach().clone())
        average.update()
    weights = torch.tensor([0.9 ** (4 - s) for s in range(5)])
    mean = sum(w * x for w, x in zip(weights / weights.sum(), states, strict=True))
    torch.testing.assert_close(average.values["weight"], mean)
    once = WeightAverage(model, 0.999)
    once.update()
    assert once.values["weight"].equal(model.weight)


def test_training_does_not_depend_on_the_average(run: Run, tmp_path: Path) -> None:
    overrides = [*SMALL["cnn"], *SHORT, "norm=batch"]
    averaged = run(*overrides)
    plain = run(*overrides, "ema=null", results=tmp_path / "plain")
    assert averaged.run_id != plain.run_id
    assert plain.metrics.items() <= averaged.metrics.items()
    added = {
        key.split("/")[0] for key in averaged.metrics.keys() - plain.metrics.keys()
    }
    assert added == {f"{split}_{kind}" for split in ("val", "test") for kind in KINDS}


def test_without_running_statistics_all_kinds_are_equal(run: Run) -> None:
    metrics = run(*SMALL["transformer"], *SHORT, "norm=layer").metrics
    for split in ("val", "test"):
        losses = {metrics[f"{split}_{kind}/loss"] for kind in KINDS}
        assert len(losses) == 1
        assert losses != {metrics[f"{split}/loss"]}


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_run_has_the_averaged_metrics_that_it_is_asked_for(
    norm: str, run: Run
) -> None:
    overrides = [*SMALL["cnn"], *SHORT, f"norm={norm}"]
    few = run(*overrides, "evaluation.at_end=[val_ema,test_ema_recomputed]")
    names = {key.split("/")[0] for key in few.metrics}
    assert names == {"test", "val_ema", "test_ema_recomputed"}
    more = run(*overrides, "evaluation.other_statistics=never")
    names = {key.split("/")[0] for key in more.metrics}
    assert names == {"test", "train", "val", "val_ema", "test_ema"}


def test_a_wrong_decay_is_refused_and_null_is_the_id_of_older_runs() -> None:
    for decay in ("0", "1", "1.5"):
        with pytest.raises(RequestError, match="ema"):
            compose([f"ema={decay}"])
    assert run_id(compose(["ema=null"])) == run_id(compose([]))
    assert run_id(compose(["ema=0.9"])) != run_id(compose(["ema=0.99"]))
