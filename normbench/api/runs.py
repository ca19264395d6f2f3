"""Training, and the table of runs."""

import os
import warnings
from pathlib import Path

import pandas as pd

from normbench.config.composition import compose
from normbench.config.named_modules import import_named
from normbench.config.schema import RunRecord
from normbench.errors import RequestError
from normbench.records import query, store
from normbench.training.experiment import run_one
from normbench.verdicts.seeds import FIRST_TUNING_SEED


def train(
    *overrides: str,
    results: Path | str | None = None,
    config_dir: Path | str | None = None,
    modules: tuple[str, ...] = (),
) -> RunRecord:
    """Train one network with one norm, record the run, and return the record.

    `overrides` are config values as for `normbench train`, such as "norm=group" and
    "batch_size=2". `results` is the folder of the records: by default
    $NORMBENCH_RESULTS, else results/runs. `modules` are names of Python modules of your
    own, to import first. A run that is finished is not done again: its record is
    returned. Raises RequestError for a wrong value. A run that diverges or fails raises
    nothing: the `status` of its record says so.
    """
    directory = None if config_dir is None else Path(config_dir)
    imported = import_named(modules, overrides, config_dir=directory)
    config = compose(overrides, directory)
    return run_one(config, store.Results(results_folder(results), imported))


def runs(
    *where: str, results: Path | str | None = None, tuning: bool = False
) -> pd.DataFrame:
    """Return the finished runs of a folder, one row a run, indexed by run_id.

    The columns are `status`, the keys of the config, `peak_lr` and the metrics, with
    the names that `normbench results --csv` has. `where` are conditions such as
    "task=cnn" and "test/error<0.05". Runs of tuning seeds are left out unless `tuning`.
    A damaged record is left out with a warning. Raises RequestError if `results` is no
    folder or a condition is wrong.
    """
    folder = results_folder(results)
    if not folder.is_dir():
        raise RequestError(f"{folder} is not a folder; normbench.train creates it")
    records, damaged = store.all_records(folder)
    for error in damaged:
        warnings.warn(f"left out: {error}", stacklevel=2)
    rows = [
        query.row(record)
        for record in query.matching(records, where)
        if tuning or record.config.seed < FIRST_TUNING_SEED
    ]
    columns = {name: None for row in rows for name in row} or {"run_id": None}
    return pd.DataFrame(rows, columns=list(columns)).set_index("run_id")


def results_folder(results: Path | str | None) -> Path:
    """Return `results`, else $NORMBENCH_RESULTS, else results/runs."""
    return Path(results or os.environ.get("NORMBENCH_RESULTS") or "results/runs")
