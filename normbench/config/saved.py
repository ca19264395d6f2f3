"""Configs that were saved: of a record, a run's folder, or `normbench config`."""

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
    """The config in `file`, changed by `overrides` of one value each.

    The same file gives the same run. Raises RequestError naming the file, or the key,
    the value and what would be right, as `composition.compose` does.
    """
    values = _read(file)
    derived = values.get("norm_batch") == micro_batch(values)
    parsed = [parse(text, config_dir) for text in overrides]
    keys = {str(override.key_or_group) for override in parsed}
    for text, override in zip(overrides, parsed, strict=True):
        if override.is_sweep_override():
            raise RequestError(f"{text!r} names several values; name one")
        if override.is_add() or override.is_delete() or "${" in text:
            raise RequestError(f"{text!r}: with --from, write KEY=VALUE")
        key, value = str(override.key_or_group), override.value()
        if key.split(".")[0] == "engine":
            engine(Composer(config_dir)([override])["engine"])
        elif key in groups() and not isinstance(value, dict):
            _require_fits(values, key, text, has_rate="lr" in keys)
            values[key] = Composer(config_dir)([override])[key]
        elif isinstance(value, dict) and key in {*_CLASSES, *_FIELDS}:
            for name, item in value.items():
                _change(values, f"{key}.{name}", item, config_dir)
        else:
            _change(values, key, value, config_dir)
    if derived and keys & {"batch_size", "accumulate"} and "norm_batch" not in keys:
        values["norm_batch"] = None  # it is derived again, from the new sizes
    return resolve(values)


def _require_fits(
    values: Mapping[str, Any], group: str, text: str, *, has_rate: bool
) -> None:
    """Raise RequestError if other values of the file belong to the old choice."""
    if group == "task":
        raise RequestError(
            f"{text!r}: a task brings data and rates of its own, which are not "
            "those of the file; leave --from out"
        )
    if group == "optimizer" and not has_rate:
        raise RequestError(
            f"{text!r}: the file's lr={values.get('lr')} is not the rate of "
            f"another optimizer; give lr too, such as {text} lr=0.001"
        )


_CLASSES = ("task", "data", "norm")
"""Sections whose options a class checks."""
_FIELDS: Mapping[str, Collection[str]] = {
    "budget": Budget.model_fields,
    "checkpoint": Checkpoint.model_fields,
    "tracker": TrackerConfig.model_fields,
    "optimizer": (),  # those of the file
}
"""The fields of the other sections, which a file may leave out."""


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
    if key not in known and (group not in _CLASSES or not option):
        suggestion = suggested_key(key, known, config_dir)
        raise RequestError(f"{key} is not a key; {suggestion}")
    section = _section(values, group)
    name = section.get("name")
    if option == "name" and group in groups() and name not in (None, value):
        raise RequestError(
            f"{key}={value}: the other options are those of {group}={name}; write "
            f"{group}={value}"
        )
    values[group] = {**section, option: value} if option else value


def _section(values: Mapping[str, Any], group: str) -> Mapping[str, Any]:
    section = values.get(group)
    return section if isinstance(section, dict) else {}


def same_run(before: RunRecord, overrides: Sequence[str] = ()) -> RunConfig:
    """The config of a finished run, checked; `overrides` say where its data are now.

    It has no tracker: a record cannot choose the project that a repetition is sent to.

    Raises RequestError if this version of normbench would do another run, if an
    override changes anything else, or if the data have changed.
    """
    values = before.config.model_dump() | {"tracker": {"name": "none"}}
    options = classes("data").get(before.config.data.name).path_options
    paths = sorted(name for name in options if before.config.data.options.get(name))
    for text in overrides:
        override = parse(text)
        section, _, option = str(override.key_or_group).partition(".")
        if section != "data" or option not in paths or override.is_sweep_override():
            known = f": {_as_overrides(paths)}" if paths else ", and these have no path"
            raise RequestError(
                f"{text!r}: a rerun takes only where its data are{known}"
            )
        values["data"][option] = override.value()
    try:
        _require_content(before.config.data)
        config = resolve(values)
    except RequestError as error:
        missing = [path for path in paths if _is_missing(values["data"][path])]
        hint = f"; {_as_overrides(missing)} says where its data are now"
        raise RequestError(
            f"run {before.run_id} cannot be done here: {error}{hint if missing else ''}"
        ) from None
    if run_id(config) != before.run_id:
        raise RequestError(
            f"run {before.run_id} was done by another version of normbench; this one "
            f"makes run {run_id(config)} of its config"
        )
    return config


def _as_overrides(paths: Sequence[str]) -> str:
    return " ".join(f"data.{name}=PATH" for name in paths)


def _is_missing(value: Any) -> bool:
    """Whether a path of a record, or one of several, does not exist here.

    A record has absolute paths; anything else is a name on the Hub.
    """
    texts = value if isinstance(value, list) else [value]
    paths = [Path(text) for text in texts if isinstance(text, str)]
    return any(path.is_absolute() and not path.exists() for path in paths)


def _require_content(choice: Choice) -> None:
    """Raise RequestError if an embedded data set has another content here."""
    data = classes("data").get(choice.name)
    if data.known_content is not None and choice.options.get("fingerprint") is None:
        data(**choice.options).require_content(None)


def _read(file: Path) -> dict[str, Any]:
    """The values in a config, in the config.yaml of a folder, or in a record."""
    if file.is_dir():
        file = file / "config.yaml"
    try:
        values = yaml_value(file)
    except OSError as error:
        raise RequestError(f"--from {file}: {error.strerror}") from None
    except Unreadable as error:
        why = error.why.removesuffix("; move it away")  # not of a path that was given
        raise RequestError(f"--from {file} cannot be read: {why}") from None
    if isinstance(values, dict) and "run_id" in values and "config" in values:
        values = values["config"]
    if not isinstance(values, dict) or not values.keys() & RunConfig.model_fields:
        raise RequestError(
            f"--from {file} is no config; name a run's config.yaml, or what `normbench "
            "config` printed"
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
