"""Makes the checked config of a run from overrides or from composed values."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from normbench.config.choices import choices
from normbench.config.composer import Composer
from normbench.config.overrides import parse
from normbench.config.schema import SGD, AdamW, Engine, Options, RunConfig
from normbench.config.wandb_variables import tracker_section
from normbench.errors import RequestError, did_you_mean, shortened
from normbench.registry import classes, explain, functions, require_known


def compose(overrides: Sequence[str], config_dir: Path | None = None) -> RunConfig:
    """Return the resolved and checked config for `overrides` in Hydra's grammar.

    `config_dir` is a folder with the user's yaml files, such as `norm/mine.yaml`.
    Raises RequestError with the key, the value and what would be right.
    """
    parsed = [parse(text, config_dir) for text in overrides]
    for text, override in zip(overrides, parsed, strict=True):
        if override.is_sweep_override():
            raise RequestError(
                f"{shortened(text)} names several values, but this command does "
                f"one run; name one value, write {override.key_or_group}=[...] for a "
                "list, or use `normbench sweep`"
            )
    return resolve(Composer(config_dir)(parsed))


def resolve(raw: Mapping[str, Any]) -> RunConfig:
    """Check the composed values `raw` and return their config.

    A null that stands for a computed value, such as `norm_batch`, is replaced by it.
    Raises RequestError with the key, the value and what would be right.
    """
    config = dict(raw)
    if "engine" in config:
        engine(config.pop("engine"))
    _check_numbers(config)
    _settle_rate(config)
    task = classes("task").get(_name(config, "task"))
    norm = _name(config, "norm")
    aliased = {**config["norm"], "name": task.norm_aliases.get(norm, norm)}
    config["norm"] = _checked("norm", aliased)
    config["task"] = _checked("task", config["task"])
    _name(config, "data")  # raises if the config names no data set
    config["data"] = _checked("data", config["data"])
    kind = classes("data").get(config["data"]["name"]).kind
    kinds = task.data_kind if isinstance(task.data_kind, tuple) else (task.data_kind,)
    if kind not in kinds:
        raise RequestError(
            f"data={config['data']['name']} gives {kind.__name__}; "
            f"task={task.name} needs {' or '.join(k.__name__ for k in kinds)}"
        )
    config["data"] = _with_fingerprint(config["data"])
    if isinstance(config.get("tracker"), dict):
        config["tracker"] = tracker_section(config["tracker"])
    if config.get("norm_batch") is None:
        # RunConfig rejects sizes without a micro-batch; then 1 is never used.
        config["norm_batch"] = micro_batch(config) or 1
    try:
        checked = RunConfig(**config)
    except ValidationError as error:
        raise RequestError(_explain_fields(error, config)) from None
    _check_batch_sizes(checked)
    for probe in checked.probes:
        require_known("probes", probe, functions("probe").names())
        needed = functions("probe").data(probe)
        if not issubclass(kind, needed):
            raise RequestError(
                f"probes={probe} measures networks on {needed.__name__}; "
                f"task={task.name} is on {kind.__name__}"
            )
    require_known("reparam", checked.reparam, functions("reparam").names())
    return checked


_ENGINE: TypeAdapter[Engine] = TypeAdapter(
    Annotated[Engine, Field(discriminator="name")]
)


def engine(section: Mapping[str, Any]) -> Engine:
    """Check the `engine` section of a composed config, which says how a sweep runs."""
    known = choices("engine")
    name = str(section.get("name"))
    require_known("engine", name, known)
    try:
        return _ENGINE.validate_python(section)
    except ValidationError as error:
        message = explain(error, "engine.")
        # pydantic inserts the name of the engine into the path of the wrong key.
        prefix = f"engine.{section.get('name')}."
        raise RequestError(message.replace(prefix, "engine.")) from None


def compose_engine(overrides: Sequence[str], config_dir: Path | None = None) -> Engine:
    """Return the engine for `overrides`, such as engine=ray and engine.workers=4.

    Raises RequestError if an override sets a key outside `engine` or several values.
    """
    parsed = [parse(text, config_dir) for text in overrides]
    for override in parsed:
        key = str(override.key_or_group)
        if key.partition(".")[0] != "engine" or override.is_sweep_override():
            raise RequestError(
                f"{override.input_line!r} must name exactly one engine; write "
                "engine=NAME engine.KEY=VALUE"
            )
    return engine(Composer(config_dir)(parsed)["engine"])


def micro_batch(config: Mapping[str, Any]) -> int | None:
    """Return the samples of one forward pass; None if the sizes are not integers."""
    size, parts = config.get("batch_size"), config.get("accumulate")
    if isinstance(size, int) and isinstance(parts, int) and parts > 0:
        return max(1, size // parts)
    return None


def _name(config: Mapping[str, Any], group: str) -> str:
    section = config.get(group)
    if not isinstance(section, dict) or not isinstance(section.get("name"), str):
        raise RequestError(f"{group} must name one of {', '.join(choices(group))}")
    return str(section["name"])


def _checked(group: str, section: dict[str, Any]) -> dict[str, Any]:
    name = section["name"]
    options = {str(key): value for key, value in section.items() if key != "name"}
    return {"name": name, **classes(group).options(name, options)}


def _settle_rate(config: dict[str, Any]) -> None:
    """Replace `lr` by a number if it is a mapping from optimizers to learning rates.

    The yaml of a task may map an optimizer to a rate. Otherwise, the rate in the yaml
    of the optimizer is used.
    """
    if not isinstance(config.get("optimizer"), Mapping):
        raise RequestError(f"optimizer must name one of {', '.join(_OPTIMIZERS)}")
    config["optimizer"] = {**config["optimizer"]}
    optimizer = str(config["optimizer"].get("name"))
    require_known("optimizer.name", optimizer, _OPTIMIZERS)
    rate_of_optimizer = config["optimizer"].pop("lr", None)
    rates = config.get("lr")
    if isinstance(rates, Mapping):
        for name in rates.keys() - _OPTIMIZERS:
            raise RequestError(
                f"lr.{name} is the rate of no optimizer; "
                f"{did_you_mean(str(name), _OPTIMIZERS)}"
            )
        config["lr"] = rates.get(optimizer, rate_of_optimizer)
        if config["lr"] is None:
            raise RequestError(
                f"lr is missing: the yaml of optimizer={optimizer} has none; name one, "
                "such as lr=0.1"
            )


_OPTIMIZERS = ("adamw", "sgd")


def _check_numbers(value: Any, key: str = "") -> None:
    """Raise RequestError if `value` contains an integer of more than 64 bits."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            _check_numbers(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for item in value:
            _check_numbers(item, key)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise RequestError(f"{key} is an integer of more than 64 bits")


def _with_fingerprint(section: Options) -> Options:
    """Return the options of a data set with the hash of its content as `fingerprint`.

    `fingerprint` is None if the hash equals the `known_content` of the data set. Paths
    become absolute, because a worker or a later run may start in another folder.
    """
    if "fingerprint" not in section:
        return section
    data = classes("data").get(section["name"])
    options = {key: value for key, value in section.items() if key != "name"}
    content_hash = hash_files(
        section["name"], json.dumps(options | {"fingerprint": None})
    )
    if section["fingerprint"] not in {None, content_hash}:
        raise RequestError(
            f"data.fingerprint={section['fingerprint']} is not that of the data, which "
            f"is {content_hash}: files have changed, the path leads to other data, or "
            "a package has another version"
        )
    absolute = {
        option: _absolute(section[option])
        for option in data.path_options & section.keys()
    }
    is_known = content_hash == data.known_content
    return section | absolute | {"fingerprint": None if is_known else content_hash}


def _absolute(path: str | list[str] | None) -> str | list[Any] | None:
    """Make an existing path or a list of them absolute; return other text unchanged."""
    if isinstance(path, list):
        return [_absolute(item) for item in path]
    file = Path(path or "").expanduser()
    return str(file.absolute()) if path and file.exists() else path


@lru_cache(maxsize=16)
def hash_files(name: str, options: str) -> str:
    """Return the hash of the content of data set `name` with `options` (JSON).

    The cache serves all runs of a plan. A run checks the content again when it loads
    the data. Raises RequestError if the files cannot be read.
    """
    content_hash: str = classes("data").get(name)(**json.loads(options)).hash_files()
    return content_hash


def _explain_fields(error: ValidationError, config: Mapping[str, Any]) -> str:
    """Return a message that says which key is wrong and what would be right.

    pydantic inserts the name of the optimizer into a path; the message leaves it out.
    """
    name = config["optimizer"]["name"]
    unknown = [e["loc"] for e in error.errors() if e["type"] == "extra_forbidden"]
    if not unknown:
        message = explain(error).replace(f"optimizer.{name}: ", "optimizer.")
        return message.replace(f"optimizer.{name}.", "optimizer.")
    section, last = str(unknown[0][0]), str(unknown[0][-1])
    if len(unknown[0]) == 1:
        return f"{last} is not a key; {did_you_mean(last, RunConfig.model_fields)}"
    if section == "optimizer":
        model = SGD if name == "sgd" else AdamW
        options = model.model_fields.keys() - {"name"}
        return (
            f"optimizer.{last} is not an option of optimizer={name}; "
            f"{did_you_mean(last, options)}; to choose another optimizer, "
            f"write optimizer={name}"
        )
    annotation = RunConfig.model_fields[section].annotation
    known = getattr(annotation, "model_fields", {}).keys()
    return f"{section}.{last} is not a key; {did_you_mean(last, known)}"


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
