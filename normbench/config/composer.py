"""Parsed overrides -> composed values, by Hydra; what is wrong is said in one line."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import GrammarParseError

from normbench.config.choices import choices, config_root, groups
from normbench.config.overrides import shortened
from normbench.config.suggestions import suggested_key
from normbench.config.yaml_source import address
from normbench.errors import RequestError

MOST_EXPANDED = 2**23
"""Characters of a config at most, with every interpolation replaced by its value."""


class Composer:
    """Overrides of one value each -> composed values, open defaults still open.

    Hydra takes a fifth of a second to compose. Here it does so once for each distinct
    choice of groups. Values are laid on what came out, as parsed: plain ones on a
    plain dict; an addition, a deletion, a mapping or an interpolation by the function
    that Hydra itself uses after its composition.
    """

    def __init__(self, config_dir: Path | None = None) -> None:
        self._config_dir = config_dir
        self._composed: dict[tuple[str, ...], _Composition] = {}

    def __call__(self, overrides: Sequence[Override]) -> dict[str, Any]:
        """Values of the caller's own, free to be changed.

        Raises RequestError naming the key, the value and what would be right.
        """
        chosen = [o for o in overrides if is_choice(o, self._config_dir)]
        values = [o for o in overrides if not is_choice(o, self._config_dir)]
        composition = self._compose(chosen)
        if not composition.interpolates and all(map(_is_plain, values)):
            laid = copy.deepcopy(composition.values)
            if all(_lay(laid, override) for override in values):
                return laid
        config = copy.deepcopy(composition.config)
        for override in values:
            with _explained(self._config_dir, chosen, config, override):
                ConfigLoaderImpl._apply_overrides_to_config([override], config)
        return _resolved(config, chosen, self._config_dir)

    def _compose(self, chosen: Sequence[Override]) -> "_Composition":
        key = tuple(str(override.input_line) for override in chosen)
        if key not in self._composed:
            self._composed[key] = _compose(chosen, self._config_dir)
        return self._composed[key]


@dataclass(frozen=True)
class _Composition:
    """What Hydra composed. interpolates: a value there is made of others."""

    config: DictConfig
    values: dict[str, Any]
    interpolates: bool


def is_choice(override: Override, config_dir: Path | None) -> bool:
    """Whether `override` chooses a yaml of a group, not a value."""
    key = str(override.key_or_group)
    own = config_dir is not None and (config_dir / key).is_dir()
    return (key in groups() or own) and not isinstance(override.value(), dict)


def _is_plain(override: Override) -> bool:
    value = override.value()
    return (
        override.type is OverrideType.CHANGE
        and override.package is None
        and not isinstance(value, dict)
        and not _interpolates(value)
    )


def _interpolates(value: Any) -> bool:
    """Whether a text in `value` has OmegaConf's ${KEY} in it."""
    if isinstance(value, dict):
        return any(map(_interpolates, value.values()))
    if isinstance(value, list):
        return any(map(_interpolates, value))
    return isinstance(value, str) and "${" in value


def _lay(values: dict[str, Any], override: Override) -> bool:
    """Set the value of `override`; False if `values` have no such key."""
    *sections, last = str(override.key_or_group).split(".")
    section: Any = values
    for name in sections:
        section = section.get(name) if isinstance(section, dict) else None
    if not isinstance(section, dict) or last not in section:
        return False
    section[last] = override.value()
    return True


def _compose(chosen: Sequence[Override], config_dir: Path | None) -> _Composition:
    if config_dir is not None and not config_dir.is_dir():
        raise RequestError(f"--config-dir {config_dir} is not a folder")
    search = []
    if config_dir is not None:
        folder = address(config_dir)
        search = [f"hydra.searchpath=[{json.dumps(folder, ensure_ascii=False)}]"]
    lines = [_choice(override) for override in chosen]
    with (
        hydra.initialize_config_dir(str(config_root()), version_base="1.3"),
        _explained(config_dir, chosen),
    ):
        config = hydra.compose("config", [*search, *lines])
        if _has_own_rate(config, chosen, config_dir):
            config["lr"] = {}  # the task's rate is of the built-in optimizer
        raw = OmegaConf.to_container(config)
        _require_bounded(raw, chosen, config_dir)
    # An interpolation may be of a value that is laid on later.
    if _interpolates(raw):
        return _Composition(config, {}, interpolates=True)
    values = _resolved(config, chosen, config_dir)
    return _Composition(config, values, interpolates=False)


def _choice(override: Override) -> str:
    """What Hydra reads; a yaml that is named by a number is chosen by a text."""
    line = str(override.input_line)
    if isinstance(override.value(), int | float):
        key, _, name = line.partition("=")
        return f'{key}="{name}"'
    return line


def _has_own_rate(
    config: DictConfig, chosen: Sequence[Override], config_dir: Path | None
) -> bool:
    """Whether the optimizer is chosen by a yaml of the user's own, with a rate in it.

    A rate that the yaml has from a built-in one, by its defaults list, is none.
    """
    optimizers = [o for o in chosen if o.key_or_group == "optimizer"]
    section = config.get("optimizer")
    for file in _own_files(optimizers[-1:], config_dir):
        if not isinstance(section, DictConfig) or file.stem in choices("optimizer"):
            return False  # of two files of one name, Hydra takes the built-in one
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        built_in = choices("optimizer").get(str(section.get("name")))
        inherited = yaml.safe_load(built_in.read_text()) if built_in else {}
        named = isinstance(values, dict) and "lr" in values
        return named or section.get("lr") not in (None, inherited.get("lr"))
    return False


def _require_bounded(
    raw: Any, chosen: Sequence[Override], config_dir: Path | None
) -> None:
    """Raise RequestError where interpolations of interpolations may grow too large.

    Values with k1, k2, .. interpolations, each of the next, grow by k1 * k2 * ..; for n
    in all that is 3^(n / 3) at most.
    """
    if not _interpolates(raw):
        return
    text = repr(raw)
    count = text.count("${")
    if len(text) * 3 ** (min(count, 100) / 3) > MOST_EXPANDED:
        own = _own_files(chosen, config_dir)
        where = f" ({' or '.join(map(str, own))})" if own else ""
        raise RequestError(
            f"the config has {count} interpolations{where}, which may stand for more "
            f"than {MOST_EXPANDED:,} characters; write plain values"
        )


def _resolved(
    config: DictConfig, chosen: Sequence[Override], config_dir: Path | None
) -> dict[str, Any]:
    with _explained(config_dir, chosen, config):
        _require_bounded(OmegaConf.to_container(config), chosen, config_dir)
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


@contextmanager
def _explained(
    config_dir: Path | None,
    chosen: Sequence[Override],
    config: DictConfig | None = None,
    override: Override | None = None,
) -> Iterator[None]:
    """Whatever Hydra, OmegaConf and PyYAML raise on what a user wrote, in one line.

    `config` is what was composed so far, `override` the value that is laid on it.
    """
    try:
        yield
    except RequestError:
        raise
    except Exception as error:  # OmegaConf and PyYAML raise many kinds
        if _was_interrupted(error):
            raise KeyboardInterrupt from None
        if override is not None and config is not None:
            message = _explain_key(override, config, config_dir)
        else:
            message = None if config is None else _explain_interpolation(config)
        if message is None:
            message = _explain_files(error, chosen, config_dir)
        raise RequestError(message) from None


def _was_interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C came first, and OmegaConf failed as it cleaned up."""
    context = error.__context__
    return isinstance(context, KeyboardInterrupt) or (
        context is not None and _was_interrupted(context)
    )


def _explain_files(
    error: Exception, chosen: Sequence[Override], config_dir: Path | None
) -> str:
    reason = " ".join(str(error).split())
    if isinstance(error, RecursionError):
        reason = "it contains itself or is nested too deeply"
    elif "integer string conversion" in reason:
        reason = "an integer has too many digits"
    elif isinstance(error.__cause__ or error.__context__, GrammarParseError):
        reason = _NO_INTERPOLATION
    elif not isinstance(error, yaml.YAMLError | UnicodeDecodeError | OSError):
        return _in_one_line(error)
    if isinstance(error, OSError):  # Hydra's, of a file that is not there
        reason = reason.partition(" Config search path:")[0]
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{mark.name} is not yaml: {error.problem} in line {mark.line + 1}"
    own = _own_files(chosen, config_dir)
    where = f" ({' or '.join(map(str, own))})" if own else ""
    return f"a config file cannot be read{where}: {reason}"


def _own_files(chosen: Sequence[Override], config_dir: Path | None) -> list[Path]:
    """The chosen yaml files of the user's own."""
    if config_dir is None:
        return []
    files = [config_dir / str(o.key_or_group) / f"{o.value()}.yaml" for o in chosen]
    return [file for file in files if file.is_file()]


def _in_one_line(error: Exception) -> str:
    """Without the keys that OmegaConf adds to what is a key already."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith("object_type=")]
    text = "; ".join(kept).partition("; Config search path:")[0]
    return text[:500] or f"the config cannot be composed: {type(error).__name__}"


def _explain_interpolation(config: DictConfig) -> str | None:
    """The first value that cannot be resolved, and why."""
    try:
        raw = OmegaConf.to_container(config)
    except Exception:  # of any kind: the first error is told instead
        return None
    assert isinstance(raw, dict)
    for key, value in _leaves(raw):
        try:
            OmegaConf.select(config, key, throw_on_missing=True)
        except Exception as error:  # resolvers raise whatever they like
            reason = _in_one_line(error).split("; full_key")[0]
            if isinstance(error, RecursionError):
                reason = "it is made of itself"
            elif not str(error):
                reason = _NO_INTERPOLATION
            shown = "" if value == "???" else f"={shortened(str(value))}"
            return f"{key}{shown}: {reason}"
    return None


_NO_INTERPOLATION = "${ begins no interpolation; write ${KEY}, or \\${ for the text"


def _leaves(section: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _explain_key(
    override: Override, config: DictConfig, config_dir: Path | None
) -> str | None:
    """What is wrong with the key of a value; None if it is there."""
    key = str(override.key_or_group)
    if override.is_add() or override.is_force_add():
        section = key.rpartition(".")[0]
        if section and not OmegaConf.is_config(_found(config, section)):
            return f"{key} is not a key; {section} has no keys"
        return None
    value = override.value()
    try:
        raw = OmegaConf.to_container(config)
    except Exception:  # of any kind: the first error is told instead
        return None
    assert isinstance(raw, dict)
    known = {name for name in _keys(raw) if not name.startswith("lr.")}
    if key in known and isinstance(value, dict):
        new = [f"{key}.{name}" for name in value if f"{key}.{name}" not in known]
        key = new[0] if new else key
    if key in known:
        if _interpolates(value):
            return f"{shortened(str(override.input_line))}: {_NO_INTERPOLATION}"
        return None
    key = key[:100]
    section = key.rpartition(".")[0]
    if section == "lr":
        return f"{key} is not a key; write lr=NUMBER, the rate of the chosen optimizer"
    parent = _found(config, section) if section else config
    if section and section in known and not OmegaConf.is_config(parent):
        return f"{key} is not a key; {section} is a value, which has no keys"
    name = parent.get("name") if section and OmegaConf.is_dict(parent) else None
    owner = f" of {section}={name}" if name else ""
    suggestion = suggested_key(key, known, config_dir)
    if section or not suggestion.startswith("known") or not isinstance(value, str):
        return f"{key} is not a key{owner}; {suggestion}"
    return (
        f"{key} is not a key; the file {key}/{value}.yaml of a folder of your own is "
        f"chosen by --config-dir FOLDER +{key}={value}; {suggestion}"
    )


def _found(config: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(config, key)
    except Exception:  # a section that cannot be resolved is none
        return None


def _keys(section: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    for key, value in section.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")
