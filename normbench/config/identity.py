"""The id of a run: the hash of what decides its numbers. Needs no torch."""

import hashlib
import json
import re
from collections.abc import Collection
from functools import reduce

from normbench.config.schema import ADDED_LATER, NOT_HASHED, RunConfig
from normbench.registry import classes

RUN_ID = re.compile(r"[0-9a-f]{16}")

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
"""Of each data set that has a fingerprint, by name: `path_options | not_hashed` of its
class, so that the id of a record can be checked where there is no torch."""


def run_id(config: RunConfig) -> str:
    """16 hex digits: the hash of all that changes the numbers, and of nothing else."""
    left_out: frozenset[str] = frozenset()
    if "fingerprint" in config.data.options:
        data = classes("data").get(config.data.name)
        left_out = data.path_options | data.not_hashed
    return hashed(config, left_out)


def hashed(config: RunConfig, left_out: Collection[str] = ()) -> str:
    """16 hex digits: the hash of all that changes the numbers, and of nothing else.

    `left_out` are the options of the data for which their fingerprint stands.
    """
    science = config.model_dump(mode="json", exclude=set(NOT_HASHED))
    for key, value_before in ADDED_LATER.items():
        *sections, last = key.split(".")
        section = reduce(lambda found, name: found.get(name, {}), sections, science)
        if last in section and section[last] == value_before:
            del section[last]
    if "fingerprint" in science["data"]:
        for option in science["data"].keys() & left_out:
            del science["data"][option]
    canonical = json.dumps(science, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def mistake(run_id: str, config: RunConfig) -> str | None:
    """Why `run_id` cannot be the id of `config`; None where it is.

    Which options a class of the user's leaves out is not known here: an id with a
    fingerprint of its files has the right form, or is wrong.
    """
    if not RUN_ID.fullmatch(run_id):
        return "its run_id is not 16 hex digits"
    name = config.data.name
    if config.data.options.get("fingerprint") is not None and name not in LEFT_OUT:
        return None
    if run_id != hashed(config, LEFT_OUT.get(name, ())):
        return "its run_id is not that of its config"
    return None
