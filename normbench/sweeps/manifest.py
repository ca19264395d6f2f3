"""What a sweep sets out to do, on disk while it runs, for whoever looks from outside.

`results/sweeps/<time>-<process>/` holds `manifest.json.gz` and a lock, which is the
operating system's and ends with the process. A sweep that begins removes what sweeps
that have ended left there: the last one stays to be looked at.
"""

import gzip
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from filelock import FileLock
from pydantic import BaseModel, ConfigDict

from normbench.config import identity
from normbench.config.schema import RunConfig, Skipped
from normbench.errors import RequestError, Unreadable
from normbench.records.store import LOCK, is_running
from normbench.system import untrusted
from normbench.system.atomic import write_atomically

SWEEPS = "sweeps"
FILE = "manifest.json.gz"


class Manifest(BaseModel):
    """The runs of a sweep, by id; `todo` are those that it does, or does again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    title: str
    workers: int
    runs: dict[str, RunConfig]
    skipped: dict[str, Skipped]
    todo: list[str]


class Announcement:
    """Says what this process is doing, from the first `say` until the `with` ends."""

    def __init__(self, results: Path) -> None:
        self._results = results
        name = f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{os.getpid()}"
        self._folder = results / SWEEPS / name
        self._lock = FileLock(self._folder / LOCK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self._lock.release()

    def say(self, manifest: Manifest) -> None:
        """Replaces what was said before. Raises RequestError where it cannot be."""
        # Its format has no time before 1970 or after 2106, which a clock may show.
        text = manifest.model_dump_json().encode()
        data = gzip.compress(text, compresslevel=1, mtime=0)
        try:
            if not self._lock.is_locked:
                self._folder.mkdir(parents=True)
                self._lock.acquire()
                for other in folders(self._results):
                    if not is_running(other):
                        _remove(other)
            write_atomically(self._folder / FILE, data)
        except OSError as error:
            raise RequestError(
                f"--results {self._results} cannot be written: {error.strerror} "
                f"({error.filename or self._folder}); name a folder that can"
            ) from None


def folders(results: Path) -> list[Path]:
    """Those of all sweeps that have said something, the latest last; no links."""
    found = (file.parent for file in (results / SWEEPS).glob(f"*/{FILE}"))
    return sorted(each for each in found if not each.is_symlink())


def read_manifest(folder: Path) -> Manifest:
    """What is said in a sweep's folder. Raises RequestError where that is damaged."""
    path = folder / FILE
    try:
        said = untrusted.parsed(Manifest, untrusted.unzipped(path), path)
    except Unreadable as error:
        raise RequestError(f"{path} is no manifest ({error.why}); remove it") from None
    except OSError as error:
        told = error.strerror
        raise RequestError(f"{path} is no manifest ({told}); remove it") from None
    skipped = {key: each.config for key, each in said.skipped.items()}
    for run_id, config in (*said.runs.items(), *skipped.items()):
        if wrong := identity.mistake(run_id, config):
            raise RequestError(f"{path} is no manifest ({wrong}); remove it")
    if not said.runs.keys() >= {*said.todo}:
        wrong = "it has something to do that is no run of it"
        raise RequestError(f"{path} is no manifest ({wrong}); remove it")
    return said


def _remove(folder: Path) -> None:
    """Remove what a sweep that has ended said, and its folder where nothing is left."""
    with suppress(OSError):
        for said in (*folder.glob(f".{FILE}.*"), folder / FILE, folder / LOCK):
            said.unlink(missing_ok=True)
        folder.rmdir()
