"""Overrides -> RunConfig: composed by Hydra, typed, every name and option checked."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from pathlib import Path
from typing import Annotated, Any

import hydra
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, TypeAdapter, ValidationError

from normbench.choices import choices, config_root, groups
from normbench.data.base import REGISTRY as DATA
from normbench.errors import RequestError, did_you_mean
from normbench.norms.base import REGISTRY as NORMS
from normbench.probes.trained import PROBES
from normbench.registry import Registry, explain
from normbench.reparam import REPARAMS
from normbench.schema import (
    ADDED_LATER,
    NOT_HASHED,
    Engine,
    Options,
    RunConfig,
)
from normbench.tasks.base import REGISTRY as TASKS
from normbench.wandb_variables import tracker_section


def compose(overrides: Sequence[str], config_dir: Path | None = None) -> RunConfig:
    """The config that `overrides` (Hydra's grammar) ask for, resolved and checked.

    `config_dir` holds a user's own groups, such as `norm/mine.yaml`. Raises
    RequestError naming the key, the value and what would be right.
    """
    parsed = [parse(text, config_dir) for text in overrides]
    for override in parsed:
        if override.is_sweep_override():
            raise RequestError(
                f"{override.input_line!r} names several values, but this command does "
                f"one run; name one value, write {override.key_or_group}=[...] for a "
                "list, or use `normbench sweep`"
            )
    return resolve(Composer(config_dir)(parsed))


def resolve(raw: Mapping[str, Any]) -> RunConfig:
    """A composed config with its options checked and its open defaults filled in."""
    config = dict(raw)
    if "engine" in config:
        engine(config.pop("engine"))
    task = TASKS.get(_name(config, "task"))
    norm = _name(config, "norm")
    aliased = {**config["norm"], "name": task.norm_aliases.get(norm, norm)}
    config["norm"] = _checked(NORMS, aliased)
    config["task"] = _checked(TASKS, config["task"])
    _name(config, "data")
    config["data"] = _checked(DATA, config["data"])
    kind = DATA.get(config["data"]["name"]).kind
    if kind is not task.data_kind:
        raise RequestError(
            f"data={config['data']['name']} gives {kind.__name__}; "
            f"task={task.name} needs {task.data_kind.__name__}"
        )
    config["data"] = _with_fingerprint(config["data"])
    if isinstance(config.get("tracker"), dict):
        config["tracker"] = tracker_section(config["tracker"])
    if config.get("norm_batch") is None:
        config["norm_batch"] = max(
            1, _whole(config, "batch_size") // max(1, _whole(config, "accumulate"))
        )
    try:
        checked = RunConfig(**config)
    except ValidationError as error:
        raise RequestError(_explain_fields(error)) from None
    _check_batch_sizes(checked)
    for probe in checked.probes:
        if probe not in PROBES.names():
            raise RequestError(
                f"probes={probe} is unknown; {did_you_mean(probe, PROBES.names())}"
            )
        if not issubclass(kind, PROBES.data(probe)):
            raise RequestError(
                f"probes={probe} measures networks on {PROBES.data(probe).__name__}; "
                f"task={task.name} is on {kind.__name__}"
            )
    if checked.reparam not in REPARAMS:
        raise RequestError(
            f"reparam={checked.reparam} is unknown; "
            f"{did_you_mean(checked.reparam, REPARAMS)}"
        )
    return checked


_ENGINE: TypeAdapter[Engine] = TypeAdapter(
    Annotated[Engine, Field(discriminator="name")]
)


def engine(section: Mapping[str, Any]) -> Engine:
    """The checked `engine` section of a composed config: how a sweep is done."""
    try:
        return _ENGINE.validate_python(section)
    except ValidationError as error:
        told = explain(error, "engine.")
        # The loc of what a choice of several types has wrong begins with the choice.
        prefix = f"engine.{section.get('name')}."
        raise RequestError(told.replace(prefix, "engine.")) from None


def compose_engine(overrides: Sequence[str], config_dir: Path | None = None) -> Engine:
    """The engine that `overrides` ask for. Raises RequestError where they ask for more.

    Such as engine=ray, engine.workers=4.
    """
    parsed = [parse(text, config_dir) for text in overrides]
    for override in parsed:
        key = str(override.key_or_group)
        if key.partition(".")[0] != "engine" or override.is_sweep_override():
            raise RequestError(
                f"{override.input_line!r} is no one engine; write engine=NAME "
                "engine.KEY=VALUE"
            )
    return engine(Composer(config_dir)(parsed)["engine"])


def run_id(config: RunConfig) -> str:
    """16 hex digits: the hash of all that changes the numbers, and of nothing else."""
    science = config.model_dump(mode="json", exclude=set(NOT_HASHED))
    for key, value_before in ADDED_LATER.items():
        *sections, last = key.split(".")
        section = reduce(lambda found, name: found.get(name, {}), sections, science)
        if last in section and section[last] == value_before:
            del section[last]
    if "fingerprint" in science["data"]:
        data = DATA.get(science["data"]["name"])
        for option in (data.path_options | data.not_hashed) & science["data"].keys():
            del science["data"][option]
    canonical = json.dumps(science, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def parse(text: str, config_dir: Path | None = None) -> Override:
    """One override, of one value or of several, by Hydra's parser.

    Raises RequestError for what is none, and for a choice that does not exist.
    """
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        key, equals, value = text.partition("=")
        raise RequestError(
            f"{text!r} is not an override; write KEY=VALUE, such as norm=group"
            # Such as ~/flowers, or a path with a comma in it.
            + (f", or '{key}=\"{value}\"' in a shell" if equals else "")
        ) from None
    key = str(override.key_or_group)
    if key.startswith("hydra"):
        raise RequestError(f"{text!r}: Hydra's own settings have no effect here")
    if key in groups() and not override.is_sweep_override():
        known = choices(key, config_dir)
        choice = str(override.value())
        if choice not in known:
            raise RequestError(
                f"{key}={choice} is unknown; {did_you_mean(choice, known)}"
            )
    return override


class Composer:
    """Overrides of one value each -> composed values, open defaults still open.

    Hydra takes a fifth of a second to compose. Here it does so once for each distinct
    choice of groups, and values are laid on what came out, as Hydra itself does after
    its composition; what is more than a plain value (an addition, a deletion, a
    mapping, an interpolation) is left to Hydra.
    """

    def __init__(self, config_dir: Path | None = None) -> None:
        self._config_dir = config_dir
        self._composed: dict[tuple[str, ...], _Composition] = {}

    def __call__(self, overrides: Sequence[Override]) -> dict[str, Any]:
        """Raises RequestError naming the key, the value and what would be right."""
        chosen = [o for o in overrides if o.key_or_group in groups()]
        values = [o for o in overrides if o.key_or_group not in groups()]
        if all(_is_plain(override) for override in overrides):
            composition = self._compose(chosen)
            if not composition.interpolates:
                try:
                    return reduce(_with_value, values, composition.values)
                except KeyError:
                    pass  # Hydra knows more forms of keys, and why this is none
        return self._compose(overrides).values

    def _compose(self, overrides: Sequence[Override]) -> "_Composition":
        key = tuple(str(override.input_line) for override in overrides)
        if key not in self._composed:
            self._composed[key] = _compose(overrides, self._config_dir)
        return self._composed[key]


@dataclass(frozen=True)
class _Composition:
    """What Hydra composed. interpolates: a value there is made of others."""

    values: dict[str, Any]
    interpolates: bool


def _is_plain(override: Override) -> bool:
    value = override.value()
    return (
        override.type is OverrideType.CHANGE
        and override.package is None
        and not isinstance(value, dict)
        and "${" not in str(value)
    )


def _with_value(values: dict[str, Any], override: Override) -> dict[str, Any]:
    """A copy of `values` with that of `override`; KeyError where it has no such key."""

    def laid(section: Any, path: Sequence[str]) -> dict[str, Any]:
        if not isinstance(section, dict) or path[0] not in section:
            raise KeyError(override.key_or_group)
        below = laid(section[path[0]], path[1:]) if path[1:] else override.value()
        return {**section, path[0]: below}

    return laid(values, override.key_or_group.split("."))


def _compose(overrides: Sequence[Override], config_dir: Path | None) -> _Composition:
    if config_dir is not None and not config_dir.is_dir():
        raise RequestError(f"--config-dir {config_dir} is not a folder")
    search = []
    if config_dir is not None:
        folder = f"file://{config_dir.resolve()}"
        search = [f"hydra.searchpath=[{json.dumps(folder, ensure_ascii=False)}]"]
    lines = [str(override.input_line) for override in overrides]
    with hydra.initialize_config_dir(str(config_root()), version_base="1.3"):
        try:
            composed = hydra.compose("config", [*search, *lines])
            raw = OmegaConf.to_container(composed)
            plain = OmegaConf.to_container(
                composed, resolve=True, throw_on_missing=True
            )
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            told = " ".join(str(error).split())
            raise RequestError(f"a config file cannot be read: {told}") from None
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            chosen = [
                str(o.input_line) for o in overrides if o.key_or_group in groups()
            ]
            try:
                known = hydra.compose("config", [*search, *chosen])
            except (HydraException, OmegaConfBaseException):
                known = OmegaConf.create()
            told = _explain_composition(error, overrides, known)
            raise RequestError(told) from None
    assert isinstance(plain, dict)
    values = {str(key): value for key, value in plain.items()}
    return _Composition(values, interpolates=raw != plain)


def _explain_composition(
    error: Exception, overrides: Iterable[Override], known: DictConfig
) -> str:
    """The override that named no key, with close matches; else Hydra's own message."""
    keys = _flat_keys(known)
    for override in overrides:
        key = str(override.key_or_group)
        if keys and key not in keys and key not in groups() and not override.is_add():
            section = key.rpartition(".")[0]
            near = {k for k in keys if k.rpartition(".")[0] == section} or keys
            owner = (
                f" of {section}={known[section].get('name')}"
                if (section in known and "name" in known[section])
                else ""
            )
            return f"{key} is not a key{owner}; {did_you_mean(key, near)}"
    return "\n".join(str(error).splitlines()[:3])


def _flat_keys(config: Any, prefix: str = "") -> set[str]:
    keys = set()
    for key in config:
        keys.add(f"{prefix}{key}")
        if isinstance(config[key], DictConfig):
            keys |= _flat_keys(config[key], f"{prefix}{key}.")
    return keys


def _name(config: Mapping[str, Any], group: str) -> str:
    section = config.get(group)
    if not isinstance(section, dict) or not isinstance(section.get("name"), str):
        raise RequestError(f"{group} must name one of {', '.join(choices(group))}")
    return str(section["name"])


def _checked(registry: Registry[Any], section: dict[str, Any]) -> dict[str, Any]:
    name = section["name"]
    options = {key: value for key, value in section.items() if key != "name"}
    return {"name": name, **registry.options(name, options)}


def _with_fingerprint(section: Options) -> Options:
    """The options of a data set of files, with the hash of what is in them.

    Paths lead to the same files from any folder: where a worker or a later run is.
    """
    if "fingerprint" not in section:
        return section
    options = {key: value for key, value in section.items() if key != "name"}
    found = hash_files(section["name"], json.dumps(options | {"fingerprint": None}))
    if section["fingerprint"] not in {None, found}:
        raise RequestError(
            f"data.fingerprint={section['fingerprint']} is not that of the files: they "
            f"have {found}; they have changed, or the path is another's"
        )
    paths = DATA.get(section["name"]).path_options & section.keys()
    absolute = {option: _absolute(section[option]) for option in paths}
    return section | absolute | {"fingerprint": found}


def _absolute(path: str | list[str] | None) -> str | list[Any] | None:
    """A path or several; what is none, such as a name on the Hub, stays."""
    if isinstance(path, list):
        return [_absolute(one) for one in path]
    found = Path(path or "").expanduser()
    return str(found.absolute()) if path and found.exists() else path


@lru_cache(maxsize=16)
def hash_files(name: str, options: str) -> str:
    """Once for all runs of a plan; loading the data asks again whether it still holds.

    `options` (JSON) are of the data set `name`. Raises RequestError as it does.
    """
    found: str = DATA.get(name)(**json.loads(options)).hash_files()
    return found


def _whole(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    return value if isinstance(value, int) else 1


def _explain_fields(error: ValidationError) -> str:
    unknown = [e for e in error.errors() if e["type"] == "extra_forbidden"]
    if unknown:
        key = ".".join(str(part) for part in unknown[0]["loc"])
        return f"{key} is not a key; {did_you_mean(key, RunConfig.model_fields)}"
    return explain(error)


def _check_batch_sizes(config: RunConfig) -> None:
    micro_batch, rest = divmod(config.batch_size, config.accumulate)
    if rest:
        raise RequestError(
            f"accumulate={config.accumulate} does not divide "
            f"batch_size={config.batch_size}; {_divisors(config.batch_size)}"
        )
    if micro_batch % config.norm_batch:
        raise RequestError(
            f"norm_batch={config.norm_batch} does not divide the micro-batch of "
            f"{micro_batch} (batch_size / accumulate); {_divisors(micro_batch)}"
        )


def _divisors(number: int) -> str:
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    divisors = sorted({*small, *(number // d for d in small)})
    return f"its divisors are {', '.join(map(str, divisors))}"
