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

# The two tables of this module describe options of tasks, data sets and norms. They are
# not attributes of these classes, because the classes import torch, and commands that
# read records check ids without torch.
ADDED_LATER: dict[str, Any] = {
    "task.network": "residual",
    "task.padding": "zeros",  # of cnn; the transformer's has other values
    "task.conv_groups": 1,
    "task.long_batches": 0.0,
    "task.batching": "random",
    "task.shortcut": "projection",
    "task.perceptual": "efficientnet_lite0",
    "data.augment": [],
    "data.content": "raw",
    "data.fingerprint": None,  # the known content of an embedded data set
    # Options of text_csv. The data set hf also has columns, but they are never null.
    "data.header": True,
    "data.delimiter": None,
    "data.text_column": None,
    "data.label_column": None,
    "precision": "fp32",
    "norm.group_size": None,
}
"""Keys that did not exist in the first version, each with the value that it implied.

The hash leaves out a key that has this value, so that older records keep their ids.
"""

LEFT_OUT = {
    "display_names": frozenset(),
    "mnist5k": frozenset(),
    "photographs": frozenset(),
    "shapes": frozenset(),
    "content_folder": frozenset({"path", "style_paths", "strict"}),
    "folder": frozenset({"path", "test_path", "strict", "memory_gb", "workers"}),
    "hf": frozenset({"dataset", "subset", "revision"}),
    "text_csv": frozenset({"path", "test_path"}),
}
"""Options that the hash leaves out, for every built-in data set with a fingerprint.

They equal `path_options | not_hashed` of the class of the data set.
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

    `left_out` are options of the data set, such as paths, that its fingerprint replaces
    in the hash.
    """
    science = config.model_dump(mode="json", exclude=set(NOT_HASHED))
    for key, value_before in ADDED_LATER.items():
        group, _, option = key.rpartition(".")
        section = science[group] if group else science
        if option in section and section[option] == value_before:
            del section[option]
    if "fingerprint" in science["data"]:
        for option in science["data"].keys() & left_out:
            del science["data"][option]
    canonical = json.dumps(science, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def mistake(run_id: str, config: RunConfig) -> str | None:
    """Return the reason why `run_id` is not the id of `config`; None if it is.

    This function does not import a user's data class, so it does not know which options
    that class leaves out of the hash. If such data have a fingerprint, it checks only
    that the id has 16 hex digits.
    """
    if not RUN_ID.fullmatch(run_id):
        return "its run_id is not 16 hex digits"
    name = config.data.name
    if config.data.options.get("fingerprint") is not None and name not in LEFT_OUT:
        return None
    if run_id != hashed(config, LEFT_OUT.get(name, ())):
        return "its run_id is not that of its config"
    return None
