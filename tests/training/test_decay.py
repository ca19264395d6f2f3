"""The learning rate schedule that stands for weight decay under a norm."""

from pathlib import Path

import pytest
import torch
from conftest import SMALL, Run
from safetensors.torch import load_file

from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.errors import RequestError
from normbench.records.store import WEIGHTS, run_folder
from normbench.training.decay import equivalent_schedule
from normbench.training.network import check, make_task

SGD = ["optimizer.nesterov=false", "optimizer.weight_decay=0.02"]
AS_SCHEDULE = "optimizer.decay_as=lr_schedule"


def test_without_momentum_a_constant_rate_becomes_an_exponential() -> None:
    rate = equivalent_schedule(lambda step: 0.1, 50, weight_decay=0.2, momentum=0.0)
    shrinks = 1 - 0.1 * 0.2
    for step in (1, 2, 50):
        assert rate(step) == pytest.approx(0.1 / shrinks ** (2 * step - 1))


def test_with_momentum_a_constant_rate_becomes_an_exponential_after_a_while() -> None:
    """The rate grows per step by 1 / alpha**2 (theorem 2.7 of Li & Arora 2020).

    alpha is the larger root of x**2 - (1 + momentum - lr * wd) * x + momentum = 0.
    """
    rate = equivalent_schedule(lambda step: 0.1, 200, weight_decay=0.01, momentum=0.9)
    half = (1 + 0.9 - 0.001) / 2
    alpha = half + (half**2 - 0.9) ** 0.5
    assert rate(200) / rate(199) == pytest.approx(alpha**-2, rel=1e-6)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_the_schedule_turns_the_weights_as_weight_decay_does(
    norm: str, run: Run, tmp_path: Path
) -> None:
    overrides = [*SMALL["cnn"], *SGD, f"norm={norm}", "norm.eps=1e-12", "lr=0.05"]
    overrides += ["budget.max_steps=40", "evaluations=1", "keep_weights=true"]
    decayed = run(*overrides)
    scheduled = run(*overrides, AS_SCHEDULE)
    undecayed = run(*overrides, "optimizer.weight_decay=0.0")
    assert len({decayed.run_id, scheduled.run_id, undecayed.run_id}) == 3
    weights, others, plain = (
        load_file(run_folder(tmp_path / "runs", record.run_id) / WEIGHTS)
        for record in (decayed, scheduled, undecayed)
    )
    for name, weight in weights.items():
        if weight.dim() == 4:
            direction = weight / weight.norm()
            other = others[name] / others[name].norm()
            from_undecayed = plain[name] / plain[name].norm() - direction
            assert (other - direction).norm() < 0.05 * from_undecayed.norm()
            assert from_undecayed.norm() > 0.01
            assert others[name].norm() > 1.1 * weight.norm()
        elif "head" in name:  # weight decay, as before
            torch.testing.assert_close(others[name], weight, atol=1e-3, rtol=0)
    # BatchNorm's running statistics lag behind weights that shrink or grow.
    key = "test_recomputed/loss"
    assert scheduled.metrics[key] == pytest.approx(decayed.metrics[key], rel=1e-2)


def test_the_default_is_the_id_of_older_runs() -> None:
    assert run_id(compose(["optimizer.decay_as=weight_decay"])) == run_id(compose([]))


REFUSED = {
    (AS_SCHEDULE,): r"^optimizer\.decay_as=lr_schedule has no exact .*nesterov=false$",
    (*SGD, AS_SCHEDULE, "clip=1.0"): "clip=null",
    (*SGD, AS_SCHEDULE, "reparam=weight_std"): "reparam=none",
    (*SGD, AS_SCHEDULE, "norm=none"): "norm=none is not one",
    (*SGD, AS_SCHEDULE, "norm=dyt"): "norm=dyt is not one",
    (*SGD, AS_SCHEDULE, "optimizer.weight_decay=9.0"): "lower lr",
    (AS_SCHEDULE, "optimizer=sgd", "task=transformer", "lr=0.1", *SGD): (
        "needs convolutions without a bias"
    ),
    ("task=transformer", AS_SCHEDULE): "decay_as is not a key of optimizer=adamw",
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_a_schedule_that_would_not_be_exact_is_refused(
    overrides: tuple[str, ...],
) -> None:
    with pytest.raises(RequestError, match=REFUSED[overrides]):
        config = compose([*overrides, "tracker=none"])
        check(config, make_task(config, torch.device("cpu")))
