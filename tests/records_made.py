"""Makes records without a training, and their folders."""

from pathlib import Path
from typing import Any

from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.config.schema import Environment, RunRecord, Seconds
from normbench.records import store


def a_record(*overrides: str, **changes: Any) -> RunRecord:
    """Return a record of the config for `overrides`, with `changes` of its fields."""
    config = compose(overrides)
    fields: dict[str, Any] = {
        "run_id": run_id(config),
        "status": "ok",
        "metrics": {"test/error": 0.25, "test/loss": None},
        "primary_metric": "test/error",
        "direction": "minimize",
        "config": config,
        "steps": 10,
        "samples": 320,
        "parameters": 7,
        "peak_lr": 0.1,
        "seconds": Seconds(setup=1.0, train=2.0, evaluate=0.5),
        "samples_per_second": 160.0,
        "started": "2026-01-01T00:00:00+00:00",
        "environment": Environment(
            normbench="0",
            git_commit=None,
            git_dirty=None,
            source_hash="0",
            modules={},
            packages={},
            python="3",
            platform="x",
            device="cpu",
            threads=1,
        ),
    }
    return RunRecord(**(fields | changes))


A_RECORD = a_record()


def written(results: Path, finished: RunRecord) -> Path:
    """Write the folder of a run; return the folder."""
    with store.RunWriter(results, finished.run_id) as writer:
        writer.begin(finished.config)
        writer.finish(finished)
    return writer.folder
