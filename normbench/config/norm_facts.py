"""Facts of norms that are read from source and yaml files, in a tenth of a second.

The import of a norm's class imports torch, which takes seconds.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType

from normbench.config.choices import choices, config_root, description
from normbench.errors import RequestError
from normbench.system.untrusted import yaml_value

PACKAGE = Path(__file__).parents[1] / "norms"
ATTRIBUTES = ("source", "uses_other_samples", "also_called")


@dataclass(frozen=True, kw_only=True)
class Declared:
    """Class attributes of a norm; `normbench.norms.base.Norm` explains them."""

    source: str = ""
    uses_other_samples: bool = False
    also_called: tuple[str, ...] = ()

    @property
    def year(self) -> int | None:
        """The year of the publication; None if the source names none."""
        year = re.search(r"\b\d{4}\b", self.source)
        return int(year.group()) if year else None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A choice of `norm=` in one line.

    `uses_other_samples` is None if the class is not known, or if it depends on the
    user's network.
    """

    name: str
    description: str
    year: int | None
    uses_other_samples: bool | None


@cache
def declared() -> MappingProxyType[str, Declared]:
    """Return the attributes of all norms of this package, by the name of the norm.

    A norm inherits the attributes of its first base class, except `also_called`.
    """
    classes = {node.name: node for node in _class_definitions()}
    norms = {}
    for node in classes.values():
        names = [k.value for k in node.keywords if k.arg == "name"]
        if names and (name := ast.literal_eval(names[0])):
            norms[name] = _attributes(node, classes)
    return MappingProxyType(norms)


def other_names() -> dict[str, str]:
    """Return other name -> name for the `also_called` of all norms."""
    return {other: name for name, d in declared().items() for other in d.also_called}


def _class_definitions() -> Iterator[ast.ClassDef]:
    for file in sorted(PACKAGE.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if "class " in text:
            for node in ast.parse(text).body:
                if isinstance(node, ast.ClassDef):
                    yield node


def _attributes(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> Declared:
    base = node.bases[0] if node.bases else None
    inherited = Declared()
    if isinstance(base, ast.Name) and base.id in classes:
        inherited = replace(_attributes(classes[base.id], classes), also_called=())
    values = {}
    for line in node.body:
        if isinstance(line, ast.Assign):
            targets, value = line.targets, line.value
        elif isinstance(line, ast.AnnAssign) and line.value is not None:
            targets, value = [line.target], line.value
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name) and target.id in ATTRIBUTES:
                values[target.id] = ast.literal_eval(value)
    return replace(inherited, **values)


def section(name: str, file: Path, config_dir: Path | None) -> dict[str, object]:
    """Return the config section of `norm=NAME`, whose yaml is `file`.

    A user's yaml may extend another one; only the composition resolves that. Raises
    RequestError if the section does not name a norm.
    """
    if file.is_relative_to(config_root()):
        values = yaml_value(file)
    else:
        from normbench.config.composer import Composer  # imports Hydra
        from normbench.config.overrides import parse, value_text

        override = parse(f"norm={value_text(name)}", config_dir)
        values = Composer(config_dir)([override])["norm"]
    if not isinstance(values, dict) or not isinstance(values.get("name"), str):
        raise RequestError(f"{file} needs a line `name: NORM`")
    return values


def summaries(
    config_dir: Path | None, own: dict[str, Declared] | None = None
) -> list[Summary]:
    """Return a summary of every choice of `norm=`, sorted by name.

    `own` are the norms of the user's modules. Raises RequestError if a yaml of the
    user names no norm.
    """
    norms = {**declared(), **(own or {})}
    rows = []
    for name, file in choices("norm", config_dir).items():
        norm = norms.get(str(section(name, file, config_dir)["name"]))
        uses = norm.uses_other_samples if norm else None
        rows.append(
            Summary(
                name=name,
                description=short(description(file)),
                year=norm.year if norm else None,
                uses_other_samples=None if name == "keep" else uses,
            )
        )
    return rows


def short(text: str) -> str:
    """Return a description without its source in parentheses and without its stop."""
    return re.sub(r"\s*\([^()]*\b\d{4}\b[^()]*\)", "", text).removesuffix(".")
