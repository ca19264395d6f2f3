"""The user's modules that a command line names, which may therefore be imported.

A module is named by --module, or by the model of task=module: in an override such as
task.model=nets:build, or in a yaml of the user's own config folder that an override
chooses. A record, a saved config or a claim names none: it may come from a stranger.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from normbench.config.choices import config_root
from normbench.config.composer import Composer
from normbench.config.overrides import parse, single_values, words
from normbench.system.imports import import_modules, module_of


def import_named(
    modules: Sequence[str] | None,
    overrides: Sequence[str] | None = None,
    arms: Sequence[str] | None = None,
    config_dir: Path | None = None,
) -> tuple[str, ...]:
    """Import the modules that a command line names, and return their names.

    `modules` are the values of --module, `overrides` the KEY=VALUE arguments, and
    `arms` the texts of --arm. Raises RequestError if one of them is wrong, or if a
    module cannot be imported.
    """
    texts = [*(overrides or ()), *(word for arm in arms or () for word in words(arm))]
    models = [model for text in texts for model in _models(text, config_dir)]
    of_models = [name for name in map(module_of, models) if name is not None]
    names = tuple(dict.fromkeys([*(modules or ()), *of_models]))
    import_modules(names)
    return names


def _models(text: str, config_dir: Path | None) -> Iterator[str]:
    """Yield the models of task=module that an override names."""
    override = parse(text, config_dir)
    key = str(override.key_or_group)
    if key not in ("task", "task.model") or override.is_delete():
        return
    for single in single_values(override, config_dir):
        model = _model(single, key, config_dir)
        if isinstance(model, str):
            yield model


def _model(override: Override, key: str, config_dir: Path | None) -> Any:
    value = override.value()
    if key == "task.model":
        return value
    if isinstance(value, dict):
        return value.get("model")
    if config_dir is None or (config_root() / "task" / f"{value}.yaml").is_file():
        return None
    section = Composer(config_dir)([override]).get("task")
    if not isinstance(section, dict) or section.get("name") != "module":
        return None
    return section.get("model")
