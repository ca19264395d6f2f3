#!/usr/bin/env python
"""A run by `@hydra.main`: for Hydra's own launchers and sweepers.

    python scripts/hydra_train.py norm=group batch_size=2
    python scripts/hydra_train.py -m norm=batch,group hydra/launcher=joblib
    python scripts/hydra_train.py -m hydra/sweeper=optuna 'lr=interval(0.01,0.4)' \
        hydra.sweeper.max_failure_rate=1.0 objective=val/error

The same configs, checks and records as `normbench train`, under $NORMBENCH_RESULTS or
results/runs. Returns the metric `objective`, for a sweeper: the worst value where the
run diverged. A run that failed is recorded, then raises.
"""

import math
import os
import secrets
import time
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from normbench.choices import config_root
from normbench.config import resolve
from normbench.errors import Busy, NormbenchError
from normbench.experiment import run_one
from normbench.progress import Lines
from normbench.provenance import import_modules
from normbench.schema import RunConfig, RunRecord

RETRY = 1.0
"""Seconds before asking again for a run that another trial is doing."""

OmegaConf.register_new_resolver("process", lambda: secrets.token_hex(3), use_cache=True)


@hydra.main(
    version_base="1.3", config_path=str(config_root()), config_name="hydra_train"
)
def main(composed: DictConfig) -> float:
    values: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    modules, objective = values.pop("modules"), values.pop("objective")
    import_modules(modules)
    record = run(resolve(values), modules)
    if record.status == "failed":
        raise NormbenchError(f"run {record.run_id} failed:\n{record.error}")
    objective = objective or record.primary_metric
    if record.metrics and objective not in record.metrics:
        raise NormbenchError(
            f"objective={objective} is no metric of run {record.run_id}; it has "
            f"{', '.join(record.metrics)}"
        )
    value = record.metrics.get(objective)
    if value is None:
        return math.inf if record.direction == "minimize" else -math.inf
    return value


def run(config: RunConfig, modules: list[str]) -> RunRecord:
    """The record of a run, also where another trial happens to be doing it."""
    results = Path(os.environ.get("NORMBENCH_RESULTS", "results/runs"))
    while True:
        try:
            return run_one(config, results, modules=modules, observer=Lines())
        except Busy:
            time.sleep(RETRY)


if __name__ == "__main__":
    main()
