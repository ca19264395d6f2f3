"""The numerical source of a run: the code of this program that decides its numbers.

That is the training loop, the task, norm and data set of the run, and what these
import, as far as it lies in NUMERICAL. The code of another norm does not count.
"""

import ast
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from normbench.config.schema import RunConfig, RunRecord
from normbench.config.user_modules import hashes

PACKAGE = Path(__file__).parents[1]
NUMERICAL = ("norms/", "tasks/", "data/", "training/", "config/rates.py")
"""Where code changes numbers; other modules compose, store and show them."""
LOOP = ("training/experiment.py", "training/distributed.py", "norms/reparam.py")
"""The modules of every run, beside those that they import."""
HOMES = {"norm": "norms/layers", "task": "tasks", "data": "data"}
"""The folder in which each choice of a config has its module."""
HALF = 8
"""Hexadecimal digits of a hash that are of the loop; the others are of the choices."""


def comes_from_this_code(record: RunRecord, modules: Sequence[str]) -> bool:
    """Whether the code of a recorded run, and the user's `modules`, are unchanged."""
    environment = record.environment
    return (
        environment.source_hash == source_hash(record.config)
        and environment.modules == hashes(tuple(modules))
    )  # fmt: skip


def source_hash(config: RunConfig | None = None) -> str:
    """Hash of the numerical source of a run, or of every run: 16 hexadecimal digits.

    Runs of the same loop have the same first HALF. Modules of the user's own have
    hashes of their own (`user_modules.hashes`).
    """
    if config is None:
        return _hash(_closure(_every_module()))
    choices = (config.norm.name, config.task.name, config.data.name)
    return _hash_of_choices(*choices)


def codes(records: Iterable[RunRecord]) -> set[str]:
    """What code did the runs; two or more values where the code was not the same.

    Runs of several norms differ in their code by design: then the values are of the
    loop alone, unless the code of one norm, task or data set was not the same.
    """
    by_choice = defaultdict(set)
    for record in records:
        config, ran_on = record.config, record.environment
        modules = [f"{name} {digest}" for name, digest in ran_on.modules.items()]
        code = (ran_on.source_hash, *sorted(modules))
        by_choice[config.norm.name, config.task.name, config.data.name].add(code)
    every = set().union(*by_choice.values())
    if len(every) > 1 and all(len(same) == 1 for same in by_choice.values()):
        every = {(source[:HALF], *modules) for source, *modules in every}
    return {", ".join(code) for code in every}


@cache
def _hash_of_choices(norm: str, task: str, data: str) -> str:
    loop = _closure(LOOP)
    names = {"norm": norm, "task": task, "data": data}
    chosen = {_module_of(kind, name) for kind, name in names.items()} - {None}
    own = _closure(tuple(sorted(filter(None, chosen)))) - loop
    return _hash(loop)[:HALF] + _hash(own)[:HALF]


@cache
def _module_of(kind: str, name: str) -> str | None:
    """The module in which the norm, task or data set `name` is, if it is not a user's.

    A class names itself: `class GroupNorm(Norm, name="group")`.
    """
    definition = re.compile(rf'^class \w+\([^)]*\bname="{re.escape(name)}"', re.M)
    for path in sorted((PACKAGE / HOMES[kind]).glob("*.py")):
        if definition.search(path.read_text(encoding="utf-8")):
            return path.relative_to(PACKAGE).as_posix()
    return None


def _every_module() -> tuple[str, ...]:
    folders = [PACKAGE / home for home in HOMES.values()]
    files = [path for folder in folders for path in sorted(folder.glob("*.py"))]
    return (*LOOP, *(path.relative_to(PACKAGE).as_posix() for path in files))


@cache
def _closure(modules: tuple[str, ...]) -> frozenset[str]:
    """`modules` and those in NUMERICAL that they import, directly or not."""
    reached: set[str] = set()
    waiting = set(modules)
    while waiting:
        module = waiting.pop()
        reached.add(module)
        waiting |= _imports(module) - reached
    return frozenset(reached)


@cache
def _imports(module: str) -> frozenset[str]:
    tree = ast.parse((PACKAGE / module).read_bytes())
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return frozenset(path for name in names for path in _files(name))


def _files(name: str) -> Iterator[str]:
    """The files that an import of the module `name` runs, as far as in NUMERICAL."""
    parts = name.split(".")
    if parts[0] != PACKAGE.name:
        return
    for depth in range(1, len(parts)):
        stem = "/".join(parts[1 : depth + 1])
        for path in (f"{stem}.py", f"{stem}/__init__.py"):
            if path.startswith(NUMERICAL) and (PACKAGE / path).is_file():
                yield path


def _hash(modules: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for module in sorted(modules):
        digest.update(module.encode() + b"\0" + (PACKAGE / module).read_bytes() + b"\0")
    return digest.hexdigest()[:16]
