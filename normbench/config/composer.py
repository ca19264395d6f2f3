"""Composes the values of a config with Hydra from parsed overrides."""

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

MAX_EXPANDED_LENGTH = 2**23
"""Maximum characters of a config whose interpolations are replaced by their values."""


@dataclass(frozen=True)
class _Composition:
    """The result of Hydra's composition of yaml files, before overrides set values.

    `values` is the config as a plain dict. It is None if the config has interpolations,
    because an interpolation may refer to a value that an override sets. `files` are the
    user's yaml files in the composition.
    """

    config: DictConfig
    values: dict[str, Any] | None
    files: list[Path]


_built_in: dict[tuple[str, ...], _Composition] = {}
"""Compositions of yaml files of the package, which do not change in a process."""


class Composer:
    """Composes the values of a config from overrides with a single value.

    A composition by Hydra takes a fifth of a second. So this class composes each
    combination of yaml files only once and then sets the values of the other overrides
    on a copy. All composers without a `config_dir` share their compositions. Hydra's
    own function applies an override that adds or deletes a key, or whose value is a
    mapping or has an interpolation.
    """

    def __init__(self, config_dir: Path | None = None) -> None:
        """Raise RequestError if `config_dir` is not a folder."""
        require_folder(config_dir)
        self._config_dir = config_dir
        self._compositions = _built_in if config_dir is None else {}

    def __call__(self, overrides: Sequence[Override]) -> dict[str, Any]:
        """Return the composed values in a new dict, which the caller may change.

        A null stays null: `resolve` fills it in. Raises RequestError with the key, the
        value and what would be right.
        """
        choosing = [o for o in overrides if self._chooses_a_file(o)]
        values = [o for o in overrides if not self._chooses_a_file(o)]
        key = _key(choosing)
        if key not in self._compositions:
            self._compositions[key] = self._compose(choosing)
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
        """Return whether `override` chooses a yaml file, such as norm=group."""
        if isinstance(override.value(), dict):
            return False
        key = str(override.key_or_group)
        is_users_group = (
            self._config_dir is not None and (self._config_dir / key).is_dir()
        )
        return key in groups() or is_users_group

    def _compose(self, choosing: Sequence[Override]) -> _Composition:
        """Compose the yaml files that the overrides `choosing` choose."""
        files = [self._users_file(override) for override in choosing]
        users_files = [file for file in files if file is not None]
        lines = [_line(override) for override in choosing]
        if self._config_dir is not None:
            folder = json.dumps(address(self._config_dir), ensure_ascii=False)
            lines.insert(0, f"hydra.searchpath=[{folder}]")
        with (
            hydra.initialize_config_dir(str(config_root()), version_base="1.3"),
            explained_files(users_files),
        ):
            config = hydra.compose("config", lines)
            raw: Any = OmegaConf.to_container(config)
            _require_bounded(raw, users_files)
            _open_mappings(config)
        optimizers = [o for o in choosing if o.key_or_group == "optimizer"]
        if optimizers and self._has_users_rate(raw.get("optimizer"), optimizers[-1]):
            # The task's learning rates are for built-in optimizers. Without them,
            # `resolve` takes the rate of the user's optimizer.
            config["lr"] = {}
        values = None if interpolates(raw) else _resolved(config, users_files)
        return _Composition(config, values, users_files)

    def _users_file(self, override: Override) -> Path | None:
        """Return the user's yaml file that `override` chooses; None if built in."""
        if self._config_dir is None:
            return None
        group, name = str(override.key_or_group), override.value()
        file = self._config_dir / group / f"{name}.yaml"
        return file if file.is_file() else None

    def _has_users_rate(self, section: Any, override: Override) -> bool:
        """Return whether a user's optimizer yaml sets the learning rate.

        `section` is the composed optimizer. A rate that the yaml inherits from a
        built-in optimizer does not count.
        """
        file, built_in = self._users_file(override), choices("optimizer")
        if file is None or file.stem in built_in or not isinstance(section, dict):
            return False  # of two files with the same name, Hydra uses the built-in one
        values = yaml_value(file)
        if isinstance(values, dict) and "lr" in values:
            return True
        parent = built_in.get(str(section.get("name")))
        inherited_rate = yaml_value(parent).get("lr") if parent else None
        return section.get("lr") not in (None, inherited_rate)


def _key(choosing: Sequence[Override]) -> tuple[str, ...]:
    """Return the lines of `choosing`, sorted if their order has no effect."""
    lines = tuple(str(override.input_line) for override in choosing)
    different = len({o.get_key_element() for o in choosing}) == len({*lines})
    if different and all(o.type is OverrideType.CHANGE for o in choosing):
        return tuple(sorted({*lines}))
    return lines


def _line(override: Override) -> str:
    """Return `override` as text for Hydra, a file name such as 20 in quotes."""
    line = str(override.input_line)
    if isinstance(override.value(), int | float):
        key, _, name = line.partition("=")
        return f'{key}="{name}"'
    return line


def _is_plain(override: Override) -> bool:
    """Return whether `override` only changes the value of an existing key."""
    value = override.value()
    return (
        override.type is OverrideType.CHANGE
        and override.package is None
        and not isinstance(value, dict)
        and not interpolates(value)
    )


def _set(values: dict[str, Any], override: Override) -> bool:
    """Set the value of `override`. Return False if `values` have no such key."""
    group, _, last = str(override.key_or_group).rpartition(".")
    section = nested(values, group)
    if not isinstance(section, dict) or last not in section:
        return False
    section[last] = override.value()
    return True


def _open_mappings(config: DictConfig) -> None:
    """Let overrides add keys to a mapping inside a section, such as engine.options."""
    for section in config.keys():
        if OmegaConf.is_dict(config._get_node(section)):
            for key in config[section]:
                node = config[section]._get_node(key)
                if OmegaConf.is_dict(node):
                    OmegaConf.set_struct(node, False)


def _require_bounded(raw: Any, files: Sequence[Path]) -> None:
    """Raise RequestError if the interpolations may expand to a text that is too long.

    A value may refer k1 times to a value that refers k2 times to a third value, and so
    on. Then the text grows by the factor k1 * k2 * .. With n interpolations in total,
    the factor is at most 3^(n / 3).
    """
    if not interpolates(raw):
        return
    text = repr(raw)
    count = text.count("${")
    # 100 interpolations are always too many. More would overflow the power.
    if len(text) * 3 ** (min(count, 100) / 3) > MAX_EXPANDED_LENGTH:
        where = f" ({' or '.join(map(str, files))})" if files else ""
        raise RequestError(
            f"the config has {count} interpolations{where}, which may stand for more "
            f"than {MAX_EXPANDED_LENGTH:,} characters; write plain values"
        )


def _resolved(config: DictConfig, files: Sequence[Path]) -> dict[str, Any]:
    """Return `config` as a plain dict, with its interpolations replaced by values."""
    with explained_files(files):
        _require_bounded(OmegaConf.to_container(config), files)
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
