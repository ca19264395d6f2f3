"""Training on a part of the training split."""

import pytest
import torch
from conftest import SMALL, Run

from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.errors import RequestError
from normbench.tasks.base import REGISTRY as TASKS
from normbench.tasks.base import Task
from normbench.training.network import make_task


def task(name: str, *overrides: str) -> Task:
    config = compose([*SMALL[name], "tracker=none", *overrides])
    return make_task(config, torch.device("cpu"))


@pytest.mark.parametrize("name", TASKS.names())
def test_a_smaller_training_split_is_a_part_of_a_larger_one(name: str) -> None:
    whole = task(name)
    for size in (6, 4):
        part = task(name, f"train_size={size}")
        assert part.splits["train"].equal(whole.splits["train"][:size])
        for split in ("val", "test"):
            assert part.splits[split].equal(whole.splits[split])
    assert task(name).splits["train"].equal(whole.splits["train"])


def test_the_network_is_the_same_at_every_size(run: Run) -> None:
    overrides = [*SMALL["transformer"], "evaluations=1", "evaluation.at_end=[train]"]
    whole, part = run(*overrides), run(*overrides, "train_size=100")
    assert part.parameters == whole.parameters
    assert part.run_id != whole.run_id
    assert (whole.steps, part.steps) == (10, 3)  # of 32 samples


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(
        RequestError, match="train_size=3001 is above the 3000 training"
    ):
        task("cnn", "train_size=3001")
    for wrong in ("0", "-1", "0.5"):
        with pytest.raises(RequestError, match="train_size"):
            compose([f"train_size={wrong}"])
    assert run_id(compose(["train_size=null"])) == run_id(compose([]))
