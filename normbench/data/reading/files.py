"""The user's files: where they are, and the hash of what is in them."""

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from normbench.data.reading.cache import Parsed, cached
from normbench.errors import RequestError

FORMAT = 2

_SURROGATE = re.compile("[\ud800-\udfff]")

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
    if not is_utf8(str(found)):
        raise RequestError(
            f"{key}={shown(found)} is not UTF-8, and no record can hold it; rename it"
        )
    try:
        there = found.exists()
    except OSError as error:  # no permission, a name that is too long
        raise RequestError(f"{key}={path} cannot be read: {error.strerror}") from None
    if not there:
        raise RequestError(f"{key}={path} does not exist; name a {what}")
    return found


class Contents(NamedTuple):
    """What is in files: one fingerprint of all, and the SHA-256 of each."""

    fingerprint: str
    digests: tuple[bytes, ...]


def fingerprint(files: Sequence[Path], root: Path | None = None) -> str:
    """32 hex digits over the contents of `files`, in order, and over their names.

    Names are those below `root`; without, none count. Raises RequestError as `contents`
    does.
    """
    return contents(files, root).fingerprint


def contents(files: Sequence[Path], root: Path | None = None) -> Contents:
    """The fingerprint of `files` below `root`, and a digest of each, in order.

    All bytes are read the first time; after that, and in other processes, only sizes
    and times of change are asked for, as long as they stay. Raises RequestError where a
    file cannot be read.
    """
    try:
        stats = tuple(
            (str(path), info.st_size, info.st_mtime_ns)
            for path, info in ((path, path.stat()) for path in files)
        )
    except OSError as error:
        raise _unreadable(error) from None
    return _contents(stats, str(root) if root else None)


@lru_cache(maxsize=16)
def _contents(stats: tuple[tuple[str, int, int], ...], root: str | None) -> Contents:
    def read() -> Parsed:
        size = sum(size for _, size, _ in stats)
        if size > LARGE:
            told = "reading %.0f GB in %d files, once, for their fingerprint"
            log.warning(told, size / 1e9, len(stats))
        hash = hashlib.sha256()
        digests = bytearray()
        for name, _, _ in stats:
            path = Path(name)
            below = path.relative_to(root).as_posix() if root else ""
            with path.open("rb") as opened:
                content = hashlib.file_digest(opened, "sha256")
            # The bytes that the name has on the disk: not all names are UTF-8.
            hash.update(os.fsencode(below) + f"\0{content.hexdigest()}\n".encode())
            digests += content.digest()
        each = torch.tensor(list(digests), dtype=torch.uint8)
        return Parsed(
            {"digests": each.view(len(stats), 32)},
            {"fingerprint": hash.hexdigest()[:32]},
        )

    hashed = hashlib.sha256(repr((stats, root)).encode()).hexdigest()
    try:
        known = cached("fingerprint", {"format": FORMAT, "files": hashed}, read)
    except OSError as error:
        raise _unreadable(error) from None
    digests = tuple(bytes(row) for row in known.tensors["digests"].numpy())
    return Contents(known.strings["fingerprint"], digests)


def _unreadable(error: OSError) -> RequestError:
    return RequestError(f"{shown(error.filename)} cannot be read: {error.strerror}")


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


def is_utf8(text: str) -> bool:
    """Whether the bytes that the system gave for `text` were UTF-8.

    Python keeps other bytes of a name as surrogates, which no JSON file may have.
    """
    return _SURROGATE.search(text) is None


def shown(path: str | Path) -> str:
    """A name for a message or a record: bytes that are not UTF-8 as \\xe9."""
    return _SURROGATE.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", str(path))
