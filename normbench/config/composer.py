"""Parsed overrides -> composed values, by Hydra."""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf

from normbench.config.choices import choices, config_root, groups, require_folder
from normbench.config.explanations import (
    explained,
    explained_files,
    interpolates,
    key_mistake,
    nested,
)
from normbench.config.yaml_source import address
from normbench.errors import RequestError, shortened
from normbench.system.untrusted import yaml_value

MOST_EXPANDED = 2**23
"""Characters of a config at most, with every interpolation replaced by its value."""


@dataclass(frozen=True)
class _Composition:
    """What Hydra composed from yaml files, before values are set.

    `values` is None if the config has interpolations: they may refer to a value that
    is set later. `files` are the yaml files of the user's own.
    """

    config: DictConfig
    values: dict[str, Any] | None
    files: list[Path]


class Composer:
    """Overrides of one value each -> composed values, open defaults still open.

    Hydra takes a fifth of a second to compose, so each distinct choice of yaml files
    is composed once. Plain values are then set on a plain dict. An addition, a
    deletion, a mapping or an interpolation goes through the function that Hydra itself
    uses after its composition.
    """

    def __init__(self, config_dir: Path | None = None) -> None:
        """Raises RequestError if `config_dir` is not a folder."""
        require_folder(config_dir)
        self._config_dir = config_dir
        self._compositions: dict[tuple[str, ...], _Composition] = {}

    def __call__(self, overrides: Sequence[Override]) -> dict[str, Any]:
        """A new dict, which the caller may change.

        Raises RequestError naming the key, the value and what would be right.
        """
        chosen = [o for o in overrides if self._chooses_a_file(o)]
        values = [o for o in overrides if not self._chooses_a_file(o)]
        key = tuple(str(override.input_line) for override in chosen)
        if key not in self._compositions:
            self._compositions[key] = self._compose(chosen)
        composition = self._compositions[key]
        if composition.values is not None and all(map(_is_plain, values)):
            plain = copy.deepcopy(composition.values)
            if all(_set(plain, override) for override in values):
                return plain
        config = copy.deepcopy(composition.config)
        for override in values:
            diagnosis = partial(key_mistake, override, config, self._config_dir)
            with explained(shortened(override.input_line), diagnosis):
                ConfigLoaderImpl._apply_overrides_to_config([override], config)
        return _resolved(config, composition.files)

    def _chooses_a_file(self, override: Override) -> bool:
        key = str(override.key_or_group)
        own = self._config_dir is not None and (self._config_dir / key).is_dir()
        return (key in groups() or own) and not isinstance(override.value(), dict)

    def _compose(self, chosen: Sequence[Override]) -> _Composition:
        files = [self._file(override) for override in chosen]
        own = [file for file in files if file is not None]
        lines = [_choice(override) for override in chosen]
        if self._config_dir is not None:
            folder = json.dumps(address(self._config_dir), ensure_ascii=False)
            lines.insert(0, f"hydra.searchpath=[{folder}]")
        with (
            hydra.initialize_config_dir(str(config_root()), version_base="1.3"),
            explained_files(own),
        ):
            config = hydra.compose("config", lines)
            raw: Any = OmegaConf.to_container(config)
            _require_bounded(raw, own)
        optimizers = [o for o in chosen if o.key_or_group == "optimizer"]
        if optimizers and self._brings_a_rate(raw.get("optimizer"), optimizers[-1]):
            config["lr"] = {}  # the task's rate is for the built-in optimizer
        values = None if interpolates(raw) else _resolved(config, own)
        return _Composition(config, values, own)

    def _file(self, override: Override) -> Path | None:
        """The yaml of the user's own that `override` chooses, if it does."""
        if self._config_dir is None:
            return None
        group, name = str(override.key_or_group), override.value()
        file = self._config_dir / group / f"{name}.yaml"
        return file if file.is_file() else None

    def _brings_a_rate(self, section: Any, override: Override) -> bool:
        """Whether the chosen optimizer is a user's yaml that sets a learning rate.

        A rate that the yaml inherits from a built-in one does not count.
        """
        file, built_in = self._file(override), choices("optimizer")
        if file is None or file.stem in built_in or not isinstance(section, dict):
            return False  # of two files of one name, Hydra takes the built-in one
        values, inherited = yaml_value(file), built_in.get(str(section.get("name")))
        if isinstance(values, dict) and "lr" in values:
            return True
        rates = [None, yaml_value(inherited).get("lr") if inherited else None]
        return section.get("lr") not in rates


def _choice(override: Override) -> str:
    """The text that Hydra reads; a name that is a number has to be quoted."""
    line = str(override.input_line)
    if isinstance(override.value(), int | float):
        key, _, name = line.partition("=")
        return f'{key}="{name}"'
    return line


def _is_plain(override: Override) -> bool:
    value = override.value()
    return (
        override.type is OverrideType.CHANGE
        and override.package is None
        and not isinstance(value, dict)
        and not interpolates(value)
    )


def _set(values: dict[str, Any], override: Override) -> bool:
    """Set the value of `override`; False if `values` have no such key."""
    group, _, last = str(override.key_or_group).rpartition(".")
    section = nested(values, group)
    if not isinstance(section, dict) or last not in section:
        return False
    section[last] = override.value()
    return True


def _require_bounded(raw: Any, files: Sequence[Path]) -> None:
    """Raise RequestError if interpolations of interpolations may grow too large.

    Values with k1, k2, .. interpolations, each referring to the next value, grow by
    k1 * k2 * ..; for n interpolations in all that is 3^(n / 3) at most.
    """
    if not interpolates(raw):
        return
    text = repr(raw)
    count = text.count("${")
    if len(text) * 3 ** (min(count, 100) / 3) > MOST_EXPANDED:
        where = f" ({' or '.join(map(str, files))})" if files else ""
        raise RequestError(
            f"the config has {count} interpolations{where}, which may stand for more "
            f"than {MOST_EXPANDED:,} characters; write plain values"
        )


def _resolved(config: DictConfig, files: Sequence[Path]) -> dict[str, Any]:
    with explained_files(files):
        _require_bounded(OmegaConf.to_container(config), files)
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
