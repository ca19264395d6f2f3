"""The id of a run: a hash of everything that decides its metrics. Needs no torch."""

import hashlib
import json
import re
from collections.abc import Collection
from typing import Any

from normbench.config.schema import NOT_HASHED, RunConfig
from normbench.registry import classes

RUN_ID = re.compile(r"[0-9a-f]{16}")

# Two facts about options stand in tables here and not on the classes that have the
# options: the id of a record is checked where torch, and so those classes, cannot be
# imported.
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
    "data.fingerprint": None,  # the content that older ids stand for
    # Of text_csv; the columns of hf are never null.
    "data.header": True,
    "data.delimiter": None,
    "data.text_column": None,
    "data.label_column": None,
    "precision": "fp32",
    "norm.group_size": None,
}
"""Keys that are younger than the first records, with the value that changes nothing.

A key with that value is left out of the hash, so that older records keep their ids.
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
"""The `path_options | not_hashed` of every data set that has a fingerprint."""


def run_id(config: RunConfig) -> str:
    """16 hex digits: the hash of all that changes the numbers, and of nothing else."""
    left_out: frozenset[str] = frozenset()
    if "fingerprint" in config.data.options:
        data = classes("data").get(config.data.name)
        left_out = data.path_options | data.not_hashed
    return hashed(config, left_out)


def hashed(config: RunConfig, left_out: Collection[str] = ()) -> str:
    """16 hex digits: the hash of everything that changes the metrics of a run.

    `left_out` are the options of the data for which their fingerprint stands.
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
    """The reason why `run_id` cannot be the id of `config`; None if it can.

    The options that a user's class leaves out are unknown here: if the data of such a
    class have a fingerprint, only the form of the id is checked.
    """
    if not RUN_ID.fullmatch(run_id):
        return "its run_id is not 16 hex digits"
    name = config.data.name
    if config.data.options.get("fingerprint") is not None and name not in LEFT_OUT:
        return None
    if run_id != hashed(config, LEFT_OUT.get(name, ())):
        return "its run_id is not that of its config"
    return None
