"""Suggests existing config keys for a key that does not exist."""

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path

from normbench.config.choices import choices, groups
from normbench.errors import did_you_mean
from normbench.system.untrusted import yaml_value

SYNONYMS = {
    "batch": "batch_size",
    "bs": "batch_size",
    "dataset": "data",
    "epsilon": "norm.eps",
    "iterations": "budget.max_steps",
    "learning_rate": "lr",
    "logger": "tracker",
    "max_epochs": "budget.epochs",
    "model": "task",
    "network": "task.network",
    "normalization": "norm",
    "num_epochs": "budget.epochs",
    "num_workers": "engine.workers",
    "optim": "optimizer",
    "random_seed": "seed",
    "wd": "optimizer.weight_decay",
}
"""Maps names in other programs to keys of normbench."""


def suggested_key(key: str, known: Collection[str], config_dir: Path | None) -> str:
    """Return a clause with keys that are similar to `key`, or with all of `known`.

    `known` are the dotted keys of the composed config. Some keys exist only for other
    choices of a group: norm=batch has no norm.num_groups, but norm=group has. The
    clause names such a key with the choices that have it.
    """
    section, _, last = key.rpartition(".")
    owners = _owners_by_key(config_dir)
    if key in owners:
        return f"{_owner_text(key, owners)} have it"
    candidates = sorted({*known, *owners})
    likely = [SYNONYMS[last.lower()]] if last.lower() in SYNONYMS else []
    last_names = {name: name.rpartition(".")[2] for name in candidates}
    likely += [name for name in candidates if last_names[name] == last.lower()]
    if not likely:  # "groups" for "num_groups"
        end = f"_{last.lower()}"
        likely = [name for name in candidates if last_names[name].endswith(end)]
    # No key has this end: look for a similar key in the same section.
    if not likely:
        siblings = [name for name in known if name.rpartition(".")[0] == section]
        clause = did_you_mean(key, siblings or [n for n in known if "." not in n])
        if not clause.startswith("known"):
            return clause
        # The clause names no similar key: look for a similar last name anywhere.
        by_last = SYNONYMS | {end: name for name, end in last_names.items()}
        likely = [by_last[n] for n in difflib.get_close_matches(last, by_last)]
        if not likely:
            return clause
    suggestions = [
        repr(name) + ("" if name in known else f" (of {_owner_text(name, owners)})")
        for name in dict.fromkeys(likely)
    ]
    return f"did you mean {' or '.join(suggestions[:3])}?"


def _owner_text(key: str, owners: Mapping[str, list[str]]) -> str:
    """Return the choices that have `key`, such as "norm=evonorm_s0, group"."""
    names = owners[key]
    group = key.partition(".")[0]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"{group}={', '.join(names[:4])}{more}"


def _owners_by_key(config_dir: Path | None) -> dict[str, list[str]]:
    """Return, for every dotted key in the yaml files, the choices that have the key."""
    owners: dict[str, list[str]] = {}
    for group in groups():
        for name, file in choices(group, config_dir).items():
            try:
                section = yaml_value(file)
            except Exception:  # a user's file that is broken, but not in use
                continue
            if isinstance(section, dict) and isinstance(section.get(group), dict):
                section = section[group]  # the yaml of a task also sets other sections
            keys = section.keys() if isinstance(section, dict) else set()
            for key in keys - {"name", "defaults"}:
                owners.setdefault(f"{group}.{key}", []).append(name)
    return owners
