"""The result of a run for each sample of its test part, for paired comparisons.

A run writes it to the file `items.safetensors.gz` in its folder; `normbench claim check
--items` writes those of all runs to one file beside the verdict. Both are gzipped
safetensors files. They contain these tensors, (M,), for each run:

    RUN_ID/index  int32: the index of the first sample, then the difference from each
                  index to the next
    RUN_ID/NAME   a value of each sample; its type says how it is saved: bool and
                  float32 as they are, uint8 as the code of a loss

A loss has the code c = round(log(loss / MIN_LOSS) / STEP), from 0 to MAX_CODE. So a
loss between MIN_LOSS and MAX_LOSS has a relative error of at most 3.7 %. These errors
have both signs: the mean over many samples is much more exact. NOT_FINITE is the code
of a loss that is infinite or NaN.
"""

import gzip
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from normbench.config.identity import RUN_ID
from normbench.errors import Damaged, Unreadable
from normbench.records.writer import ITEMS as ITEMS
from normbench.system import untrusted
from normbench.system.atomic import write_atomically

MIN_LOSS, MAX_LOSS = 1e-5, 1e3
"""Losses, in nats, outside of this range are saved as the nearest loss in it."""
MAX_CODE = 254
NOT_FINITE = 255
STEP = math.log(MAX_LOSS / MIN_LOSS) / MAX_CODE
QUANTISED = "loss"
"""The value that is saved as codes. Other values are saved as they are."""

_NAME = re.compile(r"[a-z_]{1,40}")


@dataclass(frozen=True)
class Items:
    """Values of the M samples of a test part, sorted by `index`.

    `index` (M,) int64 has the indices of the samples in the data set. They are the same
    in all runs with the same data and seed. `values` has arrays (M,) by name:

    - classification: "correct", bool, and "loss", float32, the cross-entropy in nats,
      which is NaN if it is not finite;
    - style transfer: "content" and "style", float32, the two terms of the loss
      content + style_weight * style.
    """

    index: NDArray[np.int64]
    values: Mapping[str, NDArray[Any]]


def sorted_items(index: NDArray[np.int64], values: Mapping[str, NDArray[Any]]) -> Items:
    """Return the items of samples in any order."""
    order = np.argsort(index)
    return Items(index[order], {name: value[order] for name, value in values.items()})


def packed(runs: Mapping[str, Items]) -> bytes:
    """Return the content of a file with the items of runs, by run id.

    Equal items give equal bytes.
    """
    tensors: dict[str, NDArray[Any]] = {}
    for run_id, items in sorted(runs.items()):
        differences = np.diff(items.index, prepend=0).astype(np.int32)
        tensors[f"{run_id}/index"] = differences
        for name, values in sorted(items.values.items()):
            saved = codes(values) if name == QUANTISED else values
            tensors[f"{run_id}/{name}"] = np.ascontiguousarray(saved)
    return gzip.compress(safetensors.numpy.save(tensors), mtime=0)


def codes(losses: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the codes (M,) of losses (M,) of at least 0; see the top of this file."""
    finite = np.isfinite(losses)
    clipped = np.where(finite, losses, 1).astype(np.float64).clip(MIN_LOSS, MAX_LOSS)
    rounded = (np.log(clipped / MIN_LOSS) / STEP).round()
    return np.where(finite, rounded, NOT_FINITE).astype(np.uint8)


def losses(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the losses (M,) of `codes` (M,), the opposite of `codes`."""
    values = MIN_LOSS * np.exp(STEP * codes.astype(np.float64))
    return np.where(codes == NOT_FINITE, np.nan, values).astype(np.float32)


def read(folder: Path) -> Items:
    """Read the items of the run in `folder`.

    Raises Unreadable if the file is missing or cannot be read, and Damaged if it is not
    such a file or belongs to another run. The file may be a stranger's: it is read
    within the limits of `normbench.system.untrusted`, and nothing in it is executed.
    """
    path = folder / ITEMS
    runs = read_all(path)
    if list(runs) != [folder.name]:
        raise Damaged(path, f"it has the items of {_names(list(runs))}")
    return runs[folder.name]


def read_all(path: Path) -> dict[str, Items]:
    """Read the items of all runs in a file, by run id, sorted.

    Raises the errors of `read`.
    """
    try:
        data = untrusted.unzipped(path)
    except (FileNotFoundError, NotADirectoryError):
        raise Unreadable(
            path,
            "the file does not exist; only finished runs of a newer version of "
            "normbench have it",
        ) from None
    try:
        tensors = safetensors.numpy.load(data)
    except Exception as error:  # safetensors raises many types for other files
        raise Damaged(path, f"it is not a safetensors file: {error}"[:200]) from None
    runs: dict[str, dict[str, NDArray[Any]]] = {}
    for key, tensor in sorted(tensors.items()):
        run_id, _, name = key.partition("/")
        if not RUN_ID.fullmatch(run_id) or not _NAME.fullmatch(name):
            raise Damaged(path, f"{key[:80]!r} is not RUN_ID/NAME")
        runs.setdefault(run_id, {})[name] = tensor
    return {run_id: _items(values, path, run_id) for run_id, values in runs.items()}


def write_all(path: Path, runs: Mapping[str, Items]) -> None:
    """Write the items of several runs, by run id. Raises OSError."""
    write_atomically(path, packed(runs))


def _items(values: dict[str, NDArray[Any]], path: Path, run_id: str) -> Items:
    """Return the items of one run from its tensors. Raises Damaged."""
    if "index" not in values:
        raise Damaged(path, f"run {run_id} has no index")
    differences = values.pop("index")
    if differences.dtype != np.int32 or differences.ndim != 1:
        raise Damaged(path, f"the index of run {run_id} is not a list of int32")
    if (differences[:1] < 0).any() or (differences[1:] < 1).any():
        raise Damaged(path, f"the index of run {run_id} is not ascending")
    decoded = {}
    for name, value in values.items():
        if value.dtype not in (np.bool_, np.uint8, np.float32):
            kind = f"is {value.dtype}, not bool, uint8 or float32"
            raise Damaged(path, f"{name} of run {run_id} {kind}")
        if value.shape != differences.shape:
            raise Damaged(path, f"{name} of run {run_id} is not one value per sample")
        decoded[name] = losses(value) if value.dtype == np.uint8 else value
    return Items(np.cumsum(differences, dtype=np.int64), decoded)


def _names(run_ids: list[str]) -> str:
    return f"another run, {run_ids[0]}" if len(run_ids) == 1 else f"{len(run_ids)} runs"
