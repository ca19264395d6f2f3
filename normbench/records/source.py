"""The numerical source: the part of this program that decides the numbers of a run."""

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from normbench.config.schema import Environment
from normbench.config.user_modules import hashes

NUMERICAL_SOURCE = (
    "norms",
    "tasks",
    "data",
    "training",
    "config/rates.py",
)
"""What, inside the package, decides a run's numbers."""


def comes_from_this_code(ran_on: Environment, modules: Sequence[str]) -> bool:
    """Whether a run on `ran_on` had the numerical source that is here now."""
    here = hashes(tuple(modules))
    return ran_on.source_hash == source_hash() and ran_on.modules == here


@cache
def source_hash() -> str:
    """Hash of the numerical source: equal where equal requests give equal numbers."""
    package = Path(__file__).parents[1]
    files: list[Path] = []
    for name in NUMERICAL_SOURCE:
        path = package / name
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return _hash(files, package)


def _hash(files: Iterable[Path], root: Path) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
