"""Runs of ten steps for tests that interrupt them, and what must not change then."""

from pathlib import Path
from typing import Any

from conftest import SMALL

from normbench.config.composition import compose
from normbench.config.schema import RunConfig, RunRecord
from normbench.records import store

TEN_STEPS = [
    *("budget.epochs=2", "budget.max_steps=10", "evaluations=2", "log_every=4"),
    *("checkpoint.every=3", "tracker=none"),
]
CNN_WORDS = [*SMALL["cnn"], *TEN_STEPS, "norm=batch"]


def small(*overrides: str) -> RunConfig:
    """The config of a run of ten steps; `overrides` must include the task."""
    task = next(word for word in overrides if word.startswith("task=")).split("=")[1]
    return compose([*SMALL[task], *TEN_STEPS, *overrides])


def content(results: Path, finished: RunRecord) -> tuple[Any, ...]:
    """Everything in a run's record and folder that interruptions must not change."""
    folder = store.run_folder(results, finished.run_id)
    history = (folder / store.HISTORY).read_text()
    counts = (finished.status, finished.steps, finished.samples, finished.parameters)
    return finished.metrics, history, counts, {file.name for file in folder.iterdir()}
