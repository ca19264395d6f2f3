"""The user's files: where they are, and the hash of what is in them."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from normbench.data.cache import Parsed, cached
from normbench.errors import RequestError

FORMAT = 1

LARGE = 2e9
"""Bytes whose reading takes so long that the user is told."""

log = logging.getLogger(__name__)


def file(key: str, path: str | None) -> Path:
    """The file at `path`, an option named `key`.

    Raises RequestError where there is none, or an empty one.
    """
    found = _existing(key, path, "file")
    if found.is_dir():
        raise RequestError(f"{key}={path} is a folder; name a file")
    if not found.is_file():
        raise RequestError(f"{key}={path} is a device or a pipe; name a file")
    if found.stat().st_size == 0:
        raise RequestError(f"{key}={path} is empty")
    return found


def folder(key: str, path: str | None) -> Path:
    """The folder at `path`, an option named `key`.

    Raises RequestError where there is none, or an empty one.
    """
    found = _existing(key, path, "folder")
    if not found.is_dir():
        raise RequestError(f"{key}={path} is a file; name a folder")
    try:
        empty = not any(found.iterdir())
    except OSError as error:
        raise RequestError(f"{key}={path} cannot be read: {error.strerror}") from None
    if empty:
        raise RequestError(f"{key}={path} is empty")
    return found


def expanded(path: str) -> Path:
    """`path` with ~ replaced by a home, if there is such a one."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def require_apart(training: Path, test: Path) -> None:
    """Raise RequestError where what is tested on would be trained on too."""
    one, other = training.resolve(), test.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        how = "the same" if one == other else "one inside the other"
        raise RequestError(
            f"data.path={training} and data.test_path={test} are {how}: the test part "
            "would be trained on; put it elsewhere, or leave data.test_path out"
        )


def _existing(key: str, path: str | None, what: str) -> Path:
    if not path:
        raise RequestError(f"{key} is not set; name a {what}: {key}=PATH")
    found = expanded(path).absolute()
    try:
        there = found.exists()
    except OSError as error:  # no permission, a name that is too long
        raise RequestError(f"{key}={path} cannot be read: {error.strerror}") from None
    if not there:
        raise RequestError(f"{key}={path} does not exist; name a {what}")
    return found


def fingerprint(files: Sequence[Path], root: Path | None = None) -> str:
    """32 hex digits over the contents of `files`, in order, and over their names.

    Names are those below `root`; without, none count. All bytes are read the first
    time; after that, and in other processes, only sizes and times of change are asked
    for, as long as they stay. Raises RequestError where a file cannot be read.
    """
    try:
        stats = tuple(
            (str(path), info.st_size, info.st_mtime_ns)
            for path, info in ((path, path.stat()) for path in files)
        )
    except OSError as error:
        raise _unreadable(error) from None
    return _fingerprint(stats, str(root) if root else None)


@lru_cache(maxsize=16)
def _fingerprint(stats: tuple[tuple[str, int, int], ...], root: str | None) -> str:
    def read() -> Parsed:
        size = sum(size for _, size, _ in stats)
        if size > LARGE:
            told = "reading %.0f GB in %d files, once, for their fingerprint"
            log.warning(told, size / 1e9, len(stats))
        hash = hashlib.sha256()
        for name, _, _ in stats:
            path = Path(name)
            shown = path.relative_to(root).as_posix() if root else ""
            with path.open("rb") as opened:
                content = hashlib.file_digest(opened, "sha256").hexdigest()
            hash.update(f"{shown}\0{content}\n".encode())
        return Parsed({}, {"fingerprint": hash.hexdigest()[:32]})

    hashed = hashlib.sha256(repr((stats, root)).encode()).hexdigest()
    try:
        known = cached("fingerprint", {"format": FORMAT, "files": hashed}, read)
    except OSError as error:
        raise _unreadable(error) from None
    return known.strings["fingerprint"]


def _unreadable(error: OSError) -> RequestError:
    return RequestError(f"{error.filename} cannot be read: {error.strerror}")


def require(wanted: str | None, found: str) -> None:
    """Raise RequestError where files have changed since a run was asked for."""
    if wanted not in {None, found}:
        raise RequestError(
            f"the files of this run have changed: data.fingerprint={wanted}, and now "
            f"they have {found}"
        )


def shortened(names: Iterable[str], most: int = 5) -> str:
    """A list for a message: the first `most` names, and how many there are more."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
