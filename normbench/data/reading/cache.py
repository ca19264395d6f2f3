"""Cache parsed data on disk as tensors, so that only the first run parses them.

The environment variable NORMBENCH_CACHE names the folder. If the variable is not set,
the folder is in the user's cache folder. The user may delete the files in the folder at
any time.
"""

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import platformdirs
import safetensors.torch
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from torch import Tensor

# Problems are logged. `warnings.warn` would end the run under `python -W error`.
log = logging.getLogger(__name__)


class Parsed(NamedTuple):
    """The content of a cache file: tensors and strings, such as class names."""

    tensors: dict[str, Tensor]
    strings: dict[str, str] = {}  # noqa: RUF012 - never changed


def folder() -> Path:
    """Return the folder of the cache, which may not exist yet."""
    return user_folder("NORMBENCH_CACHE", platformdirs.user_cache_dir("normbench"))


def user_folder(variable: str, default: str) -> Path:
    """Return the folder that an environment variable names, or `default` if unset.

    "~" is expanded if the user has a home folder.
    """
    path = os.environ.get(variable) or default
    return Path(os.path.expanduser(path))  # noqa: PTH111 - does not fail without a home


def cached(
    name: str, identity: Mapping[str, object], make: Callable[[], Parsed]
) -> Parsed:
    """Return the result of `make()`, or read it from disk if an earlier call saved it.

    The file name starts with `name`. `identity` (JSON values) contains everything that
    the result depends on: the options, the versions of the packages used, and a
    `format` number that the caller increases when the parsing changes. A damaged file
    is logged and replaced. If the folder cannot be written, this is logged once, and
    the result is returned anyway. If several processes need the same file, one of them
    calls `make`, and the others wait for its result. If the file system has no locks,
    each process calls `make`. A reader never sees an incomplete file.
    """
    path = folder() / f"{name}-{digest(identity)[:24]}.safetensors"
    try:
        return read(path)
    except OSError:
        pass  # The file is missing or unreadable. It is replaced if possible.
    except (SafetensorError, ValueError) as error:
        log.warning("%s is damaged and will be replaced: %s", path, error)
    with _locked(path):
        # Another process may have written the file in the meantime.
        with suppress(OSError, SafetensorError, ValueError):
            return read(path)
        parsed = make()
        try:
            write(path, parsed)
        except OSError as error:
            _log_unwritable(path.parent, error.strerror)
    return parsed


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of `path`, or no lock if the file system does not support locks."""
    lock = FileLock(path.with_name(f".{path.stem}.lock"))
    with suppress(OSError, NotImplementedError):  # filelock raises either
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def digest(identity: Mapping[str, object], tensors: Mapping[str, Tensor] = {}) -> str:
    """Return a hash, 64 hex digits, of JSON values and of tensors on the CPU.

    The hash covers the names, types, shapes and entries of the tensors. The order of
    the keys in the two mappings does not change the hash.
    """
    hash = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        hash.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        hash.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hash.hexdigest()


_verified: set[tuple[str, int, int, int]] = set()
"""The states of the files whose digest this process has checked.

A state consists of the path, the inode, the size and the modification time.
"""


def read(path: Path) -> Parsed:
    """Read a file that `write` wrote.

    Raises OSError if the file cannot be read, and SafetensorError or ValueError if the
    file is damaged. A process checks the digest once for each state of a file.
    """
    info = path.stat()
    state = (str(path), info.st_ino, info.st_size, info.st_mtime_ns)
    with safe_open(path, "pt") as file:
        strings = file.metadata() or {}
        # The tensors are views of the file. A clone does not depend on the file.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    expected = strings.pop("digest", None)
    # The format detects a truncated file, but not a changed byte.
    if state not in _verified and expected != digest(strings, tensors):
        raise ValueError("its digest does not match")
    _verified.add(state)
    return Parsed(tensors, strings)


def write(path: Path, parsed: Parsed) -> None:
    """Write `parsed` and its digest in one atomic step. Raises OSError."""
    strings = parsed.strings | {"digest": digest(parsed.strings, parsed.tensors)}
    # The format needs contiguous tensors.
    tensors = {name: tensor.contiguous() for name, tensor in parsed.tensors.items()}
    content = safetensors.torch.save(tensors, metadata=strings)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@cache
def _log_unwritable(folder: Path, reason: str | None) -> None:
    log.warning(
        "cannot write to the cache folder %s (%s), so every run parses the data again; "
        "set NORMBENCH_CACHE to a writable folder",
        folder,
        reason,
    )
