"""What a cell of a design compares: a norm, a task and a batch size, from overrides.

A cell is a list of overrides, such as `task=cnn norm=batch norm_batch=2 batch_size=32`.
This module splits it into the norm with its options, the batch sizes, and the rest,
without composing the config, because that would import Hydra.
"""

import json
import shlex
from collections.abc import Iterable, Mapping
from functools import cache
from math import log2
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from normbench.config.choices import choices
from normbench.errors import RequestError, did_you_mean
from normbench.system.untrusted import yaml_value
from normbench.verdicts.design import Design

TaskKind = Literal["images", "text", "style"]
TASKS: dict[TaskKind, str] = {"images": "cnn", "text": "transformer", "style": "style"}
"""What a user calls a task -> its name in a config."""
LAYER: dict[TaskKind, str] = {
    "images": "layer_sample",
    "text": "layer_position",
    "style": "layer_sample",
}
"""The norm that `norm=layer` means in each task (`norm_aliases` of its class)."""
USES_OTHER_SAMPLES = frozenset(
    "batch batch_masked batch_renorm batch_regularized power extended_batch "
    "evonorm_b0 batch_group batch_instance ibn switchable".split()
)
"""The built-in norms with `uses_other_samples`, without importing their classes."""
MAX_DIVISOR = 1024
"""The largest divisor of a batch size that a message names."""
BATCH_KEYS = ("batch_size", "norm_batch", "accumulate")


class Condition(BaseModel):
    """A batch size, and the number of samples that share a statistic.

    `samples_per_statistic` is None if no norm that is compared uses other samples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int
    samples_per_statistic: int | None

    def factors(self, asked: "Condition") -> tuple[float, ...]:
        """Return log2 of the factors between two conditions, each at least 0.

        If one of the two has no number of samples per statistic, it does not count.
        """
        pairs = [(self.batch_size, asked.batch_size)]
        mine, theirs = self.samples_per_statistic, asked.samples_per_statistic
        if mine is not None and theirs is not None:
            pairs.append((mine, theirs))
        return tuple(abs(log2(a / b)) for a, b in pairs)


def asked_condition(
    task: TaskKind, batch_size: int | None, samples: int | None
) -> Condition:
    """Return the condition that a user asks for.

    Without `batch_size`, it is the default of the task, or `samples` if that is larger.
    Without `samples`, all samples of a batch share a statistic. Raises RequestError if
    `samples` does not divide the batch size.
    """
    if batch_size is None:
        batch_size = max(task_defaults(TASKS[task])[1], samples or 1)
    samples = samples or batch_size
    if batch_size % samples:
        tried = range(1, min(batch_size, MAX_DIVISOR) + 1)
        divisors = ", ".join(str(n) for n in tried if batch_size % n == 0)
        raise RequestError(
            f"--samples-per-statistic {samples} does not divide the batch size of "
            f"{batch_size} ({task}); give one of {divisors}, or another --batch-size"
        )
    return Condition(batch_size=batch_size, samples_per_statistic=samples)


def conditions_text(conditions: Iterable[Condition]) -> str:
    """Return conditions in words, such as "batch size 32, 2 samples per statistic".

    If all samples of a batch share a statistic, only the batch size is named.
    """
    texts = []
    for condition in dict.fromkeys(conditions):
        text = f"batch size {condition.batch_size}"
        samples = condition.samples_per_statistic
        if samples not in {None, condition.batch_size}:
            text += f", {samples} sample{'' if samples == 1 else 's'} per statistic"
        texts.append(text)
    return " and ".join(texts)


class Setting(NamedTuple):
    """A cell: its task, its norm as overrides, its condition, and all other overrides.

    `rest` are the other overrides in the order of the design.
    """

    task: TaskKind
    norm: str
    condition: Condition
    rest: Mapping[str, str]


def setting_of(
    design: Design, cell: str, config_dir: Path | None = None
) -> Setting | None:
    """Return the setting of a cell; None if the task is none of `TASKS`.

    None too if a batch size is not a number.
    """
    values: dict[str, str] = {}
    for word in shlex.split(design.overrides(cell)):
        key, _, value = word.partition("=")
        values.pop(key, None)
        values[key] = value
    task, batch_size = task_defaults(values.get("task", "cnn"), config_dir)
    numbers = [values[key] for key in BATCH_KEYS if key in values]
    if task is None or not all(number.isdecimal() for number in numbers):
        return None
    name = values.get("norm", "batch")
    options = {
        key.removeprefix("norm."): _parsed(value)
        for key, value in values.items()
        if key.startswith("norm.")
    }
    batch_size = int(values.get("batch_size", batch_size))
    micro_batch = batch_size // int(values.get("accumulate", 1))
    reparam = values.get("reparam", "none")
    norm = norm_overrides(task, name, options, reparam, config_dir)
    samples = int(values.get("norm_batch", micro_batch))
    return Setting(
        task,
        norm,
        Condition(
            batch_size=batch_size,
            samples_per_statistic=samples if uses_other_samples(norm) else None,
        ),
        {
            key: value
            for key, value in values.items()
            if key not in ("norm", "reparam", *BATCH_KEYS)
            and not key.startswith("norm.")
        },
    )


def uses_other_samples(norm: str) -> bool:
    """Return whether a norm, as overrides, uses other samples of the batch.

    A norm that is not built in counts as one that does.
    """
    name = norm.split()[0].removeprefix("norm=")
    return name in USES_OTHER_SAMPLES or name not in choices("norm")


def norm_overrides(
    task: TaskKind,
    name: str,
    options: Mapping[str, Any],
    reparam: str,
    config_dir: Path | None = None,
) -> str:
    """Return a norm as overrides, such as "norm=group norm.num_groups=4".

    Options that have the default of their yaml are left out. `norm=layer` becomes the
    norm that it means in `task`.
    """
    name = LAYER[task] if name == "layer" else name
    defaults = _norm_defaults(name, config_dir)
    words = [f"norm={name}"]
    for key, value in options.items():
        if key not in defaults or defaults[key] != value:
            words.append(f"norm.{key}={_text(value)}")
    if reparam != "none":
        words.append(f"reparam={reparam}")
    return " ".join(words)


@cache
def _norm_defaults(name: str, config_dir: Path | None) -> dict[str, Any]:
    known = choices("norm", config_dir)
    return dict(yaml_value(known[name])) if name in known else {}


@cache
def task_defaults(
    name: str, config_dir: Path | None = None
) -> tuple[TaskKind | None, int]:
    """Return the kind of a task and its batch size, from the yaml of the task.

    The kind is None for a task of the user's own. Raises RequestError for an unknown
    task.
    """
    known = choices("task", config_dir)
    if name not in known:
        raise RequestError(f"task={name} is unknown; {did_you_mean(name, known)}")
    plain = yaml_value(known[name])
    task, batch_size = plain.get("task", {}).get("name"), plain.get("batch_size")
    for base in plain.get("defaults", []):
        if isinstance(base, str) and base != "_self_" and None in (task, batch_size):
            kind, inherited = task_defaults(base, config_dir)
            batch_size = batch_size or inherited
            task = task or (TASKS[kind] if kind else None)
    kinds = {network: kind for kind, network in TASKS.items()}
    return kinds.get(task), batch_size or 32


def _parsed(text: str) -> Any:
    """Return the value of an override, as a record has it."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"))
