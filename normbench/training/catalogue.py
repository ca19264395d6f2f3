"""Facts about the norms that a config can select, for `normbench list norms`."""

import inspect
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import torch

from normbench.config.choices import choices, description
from normbench.config.composition import compose, resolve
from normbench.config.norm_facts import Declared, section
from normbench.config.schema import Options
from normbench.errors import Incompatible, RequestError
from normbench.norms import REGISTRY, Norm
from normbench.tasks.base import REGISTRY as TASKS
from normbench.training.network import check, make_task

CHANNELS = 96
"""A number of channels that many numbers of groups divide."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts about one choice of `norm=`.

    `parameters` is a formula in the number of channels C, or None if the norm cannot be
    built for 96 channels. `tasks` are the tasks whose default network can use the norm.
    `one_call` says whether all ghost batches are normalized in one call; it is None for
    a norm that uses each sample alone. `options` are the options with their defaults.
    `text` is the docstring of the norm's module, with its formula.
    The optional facts are None in two cases: for an alias, because it selects a
    different norm in each task; and for a norm whose class is not imported. In the
    second case `tasks` is empty too.
    """

    name: str
    description: str
    source: str | None = None
    year: int | None = None
    axes: str | None = None
    parameters: str | None = None
    uses_other_samples: bool | None = None
    differs_in_eval: bool | None = None
    honours_mask: bool | None = None
    one_call: bool | None = None
    precisions: str | None = None
    also_called: list[str] = field(default_factory=list)
    options: Options = field(default_factory=dict)
    text: str | None = None
    tasks: list[str]


def catalogue(
    config_dir: Path | None = None, names: Collection[str] = ()
) -> list[Facts]:
    """Return the facts of all norms, including those of the user's `config_dir`.

    With `names`, return only the facts of these norms. Raises RequestError if a yaml is
    not valid for any run. The message names the file.
    """
    files = choices("norm", config_dir)
    files = {n: file for n, file in files.items() if not names or n in names}
    sections = {name: section(name, file, config_dir) for name, file in files.items()}
    tasks = {name: list[str]() for name in files}
    for task_name in sorted(set(TASKS.names()) & choices("task", config_dir).keys()):
        if not TASKS.get(task_name).has_default_network:
            continue
        overrides = [f"task={task_name}", "tracker=none"]
        config = compose(overrides, config_dir).model_dump()
        task = make_task(resolve(config), torch.device("cpu"))
        for name, values in sections.items():
            try:
                check(resolve(config | {"norm": values}), task)
            except RequestError:  # not suitable, or its class is not imported
                continue
            tasks[name].append(task_name)
    return [
        _facts(name, file, sections[name], tasks[name]) for name, file in files.items()
    ]


def _facts(name: str, file: Path, values: Options, tasks: list[str]) -> Facts:
    options = {**values}
    class_name = str(options.pop("name"))
    if class_name not in REGISTRY.names():  # an alias, or its module is not imported
        return Facts(
            name=name, description=description(file), options=options, tasks=tasks
        )
    cls = REGISTRY.get(class_name)
    try:
        parameters = _parameters(class_name, options)
    except Incompatible:
        parameters = None
    except RequestError as error:
        raise RequestError(f"{file}: {error}") from None
    return Facts(
        name=name,
        description=description(file),
        source=cls.source or None,
        year=Declared(source=cls.source).year,
        axes=cls.axes or None,
        parameters=parameters,
        uses_other_samples=cls.uses_other_samples,
        differs_in_eval=cls.differs_in_eval,
        honours_mask=cls.honours_mask,
        one_call=cls.one_call if cls.uses_other_samples else None,
        precisions="fp32 bf16 fp16" if cls.loss_scaling else "fp32 bf16",
        also_called=[*cls.also_called],
        options=REGISTRY.options(class_name, options),
        text=inspect.getdoc(sys.modules[cls.__module__]),
        tasks=tasks,
    )


def _parameters(name: str, options: Options) -> str:
    """Return the number of parameters as a formula, such as "2 C + 1".

    The formula is "2 C x positions" if each position has its own parameters.
    """
    options = REGISTRY.options(name, options)

    def count(channels: int, positions: int) -> int:
        norm: Norm = REGISTRY.get(name)(channels, **options)
        norm.eval()(torch.zeros(2, channels, positions))
        return sum(parameter.numel() for parameter in norm.parameters())

    positions = 2
    parameters = count(CHANNELS, positions)
    per_channel = (count(2 * CHANNELS, positions) - parameters) // CHANNELS
    if count(CHANNELS, 2 * positions) != parameters:
        return f"{per_channel // positions} C x positions"
    terms = []
    if per_channel:
        terms.append(f"{per_channel} C")
    if constant := parameters - per_channel * CHANNELS:
        terms.append(f"{constant}")
    return " + ".join(terms) or "0"
