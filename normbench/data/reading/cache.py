"""Parsed data, kept on disk as tensors so that only the first run parses.

The folder is $NORMBENCH_CACHE, or else the user's cache folder. Everything in it can be
deleted at any time.
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

# Not `warnings`: under `python -W error` those would end the run.
log = logging.getLogger(__name__)


class Parsed(NamedTuple):
    """What a cache file holds: tensors and strings (class names, a vocabulary)."""

    tensors: dict[str, Tensor]
    strings: dict[str, str] = {}  # noqa: RUF012 - never changed


def folder() -> Path:
    """Where the cache is; it need not exist."""
    chosen = os.environ.get("NORMBENCH_CACHE")
    path = chosen or platformdirs.user_cache_dir("normbench")
    return Path(os.path.expanduser(path))  # noqa: PTH111 - where there is no home


def cached(
    name: str, identity: Mapping[str, object], make: Callable[[], Parsed]
) -> Parsed:
    """What `make()` returns, from disk if it was made before.

    `name` starts the file's name. `identity` (JSON values) is all that the result
    depends on: the options, the versions of the packages that were read, and a `format`
    number that its caller raises when the parsing changes. A damaged file is logged and
    made again; where nothing can be written, that is logged once and the run goes on.
    Of concurrent callers one makes it, and the others wait and read it, wherever the
    file system has locks; a reader never sees half a file.
    """
    path = folder() / f"{name}-{digest(identity)[:24]}.safetensors"
    try:
        return read(path)
    except OSError:
        pass  # Not there, or not readable: then it is replaced, if that is possible.
    except (SafetensorError, ValueError) as error:
        log.warning("%s is damaged, making it again: %s", path, error)
    with _locked(path):
        # Another process may have made it meanwhile.
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
    """Alone with `path` within, unless no lock can be had: then the work is doubled."""
    lock = FileLock(path.with_name(f".{path.stem}.lock"))
    with suppress(OSError, NotImplementedError):  # the latter is filelock's
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def digest(identity: Mapping[str, object], tensors: Mapping[str, Tensor] = {}) -> str:
    """64 hex digits over JSON values and over names, types, shapes and entries.

    `tensors` are on the CPU. Independent of the order of either mapping.
    """
    hash = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        hash.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        hash.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hash.hexdigest()


_verified: set[tuple[str, int, int, int]] = set()
"""Files whose content this process has compared with their digest: the path, inode,
size and time of change."""


def read(path: Path) -> Parsed:
    """Return what `write` wrote. Raises OSError, SafetensorError or ValueError.

    The digest is computed once for each state of a file in a process.
    """
    info = path.stat()
    state = (str(path), info.st_ino, info.st_size, info.st_mtime_ns)
    with safe_open(path, "pt") as file:
        strings = file.metadata() or {}
        # A clone does not depend on the file, which is mapped into memory.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    expected = strings.pop("digest", None)
    # The format itself notices a truncated file, but not a changed byte.
    if state not in _verified and expected != digest(strings, tensors):
        raise ValueError("its digest does not match")
    _verified.add(state)
    return Parsed(tensors, strings)


def write(path: Path, parsed: Parsed) -> None:
    """Write `parsed` with its digest, whole or not at all. Raises OSError."""
    strings = parsed.strings | {"digest": digest(parsed.strings, parsed.tensors)}
    # The format refuses tensors with gaps.
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
        "cannot write to the cache folder %s (%s): data are parsed anew in every run; "
        "set NORMBENCH_CACHE to a folder that can be written",
        folder,
        reason,
    )
