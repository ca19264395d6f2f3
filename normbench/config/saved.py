"""Configs that were saved: of a record, a run's folder, or `normbench config`."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from normbench.config.choices import groups
from normbench.config.composer import Composer
from normbench.config.composition import engine, resolve
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
    """The config in `file`, with `overrides` of one value each laid on it.

    The same file gives the same run. Raises RequestError naming the file, or the key,
    the value and what would be right, as `config.compose` does.
    """
    values = _read(file)
    derived = values.get("norm_batch") == _micro_batch(values)
    parsed = [parse(text, config_dir) for text in overrides]
    keys = {str(override.key_or_group) for override in parsed}
    for text, override in zip(overrides, parsed, strict=True):
        key, value = str(override.key_or_group), override.value()
        if override.is_sweep_override():
            raise RequestError(f"{text!r} names several values; name one")
        if override.is_add() or override.is_delete() or "${" in text:
            raise RequestError(f"{text!r}: with --from, write KEY=VALUE")
        if key.split(".")[0] == "engine":
            engine(Composer(config_dir)([override])["engine"])
            continue
        if key == "task" and not isinstance(value, dict):
            raise RequestError(
                f"{text!r}: a task brings data and rates of its own, which are not "
                "those of the file; leave --from out"
            )
        if key == "optimizer" and not isinstance(value, dict) and "lr" not in keys:
            raise RequestError(
                f"{text!r}: the file's lr={values.get('lr')} is not the rate of "
                f"another optimizer; give lr too, such as {key}={value} lr=0.001"
            )
        if key in groups() and not isinstance(value, dict):
            values[key] = Composer(config_dir)([override])[key]
            continue
        for name, item in _items(key, value):
            _require_key(values, name, config_dir)
            _require_same_name(values, name, item)
            _lay(values, name, item)
    if derived and keys & {"batch_size", "accumulate"} and "norm_batch" not in keys:
        values["norm_batch"] = None  # the micro-batch, which is another one now
    return resolve(values)


def _micro_batch(values: Mapping[str, Any]) -> int | None:
    size, parts = values.get("batch_size"), values.get("accumulate")
    if isinstance(size, int) and isinstance(parts, int) and parts > 0:
        return max(1, size // parts)
    return None


def _items(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A mapping on a section as the dotted keys that it names; else as it is."""
    if isinstance(value, dict) and key in _SECTIONS:
        yield from ((f"{key}.{name}", item) for name, item in value.items())
    else:
        yield key, value


_FIELDS: Mapping[str, Collection[str]] = {
    "budget": Budget.model_fields,
    "checkpoint": Checkpoint.model_fields,
    "tracker": TrackerConfig.model_fields,
}
_SECTIONS = {"task", "data", "norm", "optimizer", *_FIELDS}


def _require_key(values: Mapping[str, Any], key: str, config_dir: Path | None) -> None:
    """Raise RequestError for a key of no config, naming those it may stand for.

    The options of a task, its data and its norm are checked by their classes.
    """
    section, _, last = key.partition(".")
    fields = _FIELDS.get(section, ())
    if section == "optimizer":
        fields = _section(values, section)
    if section in RunConfig.model_fields and (not last or not fields or last in fields):
        return
    known = {*RunConfig.model_fields} | {
        f"{group}.{name}"
        for group in _SECTIONS
        for name in {*_FIELDS.get(group, ()), *_section(values, group)}
    }
    raise RequestError(f"{key} is not a key; {suggested_key(key, known, config_dir)}")


def _section(values: Mapping[str, Any], group: str) -> Mapping[str, Any]:
    section = values.get(group)
    return section if isinstance(section, dict) else {}


def _require_same_name(values: Mapping[str, Any], key: str, value: Any) -> None:
    """Raise RequestError for another name of a section: its options would stay."""
    group, _, last = key.partition(".")
    name = _section(values, group).get("name")
    if last == "name" and group in groups() and name not in (None, value):
        raise RequestError(
            f"{key}={value}: the other options are those of {group}={name}; write "
            f"{group}={value}"
        )


def same_run(before: RunRecord, overrides: Sequence[str] = ()) -> RunConfig:
    """The config of a finished run, checked; `overrides` say where its data are now.

    It has no tracker: a record cannot choose the project that a repetition is sent to.

    Raises RequestError where this version of normbench makes no such run of it, where
    an override is of something else, and where the data are not the same any more.
    """
    values = before.config.model_dump() | {"tracker": {"name": "none"}}
    options = classes("data").get(before.config.data.name).path_options
    paths = {option for option in options if before.config.data.options.get(option)}
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
        _require_content(before.config.data)
        config = resolve(values)
    except RequestError as error:
        gone = sorted(path for path in paths if _is_gone(values["data"][path]))
        known = " ".join(f"data.{each}=PATH" for each in gone)
        hint = f"; {known} says where its data are now" if gone else ""
        raise RequestError(
            f"run {before.run_id} cannot be done here: {error}{hint}"
        ) from None
    if run_id(config) != before.run_id:
        raise RequestError(
            f"run {before.run_id} was done by another version of normbench; this one "
            f"makes run {run_id(config)} of its config"
        )
    return config


def _is_gone(path: Any) -> bool:
    """Whether a path of a record, or one of several, is not here; a Hub's name is none.

    A record has absolute paths.
    """
    several = path if isinstance(path, list) else [path]
    paths = [Path(one) for one in several if isinstance(one, str)]
    return any(one.is_absolute() and not one.exists() for one in paths)


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
            raise RequestError(f"--from {file}: {key} is not a key; {_close(key)}")
        for name in section if isinstance(section, dict) else ():
            if not isinstance(name, str):
                raise RequestError(f"--from {file}: {key}.{name} is not a key")
    return values


def _lay(values: dict[str, Any], key: str, value: Any) -> None:
    """Set `key` ("norm.num_groups"); what it may be is checked afterwards."""
    *path, last = key.split(".")
    section = values
    for name in path:
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            raise RequestError(f"{key} is not a key: {name} has none below it")
    section[last] = value


def _close(key: str) -> str:
    return did_you_mean(str(key), RunConfig.model_fields)
