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
PART = 6
"""Hexadecimal digits of each part of a hash: the loop, and the choices as in HOMES."""


def comes_from_this_code(record: RunRecord, modules: Sequence[str]) -> bool:
    """Whether the code of a recorded run, and the user's `modules`, are unchanged."""
    environment = record.environment
    own = hashes(tuple(modules))
    same = environment.source_hash == source_hash(record.config)
    return same and environment.modules == own


def source_hash(config: RunConfig | None = None) -> str:
    """Hash of the numerical source of a run, or of every run, in hexadecimal digits.

    Of a run: PART digits for the loop, the norm, the task and the data set each.
    Modules of the user's own have other hashes (`user_modules.hashes`).
    """
    if config is None:
        return _hash(_closure(_every_module()))
    chosen = (_hash_of_choice(kind, name) for kind, name in _choices(config))
    return _hash(_closure(LOOP))[:PART] + "".join(chosen)


def codes(records: Iterable[RunRecord]) -> set[str]:
    """What code did the runs; two or more values where the code was not the same.

    Runs of several norms differ in their code by design: then the value is that of the
    loop, unless the loop or one norm, task or data set was not the same in all.
    """
    whole: set[str] = set()
    loops: set[str] = set()
    parts: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in records:
        code, modules = record.environment.source_hash, record.environment.modules
        own = [f"{name} {digest}" for name, digest in sorted(modules.items())]
        whole.add(", ".join([code, *own]))
        if len(code) != PART * (1 + len(HOMES)):  # of an older version: of every run
            loops.add(", ".join([code, *own]))
            continue
        loops.add(", ".join([code[:PART], *own]))
        for position, choice in enumerate(_choices(record.config), 1):
            parts[choice].add(code[PART * position : PART * (position + 1)])
    mixed = len(loops) > 1 or any(len(hashes) > 1 for hashes in parts.values())
    return whole if mixed or len(whole) == 1 else loops


def _choices(config: RunConfig) -> list[tuple[str, str]]:
    return [(kind, getattr(config, kind).name) for kind in HOMES]


@cache
def _hash_of_choice(kind: str, name: str) -> str:
    module = _module_of(kind, name)
    reached = _closure((module,)) - _closure(LOOP) if module else ()
    return _hash(reached)[:PART]


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
