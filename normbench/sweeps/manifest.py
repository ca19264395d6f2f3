"""The plan of a sweep as a file, which `normbench watch` reads.

The folder `results/sweeps/<time>-<process id>/` contains `manifest.json.gz` and a file
that the sweep's process locks; the operating system releases the lock when the process
ends. The folder stays after the end of the sweep, until the next sweep removes it.
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
    """The runs of a sweep by id; `todo` are the ids of the runs to train.

    `blind` runs belong to a check or a comparison, which looks at their metrics by its
    own rules; `watch` shows no metric of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    title: str
    workers: int
    runs: dict[str, RunConfig]
    skipped: dict[str, Skipped]
    todo: list[str]
    blind: bool = False


class Announcement:
    """Publishes the manifest of this process; its lock is released after the block."""

    def __init__(self, results: Path) -> None:
        self._results = results
        name = f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{os.getpid()}"
        self._folder = results / SWEEPS / name
        self._lock = FileLock(self._folder / LOCK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self._lock.release()

    def publish(self, manifest: Manifest) -> None:
        """Write or replace the manifest.

        The first call removes the folders of ended sweeps. Raises RequestError if the
        manifest cannot be written.
        """
        # Without mtime=0, gzip fails if the clock is before 1970 or after 2106.
        text = manifest.model_dump_json().encode()
        data = gzip.compress(text, compresslevel=1, mtime=0)
        try:
            if not self._lock.is_locked:  # this is the first call
                self._folder.mkdir(parents=True)
                self._lock.acquire()
                for other in folders(self._results):
                    if not is_running(other):
                        _remove(other)
            write_atomically(self._folder / FILE, data)
        except OSError as error:
            raise RequestError(
                f"--results {self._results} cannot be written: {error.strerror} "
                f"({error.filename or self._folder}); choose another folder"
            ) from None


def folders(results: Path) -> list[Path]:
    """Return the folders (no links) of all sweeps with a manifest, the oldest first."""
    paths = (file.parent for file in (results / SWEEPS).glob(f"*/{FILE}"))
    return sorted(path for path in paths if not path.is_symlink())


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest in a sweep's folder. Raises RequestError if it is damaged."""
    path = folder / FILE

    def damaged(why: object) -> RequestError:
        return RequestError(f"{path} is not a valid manifest ({why}); remove it")

    try:
        manifest = untrusted.parsed(Manifest, untrusted.unzipped(path), path)
    except Unreadable as error:
        raise damaged(error.why) from None
    except OSError as error:
        raise damaged(error.strerror) from None
    skipped = {key: skip.config for key, skip in manifest.skipped.items()}
    for run_id, config in (*manifest.runs.items(), *skipped.items()):
        if wrong := identity.mistake(run_id, config):
            raise damaged(wrong)
    if not manifest.runs.keys() >= {*manifest.todo}:
        raise damaged("todo names a run that is not in runs")
    return manifest


def _remove(folder: Path) -> None:
    """Remove the files of an ended sweep, and its folder if it is empty then."""
    with suppress(OSError):
        # The glob finds temporary files of an interrupted `write_atomically`.
        for path in (*folder.glob(f".{FILE}.*"), folder / FILE, folder / LOCK):
            path.unlink(missing_ok=True)
        folder.rmdir()
