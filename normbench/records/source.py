"""Hashes of the numerical source of a run: the code of normbench that sets its numbers.

The source consists of the training loop, the modules of the run's task, norm and data
set, and all modules in NUMERICAL that these modules import. The code of other norms is
not part of the source.
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
NUMERICAL = ("norms/", "models/", "tasks/", "data/", "training/", "config/rates.py")
"""Paths of code that can change numbers; other modules only compose, store or show."""
LOOP = ("training/experiment.py", "training/distributed.py", "norms/reparam.py")
"""Modules that every run uses. This list omits the modules that they import."""
FOLDERS = {"norm": "norms/layers", "task": "tasks", "data": "data"}
"""Folder of the modules of each kind of choice in a config."""
PART = 6
"""Number of hexadecimal digits of each part of a run's hash.

The first part is the hash of the loop. Each key of FOLDERS has one more part.
"""


def comes_from_this_code(record: RunRecord, modules: Sequence[str]) -> bool:
    """Return whether the code of a run, and the user's `modules`, are unchanged."""
    environment = record.environment
    same_source = environment.source_hash == source_hash(record.config)
    return same_source and environment.modules == hashes(tuple(modules))


def source_hash(config: RunConfig) -> str:
    """Return the hash of the numerical source of a run of `config`.

    It has PART hexadecimal digits for each of the loop, the norm, the task and the data
    set. The user's modules are not included: `user_modules.hashes` hashes them.
    """
    chosen = (_hash_of_choice(kind, name) for kind, name in _choices(config))
    return _hash(_closure(LOOP))[:PART] + "".join(chosen)


def codes(records: Iterable[RunRecord]) -> set[str]:
    """Return the hashes of the code of `records`; more than one if the code was mixed.

    Runs of different norms always have different hashes, even if the code did not
    change between the runs. So the code was not mixed if all runs have the same loop,
    and each norm, task and data set has the same code in all its runs. Then the result
    is the full hash if all runs have the same full hash, else the hash of the loop.
    """
    full_hashes: set[str] = set()
    loop_hashes: set[str] = set()
    choice_hashes: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in records:
        code_hash, modules = record.environment.source_hash, record.environment.modules
        user_code = [f"{name} {digest}" for name, digest in sorted(modules.items())]
        full_hashes.add(", ".join([code_hash, *user_code]))
        if len(code_hash) != PART * (1 + len(FOLDERS)):
            # Older versions hashed all code at once.
            loop_hashes.add(", ".join([code_hash, *user_code]))
            continue
        loop_hashes.add(", ".join([code_hash[:PART], *user_code]))
        # The part at position 0 is the loop.
        for position, choice in enumerate(_choices(record.config), 1):
            part = code_hash[PART * position : PART * (position + 1)]
            choice_hashes[choice].add(part)
    mixed = len(loop_hashes) > 1 or any(len(p) > 1 for p in choice_hashes.values())
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
    Returns None if no module of normbench has this text. Then a module of the user
    defines `name`.
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
