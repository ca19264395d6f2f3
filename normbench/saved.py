"""Configs that were saved: of a record, a run's folder, or `normbench config`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from normbench.choices import groups
from normbench.config import Composer, engine, parse, resolve, run_id
from normbench.data.base import REGISTRY as DATA
from normbench.errors import RequestError, Unreadable, did_you_mean
from normbench.reading import yaml_value
from normbench.schema import RunConfig, RunRecord


def compose_from(
    file: Path, overrides: Sequence[str] = (), config_dir: Path | None = None
) -> RunConfig:
    """The config in `file`, with `overrides` of one value each laid on it.

    The same file gives the same run. Raises RequestError naming the file, or the key,
    the value and what would be right, as `config.compose` does.
    """
    values = _read(file)
    for text in overrides:
        override = parse(text, config_dir)
        key, value = str(override.key_or_group), override.value()
        if override.is_sweep_override():
            raise RequestError(f"{text!r} names several values; name one")
        if override.is_add() or override.is_delete() or "${" in text:
            raise RequestError(f"{text!r}: with --from, write KEY=VALUE")
        if key.split(".")[0] == "engine":
            engine(Composer(config_dir)([override])["engine"])
            continue
        if key == "task":
            raise RequestError(
                f"{text!r}: a task brings data and rates of its own, which are not "
                "those of the file; leave --from out"
            )
        if key in groups():
            values[key] = Composer(config_dir)([override])[key]
        else:
            _lay(values, key, value)
    return resolve(values)


def same_run(before: RunRecord, overrides: Sequence[str] = ()) -> RunConfig:
    """The config of a finished run, checked; `overrides` say where its data are now.

    Raises RequestError where this version of normbench makes no such run of it, where
    an override is of something else, and where the data are not the same any more.
    """
    values = before.config.model_dump()
    paths = DATA.get(before.config.data["name"]).path_options
    for text in overrides:
        override = parse(text)
        section, _, option = str(override.key_or_group).partition(".")
        if section != "data" or option not in paths or override.is_sweep_override():
            known = " ".join(f"data.{each}=PATH" for each in sorted(paths))
            raise RequestError(
                f"{text!r}: a rerun takes only where its data are"
                + (f": {known}" if paths else ", and these have no path")
            )
        values["data"][option] = override.value()
    try:
        config = resolve(values)
    except RequestError as error:
        known = " ".join(f"data.{each}=PATH" for each in sorted(paths))
        hint = f"; {known} says where its data are now" if paths else ""
        raise RequestError(
            f"run {before.run_id} cannot be done here: {error}{hint}"
        ) from None
    if run_id(config) != before.run_id:
        raise RequestError(
            f"run {before.run_id} was done by another version of normbench; this one "
            f"makes run {run_id(config)} of its config"
        )
    return config


def _read(file: Path) -> dict[str, Any]:
    try:
        values = yaml_value(file)
    except OSError as error:
        raise RequestError(f"--from {file}: {error.strerror}") from None
    except Unreadable as error:
        raise RequestError(f"--from {file} cannot be read: {error.why}") from None
    if not isinstance(values, dict) or not values.keys() & RunConfig.model_fields:
        raise RequestError(
            f"--from {file} is no config; name a run's config.yaml, or what `normbench "
            "config` printed"
        )
    for key, section in values.items():
        if key not in RunConfig.model_fields:
            raise RequestError(f"--from {file}: {key} is not a key; {_close(key)}")
        for name in section if isinstance(section, dict) else ():
            if not isinstance(name, str):
                raise RequestError(f"--from {file}: {key}.{name} is not a key")
    return values


def _lay(values: dict[str, Any], key: str, value: Any) -> None:
    """Set `key` ("norm.num_groups"); what it may be is checked afterwards."""
    *path, last = key.split(".")
    if key.split(".")[0] not in RunConfig.model_fields:
        raise RequestError(f"{key} is not a key; {_close(key)}")
    section = values
    for name in path:
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            raise RequestError(f"{key} is not a key: {name} has none below it")
    section[last] = value


def _close(key: str) -> str:
    return did_you_mean(str(key), RunConfig.model_fields)
