"""Compute the hashes of the user's modules (option --module).

The hash of a module covers all files that it imports, directly or through other files.
It also covers imports inside functions, which Python executes later. Files of the
standard library, of installed packages and of normbench are left out.
"""

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import resolve_name
from pathlib import Path

from normbench.config.schema import RunConfig, RunRecord
from normbench.errors import RequestError
from normbench.system.imports import added_modules, module_of


def require_modules(record: RunRecord, names: Sequence[str]) -> None:
    """Raise RequestError unless `names` contains all user modules of a recorded run.

    A record may come from a stranger. So normbench imports only modules that the user
    names on the command line.
    """
    needed = dict.fromkeys(record.environment.modules)
    needed |= dict.fromkeys(_modules_of_model(record.config))
    missing = [name for name in needed if name not in names]
    if missing:
        options = " ".join(f"--module {name!r}" for name in missing)
        raise RequestError(
            f"run {record.run_id} needs modules that are not part of normbench; if you "
            f"trust them, add {options}"
        )


def require_model(config: RunConfig, names: Sequence[str]) -> None:
    """Raise RequestError unless `names` contains the module of the config's model."""
    for name in _modules_of_model(config):
        if name not in names:
            raise RequestError(
                f"task.model={config.task.options['model']} is not part of normbench; "
                f"if you trust it, add --module {name}"
            )


def _modules_of_model(config: RunConfig) -> list[str]:
    """Return the user's module of the model of task=module, if it has one."""
    model = config.task.options.get("model")
    if config.task.name != "module" or not isinstance(model, str):
        return []
    return [name for name in [module_of(model)] if name is not None]


@cache
def hashes(names: tuple[str, ...]) -> dict[str, str]:
    """Return the hash of every module in `names`, which are imported already.

    If one of the modules imports a file, the hashes of all of them contain the file.
    The reason is that sys.modules does not show which modules import a file.
    """
    return {name: _hashed(name, names) for name in names}


def _hashed(name: str, names: Collection[str]) -> str:
    location = Path(str(sys.modules[name].__file__))
    is_package = location.name == "__init__.py"
    sources = sorted(location.parent.rglob("*.py")) if is_package else [location]
    digest = hashlib.sha256()
    for path in sources:
        digest.update(path.relative_to(location.parent).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    for other, path in sorted(_imported_files(names).items()):
        if path not in sources and other not in names:
            digest.update(other.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _imported_files(names: Collection[str]) -> dict[str, Path]:
    """Return the files of all user modules that `names` import, by module name."""
    files: dict[str, Path] = {}
    remaining = {part for name in names for part in _with_parents(name)}
    remaining |= {module for name in names for module in added_modules.get(name, ())}
    visited: set[str] = set()
    while remaining:
        name = remaining.pop()
        visited.add(name)
        path = _location(name)
        if path is None or not _is_the_users(path):
            continue
        files[name] = path
        remaining |= set(_import_names(path, name)) - visited
    return files


def _import_names(path: Path, name: str) -> Iterator[str]:
    """Yield every name in the import statements of a file that may be a module."""
    if path.suffix != ".py":
        return
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return  # the file is not valid Python, so nothing can import it
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
    """Yield the names of the parent packages and `name`: "a" and "a.b" for "a.b"."""
    parts = name.split(".")
    return (".".join(parts[: i + 1]) for i in range(len(parts)))


def _location(name: str) -> Path | None:
    """Return the file of a module without importing it; None if there is no file."""
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
        return Path(file) if isinstance(file, str) else None
    search_path: Sequence[str] | None = None
    origin = None
    for part in _with_parents(name):
        spec = PathFinder.find_spec(part, search_path)
        if spec is None:
            return None
        origin, search_path = spec.origin, spec.submodule_search_locations or []
    return Path(origin) if origin else None


@cache
def _installation_folders() -> tuple[Path, ...]:
    """Return the folders of the standard library, installed packages and normbench."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {Path(sysconfig.get_path(name)).resolve() for name in names}
    return (*folders, Path(__file__).parents[1].resolve())


def _is_the_users(path: Path) -> bool:
    """Return whether a file is the user's, not part of an installed package."""
    resolved = path.resolve()
    if not resolved.is_file():  # a module in a zip archive
        return False
    if {"site-packages", "dist-packages"} & {*resolved.parts}:
        return False
    folders = _installation_folders()
    return not any(resolved.is_relative_to(folder) for folder in folders)
