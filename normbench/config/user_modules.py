"""Imports the modules that a user names on the command line, and hashes them.

The hash of a module covers every file that it imports, directly or through other
files, at import time or later. Files of the standard library, of installed packages
and of normbench do not count.
"""

import ast
import hashlib
import importlib
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import resolve_name
from pathlib import Path

from normbench.config.schema import RunRecord
from normbench.errors import RequestError

_imported_with: dict[str, frozenset[str]] = {}
"""A user's module -> the names of all modules that its import added to sys.modules,
also by calls of importlib."""


def import_modules(names: Iterable[str]) -> None:
    """Import a user's modules from Python's path or the working folder."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    for name in names:
        before = set(sys.modules)
        try:
            module = importlib.import_module(name)
        except Exception as error:  # the user's code can raise anything
            raise RequestError(
                f"--module {name} cannot be imported: {type(error).__name__}: {error}; "
                "name a module in the working folder or on PYTHONPATH"
            ) from error
        if getattr(module, "__file__", None) is None:
            raise RequestError(f"--module {name} has no source file to record")
        _imported_with.setdefault(name, frozenset(sys.modules.keys() - before))


def require_modules(finished: RunRecord, given: Sequence[str]) -> None:
    """Raise RequestError unless all modules that a run was done with are `given`.

    A record may come from anybody, so only the user names code to be imported.
    """
    missing = [name for name in finished.environment.modules if name not in given]
    if missing:
        options = " ".join(f"--module {name!r}" for name in missing)
        raise RequestError(
            f"run {finished.run_id} was done with modules of its user's own; if you "
            f"trust them, name them: {options}"
        )


@cache
def hashes(names: tuple[str, ...]) -> dict[str, str]:
    """The hash of each of these modules, which are imported already.

    A file that one module imports counts for all: only the first import of a file
    adds it to sys.modules.
    """
    return {name: _hashed(name, names) for name in names}


def _hashed(name: str, names: Collection[str]) -> str:
    location = Path(str(sys.modules[name].__file__))
    package = location.name == "__init__.py"
    own = sorted(location.parent.rglob("*.py")) if package else [location]
    digest = hashlib.sha256()
    for path in own:
        digest.update(path.relative_to(location.parent).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    for other, path in sorted(_reached(names).items()):
        if path not in own and other not in names:
            digest.update(other.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _reached(names: Collection[str]) -> dict[str, Path]:
    """Every module of the user's that `names` import, and its file."""
    files: dict[str, Path] = {}
    waiting = {part for name in names for part in _with_parents(name)}
    waiting |= {module for name in names for module in _imported_with.get(name, ())}
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        path = _location(name)
        if path is None or not _is_the_users(path):
            continue
        files[name] = path
        waiting |= set(_imported(path, name)) - seen
    return files


def _imported(path: Path, name: str) -> Iterator[str]:
    """Every name in the import statements of a file that may name a module."""
    if path.suffix != ".py":
        return
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return  # it cannot be imported
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            with suppress(ImportError):
                base = resolve_name(base, package)
                yield from _with_parents(base)
                yield from (f"{base}.{alias.name}" for alias in node.names)


def _with_parents(name: str) -> Iterator[str]:
    """ "a" and "a.b" for "a.b"."""
    parts = name.split(".")
    return (".".join(parts[: i + 1]) for i in range(len(parts)))


def _location(name: str) -> Path | None:
    """The file of a module, found without importing it."""
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
        return Path(file) if isinstance(file, str) else None
    places: Sequence[str] | None = None
    origin = None
    for part in _with_parents(name):
        spec = PathFinder.find_spec(part, places)
        if spec is None:
            return None
        origin, places = spec.origin, spec.submodule_search_locations or []
    return Path(origin) if origin else None


@cache
def _installed() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {Path(sysconfig.get_path(name)).resolve() for name in names}
    return (*folders, Path(__file__).parents[1].resolve())


def _is_the_users(path: Path) -> bool:
    resolved = path.resolve()
    if not resolved.is_file():  # it is in an archive
        return False
    if {"site-packages", "dist-packages"} & {*resolved.parts}:
        return False
    return not any(resolved.is_relative_to(folder) for folder in _installed())
