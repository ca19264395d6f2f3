"""The run id: a hash of all parts of a config that decide the metrics of a run.

This module does not import torch.
"""

import hashlib
import json
import re
from collections.abc import Collection
from typing import Any

from normbench.config.schema import NOT_HASHED, RunConfig
from normbench.registry import classes

RUN_ID = re.compile(r"[0-9a-f]{16}")

# The two tables of this module describe options of the classes of tasks, data sets and
# norms. The tables are not in these classes, because the classes import torch. Commands
# that read records check run ids, and do not import torch.
ADDED_LATER: dict[str, Any] = {
    "task.network": "residual",
    "task.padding": "zeros",  # of cnn; in the transformer, it has other values
    "task.conv_groups": 1,
    "task.long_batches": 0.0,
    "task.batching": "random",
    "task.batching_scope": "batch",
    "task.shortcut": "projection",
    "task.perceptual": "efficientnet_lite0",
    "task.qk_norm": "none",
    "data.augment": [],
    "data.content": "raw",
    "data.held_out": "cat",
    "data.fingerprint": None,  # an embedded data set has its known content
    # Options of text_csv. The data set hf also has columns, but they are never null.
    "data.header": True,
    "data.delimiter": None,
    "data.text_column": None,
    "data.label_column": None,
    "data.low_quality": 0.0,
    "precision": "fp32",
    "norm_noise": {"kind": "none", "shift": 0.0, "scale": 0.0, "spread": 0.0},
    "ema": None,
    "train_size": None,
    "init_offset": 0,
    "optimizer.decay_as": "weight_decay",
    "norm.group_size": None,
    "norm.bias": False,  # of rms; ADDED_TO_NORMS has another value for other norms
    "norm.track_running_stats": True,
    "norm.unit_offset": False,
    "evaluation.train_samples": None,
    "evaluation.recompute_samples": None,
}
"""Keys that did not exist in the first version, each with a value.

The first version worked as if the key had this value. The hash leaves out a key that
has this value, so that older records keep their ids.
"""

ADDED_TO_NORMS: dict[str, dict[str, Any]] = {
    "layer_position": {"norm.bias": True},
    "layer_sample": {"norm.bias": True},
}
"""As ADDED_LATER, for options of one norm whose value differs from that table."""

LEFT_OUT = {
    "digits": frozenset(),
    "display_names": frozenset(),
    "language": frozenset(),
    "mnist5k": frozenset(),
    "photographs": frozenset(),
    "shapes": frozenset(),
    "textures": frozenset(),
    "content_folder": frozenset({"path", "style_paths", "strict"}),
    "folder": frozenset({"path", "test_path", "strict", "memory_gb", "workers"}),
    "hf": frozenset({"dataset", "subset", "revision"}),
    "text_csv": frozenset({"path", "test_path"}),
}
"""Options that the hash leaves out, for every built-in data set with a fingerprint.

The options of a data set equal `path_options | not_hashed` of its class.
"""


def run_id(config: RunConfig) -> str:
    """Return the run id of `config`: 16 hex digits.

    Equal ids mean equal metrics: the hash covers exactly the keys that decide them.
    """
    left_out: frozenset[str] = frozenset()
    if "fingerprint" in config.data.options:
        data = classes("data").get(config.data.name)
        left_out = data.path_options | data.not_hashed
    return hashed(config, left_out)


def hashed(config: RunConfig, left_out: Collection[str] = ()) -> str:
    """Return 16 hex digits: the hash of the keys that decide the metrics of a run.

    `left_out` are options of the data set, such as paths. If the data set has a
    fingerprint, the hash contains the fingerprint instead of these options.
    """
    hashed_keys = config.model_dump(mode="json")
    for key in NOT_HASHED:
        section, option = _place(hashed_keys, key)
        del section[option]
    for key, value_before in added_later(config).items():
        section, option = _place(hashed_keys, key)
        if option in section and section[option] == value_before:
            del section[option]
    if not hashed_keys["evaluation"]:
        del hashed_keys["evaluation"]
    # The loop above has deleted a fingerprint that is None.
    if "fingerprint" in hashed_keys["data"]:
        for option in hashed_keys["data"].keys() & left_out:
            del hashed_keys["data"][option]
    canonical = json.dumps(hashed_keys, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def added_later(config: RunConfig) -> dict[str, Any]:
    """Return ADDED_LATER with the values for the norm of `config`."""
    return ADDED_LATER | ADDED_TO_NORMS.get(config.norm.name, {})


def _place(values: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """Return the section of `values` that contains the dotted `key`, and its name."""
    group, _, option = key.rpartition(".")
    return (values[group] if group else values), option


def mistake(run_id: str, config: RunConfig) -> str | None:
    """Return the reason why `run_id` is not the id of `config`; None if it is.

    This function does not import the data class of a user. Therefore it does not know
    which options the hash of such data leaves out. If such data have a fingerprint,
    this function checks only that the id has 16 hex digits.
    """
    if not RUN_ID.fullmatch(run_id):
        return "its run_id is not 16 hex digits"
    name = config.data.name
    if config.data.options.get("fingerprint") is not None and name not in LEFT_OUT:
        return None
    if run_id != hashed(config, LEFT_OUT.get(name, ())):
        return "its run_id is not that of its config"
    return None
