"""Hashes of the numerical source of a run: the code of normbench that sets its numbers.

The source consists of the training loop, the modules of the run's task, norm and data
set, and the modules that these import, as far as they are in NUMERICAL. The code of
other norms is not part of it.
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
"""Paths of code that can change numbers; other modules only compose, store or show."""
LOOP = ("training/experiment.py", "training/distributed.py", "norms/reparam.py")
"""Modules that every run uses, apart from the modules that they import."""
FOLDERS = {"norm": "norms/layers", "task": "tasks", "data": "data"}
"""Folder of the modules of each kind of choice in a config."""
PART = 6
"""Hexadecimal digits per part of a run's hash: the loop, and each key of FOLDERS."""


def comes_from_this_code(record: RunRecord, modules: Sequence[str]) -> bool:
    """Return whether the code of a run, and the user's `modules`, are unchanged."""
    environment = record.environment
    same_source = environment.source_hash == source_hash(record.config)
    return same_source and environment.modules == hashes(tuple(modules))


def source_hash(config: RunConfig) -> str:
    """Return the hash of the numerical source of a run of `config`.

    It has PART hexadecimal digits for each of the loop, the norm, the
    task and the data set. The user's modules are not included: `user_modules.hashes`
    hashes them.
    """
    chosen = (_hash_of_choice(kind, name) for kind, name in _choices(config))
    return _hash(_closure(LOOP))[:PART] + "".join(chosen)


def codes(records: Iterable[RunRecord]) -> set[str]:
    """Return the hashes of the code of `records`; more than one if the code was mixed.

    Runs of different norms always differ in the code of the norm. So the result is the
    hash of the loop alone if all runs have the same loop, and each norm, task and data
    set has the same code in all its runs.
    """
    full_hashes: set[str] = set()
    loop_hashes: set[str] = set()
    choice_hashes: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in records:
        code, modules = record.environment.source_hash, record.environment.modules
        user_code = [f"{name} {digest}" for name, digest in sorted(modules.items())]
        full_hashes.add(", ".join([code, *user_code]))
        if len(code) != PART * (1 + len(FOLDERS)):
            # Older versions hashed all code at once.
            loop_hashes.add(", ".join([code, *user_code]))
            continue
        loop_hashes.add(", ".join([code[:PART], *user_code]))
        for position, choice in enumerate(_choices(record.config), 1):
            part = code[PART * position : PART * (position + 1)]
            choice_hashes[choice].add(part)
    mixed = len(loop_hashes) > 1 or any(len(h) > 1 for h in choice_hashes.values())
    return full_hashes if mixed or len(full_hashes) == 1 else loop_hashes


def _choices(config: RunConfig) -> list[tuple[str, str]]:
    return [(kind, getattr(config, kind).name) for kind in FOLDERS]


@cache
def _hash_of_choice(kind: str, name: str) -> str:
    module = _module_of(kind, name)
    modules = _closure((module,)) - _closure(LOOP) if module else ()
    return _hash(modules)[:PART]


@cache
def _module_of(kind: str, name: str) -> str | None:
    """Return the module of normbench that defines the norm, task or data set `name`.

    The class statement contains the name: `class GroupNorm(Norm, name="group")`.
    Returns None if no module of normbench does, as the user's module then defines it.
    """
    definition = re.compile(rf'^class \w+\([^)]*\bname="{re.escape(name)}"', re.M)
    for path in sorted((PACKAGE / FOLDERS[kind]).glob("*.py")):
        if definition.search(path.read_text(encoding="utf-8")):
            return path.relative_to(PACKAGE).as_posix()
    return None


@cache
def _closure(modules: tuple[str, ...]) -> frozenset[str]:
    """Return `modules` and the modules in NUMERICAL that they import, at any depth."""
    closure: set[str] = set()
    pending = set(modules)
    while pending:
        module = pending.pop()
        closure.add(module)
        pending |= _imports(module) - closure
    return frozenset(closure)


@cache
def _imports(module: str) -> frozenset[str]:
    """Return the files in NUMERICAL that `module` imports directly."""
    tree = ast.parse((PACKAGE / module).read_bytes())
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return frozenset(path for name in names for path in _files(name))


def _files(name: str) -> Iterator[str]:
    """Yield the files in NUMERICAL that an import of the module `name` executes."""
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
