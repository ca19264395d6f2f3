"""Check the paths of the user's files, and hash their contents."""

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

SLOW_BYTES = 2e9
"""Reading more bytes than this takes long, so it is announced."""

log = logging.getLogger(__name__)


def file(key: str, path: str | None) -> Path:
    """Return the absolute path of the file that the option `key` names.

    Raises RequestError if the file does not exist or is empty.
    """
    absolute = _existing(key, path, "file")
    if absolute.is_dir():
        raise RequestError(f"{key}={path} is a folder; name a file")
    if not absolute.is_file():
        raise RequestError(f"{key}={path} is a device or a pipe; name a file")
    if absolute.stat().st_size == 0:
        raise RequestError(f"{key}={path} is empty")
    return absolute


def folder(key: str, path: str | None) -> Path:
    """Return the absolute path of the folder that the option `key` names.

    Raises RequestError if the folder does not exist or is empty.
    """
    absolute = _existing(key, path, "folder")
    if not absolute.is_dir():
        raise RequestError(f"{key}={path} is a file; name a folder")
    try:
        empty = not any(absolute.iterdir())
    except OSError as error:
        raise RequestError(f"{key}={path} cannot be read: {error.strerror}") from None
    if empty:
        raise RequestError(f"{key}={path} is empty")
    return absolute


def expanded(path: str) -> Path:
    """Return `path` with "~" replaced by the home folder, if there is one."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def require_apart(training: Path, test: Path) -> None:
    """Raise RequestError if the training and test paths are equal or nested."""
    first, second = training.resolve(), test.resolve()
    if first.is_relative_to(second) or second.is_relative_to(first):
        relation = "the same" if first == second else "one inside the other"
        raise RequestError(
            f"data.path={training} and data.test_path={test} are {relation}, so the "
            "network would be trained on the test part; name separate paths, or leave "
            "out data.test_path"
        )


def _existing(key: str, path: str | None, kind: str) -> Path:
    if not path:
        raise RequestError(f"{key} is not set; name a {kind}: {key}=PATH")
    absolute = expanded(path).absolute()
    if not is_utf8(str(absolute)):
        raise RequestError(
            f"{key}={shown(absolute)} is not UTF-8, as records need; rename it"
        )
    try:
        exists = absolute.exists()
    except OSError as error:  # no permission, or a name that is too long
        raise RequestError(f"{key}={path} cannot be read: {error.strerror}") from None
    if not exists:
        raise RequestError(f"{key}={path} does not exist; name a {kind}")
    return absolute


class Contents(NamedTuple):
    """Hashes of files: one fingerprint of all files, and the SHA-256 of each file."""

    fingerprint: str
    digests: tuple[bytes, ...]


def contents(files: Sequence[Path], root: Path | None = None) -> Contents:
    """Hash the contents of `files`, and their names relative to `root` if it is given.

    The fingerprint has 32 hex digits. All bytes are read the first time. Later calls,
    in this process and others, only compare the sizes and modification times. Raises
    RequestError if a file cannot be read.
    """
    try:
        stats = tuple(
            (str(path), info.st_size, info.st_mtime_ns)
            for path, info in ((path, path.stat()) for path in files)
        )
    except OSError as error:
        raise unreadable(error) from None
    return _contents(stats, str(root) if root else None)


@lru_cache(maxsize=16)
def _contents(stats: tuple[tuple[str, int, int], ...], root: str | None) -> Contents:
    def read() -> Parsed:
        size = sum(size for _, size, _ in stats)
        if size > SLOW_BYTES:
            message = "reading %.0f GB in %d files once, to compute their hash"
            log.warning(message, size / 1e9, len(stats))
        hash = hashlib.sha256()
        digests = bytearray()
        for name, _, _ in stats:
            path = Path(name)
            name_in_root = path.relative_to(root).as_posix() if root else ""
            with path.open("rb") as opened:
                content = hashlib.file_digest(opened, "sha256")
            # The bytes of the name on the disk, because not all names are UTF-8.
            name_bytes = os.fsencode(name_in_root)
            hash.update(name_bytes + f"\0{content.hexdigest()}\n".encode())
            digests += content.digest()
        rows = torch.tensor(list(digests), dtype=torch.uint8).view(len(stats), 32)
        return Parsed({"digests": rows}, {"fingerprint": hash.hexdigest()[:32]})

    # The cache finds its entry by this hash of the names, sizes and times.
    state = hashlib.sha256(repr((stats, root)).encode()).hexdigest()
    try:
        parsed = cached("fingerprint", {"format": FORMAT, "files": state}, read)
    except OSError as error:
        raise unreadable(error) from None
    digests = tuple(bytes(row) for row in parsed.tensors["digests"].numpy())
    return Contents(parsed.strings["fingerprint"], digests)


def unreadable(error: OSError) -> RequestError:
    """Return the error to raise for a file or folder that cannot be read."""
    return RequestError(f"{shown(error.filename)} cannot be read: {error.strerror}")


def require_unchanged(expected: str | None, actual: str) -> None:
    """Raise RequestError if the files have changed since the run.

    `expected` is the fingerprint that the run recorded, or None if there is none.
    `actual` is the fingerprint of the files now.
    """
    if expected not in {None, actual}:
        raise RequestError(
            f"the files of this run have changed: data.fingerprint={expected}, but now "
            f"it is {actual}"
        )


def shortened(names: Iterable[str], limit: int = 5) -> str:
    """Return the first `limit` names for a message, and the number of the others."""
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def is_utf8(text: str) -> bool:
    """Return whether the file system's bytes for the name `text` are UTF-8.

    Python represents other bytes as surrogates, which JSON files must not contain.
    """
    return _SURROGATE.search(text) is None


def shown(path: str | Path) -> str:
    """Return a path for messages and records, with non-UTF-8 bytes written as \\xe9."""
    # Python stores such a byte as the surrogate U+DC00 + byte.
    return _SURROGATE.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", str(path))
