"""The facts of every norm that a config can name."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from normbench.config.choices import choices, config_root, description
from normbench.config.composer import Composer
from normbench.config.composition import compose, resolve
from normbench.config.overrides import parse, value_text
from normbench.config.schema import Options
from normbench.errors import Incompatible, RequestError
from normbench.norms import REGISTRY, Norm
from normbench.system.untrusted import yaml_value
from normbench.tasks.base import REGISTRY as TASKS
from normbench.training.network import check, make_task

CHANNELS = 96
"""Many numbers of groups divide it."""


@dataclass(frozen=True)
class Facts:
    """One choice of `norm=`: what its class declares, and what building it shows.

    `parameters` is a formula in the channels C, None where the norm does not fit 96
    channels. `tasks` are those whose default network it works in. An alias, which means
    another norm in each task, has only its tasks; a name without an imported class has
    none.
    """

    name: str
    description: str
    source: str | None
    year: int | None
    axes: str | None
    parameters: str | None
    uses_other_samples: bool | None
    differs_in_eval: bool | None
    honours_mask: bool | None
    precisions: str | None
    tasks: list[str]


def catalogue(config_dir: Path | None = None) -> list[Facts]:
    """Facts of every norm that can be named, a user's own included.

    Raises RequestError, with the file, for a yaml that no run could take.
    """
    files = choices("norm", config_dir)
    sections = {name: _section(name, file, config_dir) for name, file in files.items()}
    tasks = {name: list[str]() for name in files}
    for task_name in sorted(set(TASKS.names()) & choices("task", config_dir).keys()):
        overrides = [f"task={task_name}", "tracker=none"]
        plain = compose(overrides, config_dir).model_dump()
        task = make_task(resolve(plain), torch.device("cpu"))
        for name, section in sections.items():
            try:
                check(resolve(plain | {"norm": section}), task)
            except RequestError:  # unsuitable, or of a class that is not imported
                continue
            tasks[name].append(task_name)
    return [_facts(n, file, sections[n], tasks[n]) for n, file in files.items()]


def _section(name: str, file: Path, config_dir: Path | None) -> Options:
    """The content that `norm=NAME` composes to: a user's yaml may build on another."""
    if file.is_relative_to(config_root()):
        section = yaml_value(file)
    else:
        override = parse(f"norm={value_text(name)}", config_dir)
        section = Composer(config_dir)([override])["norm"]
    if not isinstance(section, dict) or not isinstance(section.get("name"), str):
        raise RequestError(f"{file} needs a line `name: NORM`")
    return section


def _facts(name: str, file: Path, section: Options, tasks: list[str]) -> Facts:
    section = {**section}
    class_name = section.pop("name")
    if class_name not in REGISTRY.names():
        return Facts(name, description(file), *(None,) * 8, tasks)
    cls = REGISTRY.get(class_name)
    try:
        parameters = _parameters(class_name, section)
    except Incompatible:
        parameters = None
    except RequestError as error:
        raise RequestError(f"{file}: {error}") from None
    year = re.search(r"\d{4}$", cls.source)
    return Facts(
        name=name,
        description=description(file),
        source=cls.source or None,
        year=int(year.group()) if year else None,
        axes=cls.axes or None,
        parameters=parameters,
        uses_other_samples=cls.uses_other_samples,
        differs_in_eval=cls.differs_in_eval,
        honours_mask=cls.honours_mask,
        precisions="fp32 bf16 fp16" if cls.loss_scaling else "fp32 bf16",
        tasks=tasks,
    )


def _parameters(name: str, options: Options) -> str:
    """The number of parameters: "2 C + 1", or "2 C x positions" for one at each."""
    options = REGISTRY.options(name, options)

    def count(channels: int, positions: int) -> int:
        norm: Norm = REGISTRY.get(name)(channels, **options)
        norm.eval()(torch.zeros(2, channels, positions))
        return sum(parameter.numel() for parameter in norm.parameters())

    one, more = count(CHANNELS, 2), count(2 * CHANNELS, 2)
    slope = (more - one) // CHANNELS
    constant = one - slope * CHANNELS
    if count(CHANNELS, 4) != one:
        return f"{slope // 2} C x positions"
    terms = ([f"{slope} C"] if slope else []) + ([f"{constant}"] if constant else [])
    return " + ".join(terms) or "0"
