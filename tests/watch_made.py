"""Manifests and records of sweeps that never ran, for `watch`."""

import itertools
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from records_made import a_record, written

from normbench.config.identity import run_id
from normbench.config.schema import Choice, RunConfig, RunRecord, Skipped
from normbench.records import store
from normbench.sweeps.manifest import Manifest

NORMS = ("batch", "group")
SIZES = (2, 32)
SEEDS = (0, 1)
CONFIGS: dict[str, RunConfig] = {}
"""The configs that `grid` made, by run id."""


@cache
def base_record() -> RunRecord:
    return a_record("norm=batch")


def grid(**axes: Sequence[Any]) -> list[str]:
    """The run ids of every combination of these values; `norm` is a name."""
    keys = []
    for values in itertools.product(*axes.values()):
        changed = dict(zip(axes, values, strict=True))
        if "norm" in changed:
            changed["norm"] = Choice(name=changed["norm"], of=changed["norm"])
        if "batch_size" in changed:
            changed["norm_batch"] = changed["batch_size"]
        config = base_record().config.model_copy(update=changed)
        keys.append(run_id(config))
        CONFIGS[keys[-1]] = config
    return keys


def a_manifest(
    *keys: str, skipped: Sequence[str] = (), todo: Sequence[str] | None = None
) -> Manifest:
    """The manifest of a sweep over runs of `grid`; without `todo`, all are to do."""
    return Manifest(
        title="sweep",
        workers=2,
        runs={key: CONFIGS[key] for key in keys},
        skipped={key: Skipped(config=CONFIGS[key], reason="odd") for key in skipped},
        todo=list(keys if todo is None else todo),
    )


def record_of(key: str, value: float | None = 0.25, **changes: Any) -> RunRecord:
    """The record of a run of `grid`, whose test error is `value`."""
    fields = {"run_id": key, "config": CONFIGS[key], "metrics": {"test/error": value}}
    return base_record().model_copy(update=fields | changes)


def write_record(
    results: Path, key: str, value: float | None = 0.25, **changes: Any
) -> None:
    written(results, record_of(key, value, **changes))


def date_back(results: Path, key: str) -> None:
    """Change the times of a record and of its folder to a day in 2001.

    A later write then changes the time of the folder, even in the same clock tick.
    """
    folder = store.run_folder(results, key)
    for path in (folder / store.RESULT, folder):
        os.utime(path, (1e9, 1e9))
