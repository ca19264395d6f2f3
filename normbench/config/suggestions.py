"""Suggests existing keys for a key that does not exist."""

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
    "eps": "norm.eps",
    "epsilon": "norm.eps",
    "groups": "norm.num_groups",
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
    "steps": "budget.max_steps",
    "wd": "optimizer.weight_decay",
}
"""Names that other programs use -> keys of normbench."""


def suggested_key(key: str, known: Collection[str], config_dir: Path | None) -> str:
    """A clause naming keys that are similar to `key`, else all of `known`.

    `known` are the dotted keys of the composed config. A key that belongs to other
    choices of its group is named with those choices.
    """
    section, _, last = key.rpartition(".")
    others = _keys_of_choices(config_dir)
    if key in others:
        return f"{_owners(key, others)} have it"
    every = sorted({*known, *others})
    likely = [SYNONYMS[last.lower()]] if last.lower() in SYNONYMS else []
    likely += [name for name in every if name.rpartition(".")[2] == last.lower()]
    if not likely:
        near = [name for name in known if name.rpartition(".")[0] == section]
        clause = did_you_mean(key, near or [n for n in known if "." not in n])
        if not clause.startswith("known"):
            return clause
        by_last = {name.rpartition(".")[2]: name for name in every}
        likely = [by_last[n] for n in difflib.get_close_matches(last, by_last)]
        if not likely:
            return clause
    named = [
        repr(name) + ("" if name in known else f" (of {_owners(name, others)})")
        for name in dict.fromkeys(likely)
    ]
    return f"did you mean {' or '.join(named[:3])}?"


def _owners(key: str, others: Mapping[str, list[str]]) -> str:
    """The choices that have `key`, such as "norm=evonorm_s0, group"."""
    names = others[key]
    group = key.partition(".")[0]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"{group}={', '.join(names[:4])}{more}"


def _keys_of_choices(config_dir: Path | None) -> dict[str, list[str]]:
    """Dotted keys in the yaml files of all groups -> the choices that have them."""
    owners: dict[str, list[str]] = {}
    for group in groups():
        for name, file in choices(group, config_dir).items():
            try:
                section = yaml_value(file)
            except Exception:  # a broken file of the user's own, which is not chosen
                continue
            if isinstance(section, dict) and isinstance(section.get(group), dict):
                section = section[group]  # the yaml of a task has other keys beside it
            keys = section.keys() if isinstance(section, dict) else set()
            for key in keys - {"name", "defaults"}:
                owners.setdefault(f"{group}.{key}", []).append(name)
    return owners
