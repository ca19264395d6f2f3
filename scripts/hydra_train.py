#!/usr/bin/env python
"""Do a run by `@hydra.main`, for Hydra's launchers and sweepers.

    python scripts/hydra_train.py norm=group batch_size=2
    python scripts/hydra_train.py -m norm=batch,group hydra/launcher=joblib
    python scripts/hydra_train.py -m hydra/sweeper=optuna 'lr=interval(0.01,0.4)' \
        hydra.sweeper.max_failure_rate=1.0 objective=val/error

Configs, checks and records are those of `normbench train`; the records are under
$NORMBENCH_RESULTS or results/runs. For a sweeper, the program returns the metric
`objective`, or the worst value if the run diverged or was skipped. A failed run is
recorded, then raises.
"""

import math
import os
import secrets
import time
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from normbench.cli.progress import Lines
from normbench.config.choices import config_root
from normbench.config.composition import resolve
from normbench.config.schema import RunConfig, RunRecord
from normbench.errors import Busy, NormbenchError, RequestError
from normbench.norms.factory import NormFactory
from normbench.records.store import Results
from normbench.system.imports import import_modules
from normbench.training import evaluation
from normbench.training.experiment import run_one
from normbench.training.network import choose_device, make_task

RETRY = 1.0
"""Seconds between attempts to do a run that another trial is doing."""

OmegaConf.register_new_resolver("process", lambda: secrets.token_hex(3), use_cache=True)


@hydra.main(
    version_base="1.3", config_path=str(config_root()), config_name="hydra_train"
)
def main(composed: DictConfig) -> float:
    for override in HydraConfig.get().overrides.task:
        if override.partition("=")[0].lstrip("+~") == "optimizer.lr":
            raise RequestError(f"{override}: the key of the learning rate is lr")
    values: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    modules, objective = values.pop("modules"), values.pop("objective")
    import_modules(modules)
    config = resolve(values)
    # Checked before the run: a typing error must not waste a long study.
    if objective is not None and objective not in (known := metric_names(config)):
        raise RequestError(
            f"objective={objective} is no metric of task={config.task.name}; it has "
            f"{', '.join(known)}"
        )
    record = run(config, modules)
    if record.status == "failed":
        raise NormbenchError(f"run {record.run_id} failed:\n{record.error}")
    return objective_value(record, objective or record.primary_metric)


def objective_value(record: RunRecord, objective: str) -> float:
    """The metric that a sweeper gets; the worst value if the run has none."""
    value = record.metrics[objective] if record.status == "ok" else None
    if value is None:
        return math.inf if record.direction == "minimize" else -math.inf
    return value


def metric_names(config: RunConfig) -> list[str]:
    """The metrics of a run of `config`, for any norm.

    Evaluates a network that is not trained on two samples of each split.
    """
    device = choose_device(config.device)
    task = make_task(config, device)
    task.splits = {split: index[:2] for split, index in task.splits.items()}
    norms = NormFactory("affine", {}, norm_batch=2, conditions=task.conditions)
    model = task.build(norms).to(device).eval()
    metrics = evaluation.evaluate(task, model, task.splits, batch_size=2)
    return sorted(metrics | evaluation.same_under_other_statistics(metrics))


def run(config: RunConfig, modules: list[str]) -> RunRecord:
    """Do a run, or wait for its record if another trial is doing it."""
    results = Path(os.environ.get("NORMBENCH_RESULTS", "results/runs")).expanduser()
    while True:
        try:
            return run_one(config, Results(results, tuple(modules)), observer=Lines())
        except Busy:
            time.sleep(RETRY)


if __name__ == "__main__":
    main()
