"""Turns errors of Hydra, OmegaConf and PyYAML into messages of one line."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import GrammarParseError

from normbench.config.suggestions import suggested_key
from normbench.errors import RequestError, shortened

NO_INTERPOLATION = "${ must begin an interpolation; write ${KEY}, or \\${ for the text"


def interpolates(value: Any) -> bool:
    """Return whether `value` contains an interpolation of OmegaConf, ${KEY}."""
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return any(map(interpolates, items))
    return isinstance(value, str) and "${" in value


def nested(values: Any, key: str) -> Any:
    """Return the value at the dotted `key`, or None if the key is missing.

    If `key` is "", return `values`.
    """
    for name in key.split(".") if key else ():
        values = values.get(name) if isinstance(values, dict) else None
    return values


def explained_files(files: Sequence[Path]) -> AbstractContextManager[None]:
    """Turn an exception in the block into a RequestError that names `files`.

    `files` are the user's yaml files that the block composes.
    """
    where = f" ({' or '.join(map(str, files))})" if files else ""
    return explained(f"a config file cannot be read{where}")


@contextmanager
def explained(
    subject: str, diagnosis: Callable[[], str | None] = lambda: None
) -> Iterator[None]:
    """Turn an exception in the block into a RequestError of one line.

    The message is the text that `diagnosis` returns. If it returns None, the message
    begins with the key that the exception names, or otherwise with `subject`.
    """
    try:
        yield
    except RequestError:
        raise
    except Exception as error:  # OmegaConf and PyYAML raise many kinds
        if _was_interrupted(error):
            raise KeyboardInterrupt from None
        raise RequestError(diagnosis() or _one_line(error, subject)) from None


def _was_interrupted(error: BaseException) -> bool:
    """Return whether Ctrl-C caused `error`.

    After Ctrl-C, OmegaConf may raise another error while it cleans up.
    """
    context = error.__context__
    return isinstance(context, KeyboardInterrupt) or (
        context is not None and _was_interrupted(context)
    )


def _one_line(error: Exception, subject: str) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{mark.name} is not yaml: {error.problem} in line {mark.line + 1}"
    lines = [line.strip() for line in str(error).splitlines()]
    details = ("full_key:", "object_type=")  # lines that OmegaConf adds to its message
    lines = [line for line in lines if line and not line.startswith(details)]
    reason = "; ".join(lines).partition("Config search path:")[0].rstrip("; ")[:500]
    if isinstance(error, RecursionError):
        reason = "it contains itself or is nested too deeply"
    elif "integer string conversion" in reason:
        reason = "an integer has too many digits"
    # OmegaConf raises its own error from the error of its parser.
    elif isinstance(error.__cause__ or error.__context__ or error, GrammarParseError):
        reason = NO_INTERPOLATION
    key = getattr(error, "full_key", None)
    return f"{key or subject}: {reason or type(error).__name__}"


def key_mistake(
    override: Override, config: DictConfig, config_dir: Path | None
) -> str | None:
    """Return what is wrong with the key of `override`; None if the key is right."""
    key, value = str(override.key_or_group), override.value()
    raw = OmegaConf.to_container(config)
    section = key.rpartition(".")[0]
    if override.is_add() or override.is_force_add():
        has_keys = isinstance(nested(raw, section), dict)
        return None if has_keys else f"{key} is not a key; {section} has no keys"
    # Keys such as lr.sgd are in the config, but a user writes lr=NUMBER.
    known = {name for name in _keys(raw) if not name.startswith("lr.")}
    if key in known and isinstance(value, dict):
        # If a key inside the mapping is unknown, the message is about this key.
        unknown = [f"{key}.{name}" for name in value if f"{key}.{name}" not in known]
        key, section = (unknown[0], key) if unknown else (key, section)
    if key in known:
        line = shortened(override.input_line)
        return f"{line}: {NO_INTERPOLATION}" if interpolates(value) else None
    key = key[:100]
    if section == "lr":
        return f"{key} is not a key; write lr=NUMBER, the rate of the chosen optimizer"
    parent = nested(raw, section)
    if section in known and not isinstance(parent, dict):
        return f"{key} is not a key; {section} is a value, which has no keys"
    name = parent.get("name") if section and isinstance(parent, dict) else None
    owner = f" of {section}={name}" if name else ""
    suggestion = suggested_key(key, known, config_dir)
    # A key without a similar key may be a group in the user's own config folder.
    if section or not suggestion.startswith("known") or not isinstance(value, str):
        return f"{key} is not a key{owner}; {suggestion}"
    return (
        f"{key} is neither a key nor a group; `normbench config` prints all keys; a "
        f"group of your own, FOLDER/{key}/{value}.yaml, needs --config-dir FOLDER "
        f"+{key}={value}"
    )


def _keys(section: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a config, such as "norm" and "norm.name"."""
    if isinstance(section, Mapping):
        for key, value in section.items():
            yield f"{prefix}{key}"
            yield from _keys(value, f"{prefix}{key}.")
