"""Makes the config of a run from a saved config: a yaml file or a record."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from normbench.config.choices import groups
from normbench.config.composer import Composer
from normbench.config.composition import engine, micro_batch, resolve
from normbench.config.identity import run_id
from normbench.config.overrides import parse
from normbench.config.schema import (
    Budget,
    Checkpoint,
    Choice,
    Evaluation,
    RunConfig,
    RunRecord,
    TrackerConfig,
)
from normbench.config.suggestions import suggested_key
from normbench.errors import RequestError, Unreadable, did_you_mean
from normbench.registry import classes
from normbench.system.untrusted import yaml_value


def compose_from(
    file: Path, overrides: Sequence[str] = (), config_dir: Path | None = None
) -> RunConfig:
    """Return the config in `file`, changed by `overrides` with a single value.

    `file` is a run's folder, its config.yaml, its record, or the output of `normbench
    config`. Without overrides, the run id is that of the file. Raises RequestError with
    the file or the key, the value and what would be right.
    """
    values = _read(file)
    norm_batch_is_default = values.get("norm_batch") == micro_batch(values)
    parsed = [parse(text, config_dir) for text in overrides]
    keys = {str(override.key_or_group) for override in parsed}
    for text, override in zip(overrides, parsed, strict=True):
        if override.is_sweep_override():
            raise RequestError(f"{text!r} names several values; name one")
        if override.is_add() or override.is_delete() or "${" in text:
            raise RequestError(f"{text!r}: with --from, write KEY=VALUE")
        key, value = str(override.key_or_group), override.value()
        if key.split(".")[0] == "engine":
            # Only a check: the config of a run contains no engine.
            engine(Composer(config_dir)([override])["engine"])
        elif key in groups() and not isinstance(value, dict):
            _require_fits(values, key, text, has_rate="lr" in keys)
            values[key] = Composer(config_dir)([override])[key]
        elif isinstance(value, dict) and key in {*_CLASSES, *_FIELDS}:
            for name, item in value.items():
                _change(values, f"{key}.{name}", item, config_dir)
        else:
            _change(values, key, value, config_dir)
    if (
        norm_batch_is_default
        and keys & {"batch_size", "accumulate"}
        and "norm_batch" not in keys
    ):
        values["norm_batch"] = None  # `resolve` sets it to the new micro-batch
    return resolve(values)


def _require_fits(
    values: Mapping[str, Any], group: str, text: str, *, has_rate: bool
) -> None:
    """Raise RequestError if other values of the file fit only the previous choice."""
    if group == "task":
        raise RequestError(
            f"{text!r}: another task needs other data and another learning rate than "
            "those in the file; leave --from out"
        )
    if group == "optimizer" and not has_rate:
        raise RequestError(
            f"{text!r}: lr={values.get('lr')} in the file is the rate of the previous "
            f"optimizer; set lr too, such as {text} lr=0.001"
        )


_CLASSES = ("task", "data", "norm")
"""Sections whose options are parameters of a class."""
_FIELDS: Mapping[str, Collection[str]] = {
    "budget": Budget.model_fields,
    "checkpoint": Checkpoint.model_fields,
    "evaluation": Evaluation.model_fields,
    "tracker": TrackerConfig.model_fields,
    "optimizer": (),  # only the keys in the file: they depend on the optimizer
}
"""The known keys of each other section; a file may leave some of them out."""


def _change(
    values: dict[str, Any], key: str, value: Any, config_dir: Path | None
) -> None:
    """Set `key`, such as "norm.num_groups". Raises RequestError if it is not a key."""
    group, _, option = key.partition(".")
    known = {*RunConfig.model_fields} | {
        f"{name}.{field}"
        for name in (*_CLASSES, *_FIELDS)
        for field in (*_FIELDS.get(name, ()), *_section(values, name))
    }
    # `resolve` checks the options of a class, so they need not be in the file.
    is_class_option = group in _CLASSES and bool(option)
    if key not in known and not is_class_option:
        suggestion = suggested_key(key, known, config_dir)
        raise RequestError(f"{key} is not a key; {suggestion}")
    section = _section(values, group)
    name = section.get("name")
    if option == "name" and group in groups() and name not in (None, value):
        raise RequestError(
            f"{key}={value}: the other options in the file belong to {group}={name}; "
            f"write {group}={value}"
        )
    if "." in option:  # a key of a mapping, such as task.model_options.width
        option, _, inner = option.partition(".")
        mapping = section.get(option)
        value = {**(mapping if isinstance(mapping, dict) else {}), inner: value}
    values[group] = {**section, option: value} if option else value


def _section(values: Mapping[str, Any], group: str) -> Mapping[str, Any]:
    """Return the section `group` of a config; empty if it is missing."""
    section = values.get(group)
    return section if isinstance(section, dict) else {}


def same_run(before: RunRecord, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the config that repeats a finished run, without a tracker.

    `overrides` may only change the paths of its data. The config has no tracker, so
    that a record does not decide to which project a repetition is uploaded.

    Raises RequestError if an override sets another key, if the data have changed, or if
    the config has another run id in this version of normbench.
    """
    values = before.config.model_dump() | {"tracker": {"name": "none"}}
    options = classes("data").get(before.config.data.name).path_options
    paths = sorted(name for name in options if before.config.data.options.get(name))
    for text in overrides:
        override = parse(text)
        section, _, option = str(override.key_or_group).partition(".")
        if section != "data" or option not in paths or override.is_sweep_override():
            allowed = _as_overrides(paths) or "its data have none"
            raise RequestError(
                f"{text!r}: a rerun can only change paths of its data: {allowed}"
            )
        values["data"][option] = override.value()
    try:
        _require_content(before.config.data)
        config = resolve(values)
    except RequestError as error:
        missing = [path for path in paths if _is_missing(values["data"][path])]
        hint = f"; if the data have moved, add {_as_overrides(missing)}"
        raise RequestError(
            f"run {before.run_id} cannot be repeated: {error}{hint if missing else ''}"
        ) from None
    if run_id(config) != before.run_id:
        raise RequestError(
            f"run {before.run_id} is of another version of normbench: in this version, "
            f"the same config is run {run_id(config)}"
        )
    return config


def _as_overrides(paths: Sequence[str]) -> str:
    return " ".join(f"data.{name}=PATH" for name in paths)


def _is_missing(value: Any) -> bool:
    """Return whether `value`, a path or a list of paths, contains a missing path.

    The paths of a record are absolute. Other texts are names on the Hub.
    """
    texts = value if isinstance(value, list) else [value]
    paths = [Path(text) for text in texts if isinstance(text, str)]
    return any(path.is_absolute() and not path.exists() for path in paths)


def _require_content(choice: Choice) -> None:
    """Raise RequestError if data inside a package are not the known data."""
    data = classes("data").get(choice.name)
    if data.known_content is not None and choice.options.get("fingerprint") is None:
        data(**choice.options).require_content(None)


def _read(file: Path) -> dict[str, Any]:
    """Return the values in a config file, a folder's config.yaml, or a record."""
    if file.is_dir():
        file = file / "config.yaml"
    try:
        values = yaml_value(file)
    except OSError as error:
        raise RequestError(f"--from {file}: {error.strerror}") from None
    except Unreadable as error:
        # The user named this file, so the advice to move it away does not fit.
        why = error.why.removesuffix("; move it away")
        raise RequestError(f"--from {file} cannot be read: {why}") from None
    if isinstance(values, dict) and "run_id" in values and "config" in values:
        values = values["config"]
    if not isinstance(values, dict) or not values.keys() & RunConfig.model_fields:
        raise RequestError(
            f"--from {file} is not a config; name the config.yaml of a run or a file "
            "with the output of `normbench config`"
        )
    if "lr" in _section(values, "optimizer"):
        raise RequestError(
            f"--from {file}: optimizer.lr: the key of the learning rate is lr"
        )
    for key, section in values.items():
        if key not in RunConfig.model_fields:
            close = did_you_mean(str(key), RunConfig.model_fields)
            raise RequestError(f"--from {file}: {key} is not a key; {close}")
        for name in section if isinstance(section, dict) else ():
            if not isinstance(name, str):
                raise RequestError(f"--from {file}: {key}.{name} is not a key")
    return values
