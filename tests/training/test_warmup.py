"""Deep Transformers without a warm-up, and how a run that does not train looks."""

import json
from math import log
from pathlib import Path
from typing import get_args

import pytest
from conftest import SMALL, Run

from normbench.records.store import HISTORY, run_folder
from normbench.tasks.networks.transformer import NormPosition

DEEP = [*SMALL["transformer"], "task.depth=12", "evaluations=1", "train_size=320"]
DEEP += ["data.test_fraction=0.02", "data.val_fraction=0.02", "log_every=1"]


@pytest.mark.slow
@pytest.mark.parametrize("position", get_args(NormPosition))
def test_twelve_layers_train_without_a_warmup(
    position: str, run: Run, tmp_path: Path
) -> None:
    record = run(*DEEP, f"task.norm_position={position}", "warmup=0.0")
    assert (record.status, record.steps) == ("ok", 10)
    history = run_folder(tmp_path / "runs", record.run_id) / HISTORY
    rows = [json.loads(line) for line in history.read_text().splitlines()]
    rates = [row["lr"] for row in rows if "lr" in row]
    assert rates[0] == record.peak_lr
    assert rates == sorted(rates, reverse=True)


def test_a_network_that_does_not_train_is_at_chance(run: Run) -> None:
    """Such a run has not diverged, so its error and loss must show the failure."""
    record = run(*DEEP, "task.norm_position=post", "warmup=0.0", "lr=0.1")
    assert record.status == "ok"
    loss, error = record.metrics["train/loss"], record.metrics["train/error"]
    assert loss is not None
    assert error is not None
    assert loss > 0.9 * log(12)  # 12 languages
    assert error > 0.8
