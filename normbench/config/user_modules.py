"""A user's own modules: imported because the command line names them, and hashed.

A hash is of all files that a module brings in from outside the standard library,
installed packages and normbench: what it imports, when it is imported or later, and
what that imports.
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

_brought: dict[str, frozenset[str]] = {}
"""The names of all modules that the import of a user's module brought in, by its name:
an import that is no statement is seen only so."""


def import_modules(names: Iterable[str]) -> None:
    """Import a user's modules, found as Python finds them or in the working folder."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    for name in names:
        before = set(sys.modules)
        try:
            module = importlib.import_module(name)
        except Exception as error:  # it runs the user's code: anything can come out
            raise RequestError(
                f"--module {name} cannot be imported: {type(error).__name__}: {error}; "
                "name a module in the working folder or on PYTHONPATH"
            ) from error
        if getattr(module, "__file__", None) is None:
            raise RequestError(f"--module {name} has no source file to record")
        _brought.setdefault(name, frozenset(sys.modules.keys() - before))


def require_modules(finished: RunRecord, given: Sequence[str]) -> None:
    """Raise RequestError unless all modules that a run was done with are `given`.

    A record may come from anybody, so it names no code that is run: the user does.
    """
    missing = [name for name in finished.environment.modules if name not in given]
    if missing:
        asked = " ".join(f"--module {name}" for name in map(repr, missing))
        raise RequestError(
            f"run {finished.run_id} was done with modules of its user's own; if you "
            f"trust them, name them: {asked}"
        )


@cache
def hashes(names: tuple[str, ...]) -> dict[str, str]:
    """The hash of each of these modules, which are imported already.

    What one of them brings in counts for all: whichever is imported first has it.
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
    """The user's files behind `names`, by the names of the modules in them."""
    found: dict[str, Path] = {}
    waiting = {part for name in names for part in _with_parents(name)}
    waiting |= {module for name in names for module in _brought.get(name, ())}
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        path = _location(name)
        if path is None or not _is_the_users(path):
            continue
        found[name] = path
        waiting |= {each for each in _imported(path, name) if each not in seen}
    return found


def _imported(path: Path, name: str) -> Iterator[str]:
    """Every name in the import statements of a module that may be one of a module."""
    if path.suffix != ".py":
        return
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return  # nobody can import it
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
    """Of "a.b": "a", "a.b"."""
    parts = name.split(".")
    return (".".join(parts[: i + 1]) for i in range(len(parts)))


def _location(name: str) -> Path | None:
    """The file of a module, which is not imported for this."""
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
    named = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {Path(sysconfig.get_path(name)).resolve() for name in named}
    return (*folders, Path(__file__).parents[1].resolve())


def _is_the_users(path: Path) -> bool:
    resolved = path.resolve()
    if not resolved.is_file():  # but in an archive
        return False
    if {"site-packages", "dist-packages"} & {*resolved.parts}:
        return False
    return not any(resolved.is_relative_to(folder) for folder in _installed())
