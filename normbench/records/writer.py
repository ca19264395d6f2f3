"""Writes the folder of one run."""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import yaml
from filelock import FileLock, Timeout

from normbench.config.schema import RunConfig, RunRecord
from normbench.errors import Busy, NormbenchError, RequestError
from normbench.system import locks
from normbench.system.atomic import write_atomically

if TYPE_CHECKING:
    from PIL.Image import Image  # reading records must not need Pillow

LOCK = ".lock"
CONFIG = "config.yaml"
RESULT = "result.json"
HISTORY = "history.jsonl"
WEIGHTS = "weights.safetensors"
ITEMS = "items.safetensors.gz"
CHECKPOINT = "checkpoint.pt"
FILES = (
    *(LOCK, CONFIG, RESULT, HISTORY, WEIGHTS, ITEMS, CHECKPOINT),
    "checkpoint.previous.pt",
)
"""Names of the files that this or an older version of normbench writes to the folder of
a run, apart from pictures (PNG)."""
LOCK_TIMEOUT = 0.1
"""Seconds to wait for the lock, in case another process only checks it for a moment."""
MAX_ERROR = 2**18
"""Maximum length of a recorded error; only the end of a longer error is recorded."""


def run_folder(results: Path, run_id: str) -> Path:
    """Return the folder of the run `run_id` under `results`."""
    return results / run_id[:2] / run_id


class RunWriter:
    """Writes the folder of one run, and holds its lock until the `with` block ends.

    The operating system releases the lock when the process ends, even after SIGKILL.
    """

    def __init__(self, results: Path, run_id: str) -> None:
        """Take the lock of the run's folder, which is created if it is missing.

        Raises Busy if another process has the lock, and RequestError if the folder
        cannot be written.
        """
        self.folder = run_folder(results, run_id)
        self._results, self._run_id = results, run_id
        self._lock = FileLock(self.folder / LOCK)
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._require_writable_paths()
            try:
                self._lock.acquire(timeout=LOCK_TIMEOUT, poll_interval=0.01)
            except Timeout:
                self._raise_busy()
            except PermissionError:  # the lock file may belong to another user
                if locks.is_held(self.folder / LOCK):
                    self._raise_busy()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self._lock.release()

    def begin(self, config: RunConfig, resume_at: int | None = None) -> None:
        """Write the config and prepare the folder for the first row of the history.

        Removes the files that normbench wrote in an earlier attempt, except the record:
        `finish` replaces it. With `resume_at`, the checkpoint and the first `resume_at`
        bytes of the history are kept, too. Files of other programs are never removed.
        Raises RequestError if the folder cannot be written.
        """
        kept = {LOCK, RESULT}
        if resume_at is not None:
            kept |= {CHECKPOINT, HISTORY}
        with self._writing():
            self._require_writable_paths()
            for path in self.folder.iterdir():
                if path.name not in kept and _is_file_of_normbench(path):
                    path.unlink()
            text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
            write_atomically(self.folder / CONFIG, text)
            with (self.folder / HISTORY).open("ab") as file:
                file.truncate(resume_at or 0)

    def _raise_busy(self) -> NoReturn:
        raise Busy(
            f"another process is training run {self._run_id} in {self.folder}"
        ) from None

    def _require_writable_paths(self) -> None:
        """Raise RequestError if a link, folder or device has the name of a run's file.

        A link could lead out of the results folder.
        """
        folders = (self.folder.parent, self.folder)
        # These two files are appended to. All other files are removed or replaced.
        appended = [self.folder / LOCK, self.folder / HISTORY]
        for path in (*folders, *appended):
            if path.is_symlink():
                raise RequestError(
                    f"{path} is a link, and a run writes only inside {self._results}; "
                    "move the link away, or choose another --results folder"
                )
        pngs = self.folder.glob("*.png")
        png_folders = sorted(path.name for path in pngs if _is_folder(path))
        for name in (*FILES, *png_folders):
            if (self.folder / name).is_dir():
                raise RequestError(
                    f"{self.folder / name} is a folder, but a file of run "
                    f"{self._run_id} has that name; move the folder away"
                )
        for path in appended:
            if path.exists() and not path.is_file():
                raise RequestError(
                    f"{path} is not a regular file, but a file of run {self._run_id} "
                    "has that name; move it away"
                )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn an OSError into a RequestError about --results."""
        try:
            yield
        except FileExistsError as error:
            raise RequestError(
                f"--results {self._results} cannot be written: {error.filename} is not "
                "a folder; move it away, or choose another --results folder"
            ) from None
        except PermissionError:
            raise RequestError(
                f"--results {self._results} cannot be written: this user may not write "
                f"to {_existing_folder(self.folder)}; choose another folder"
            ) from None
        except OSError as error:
            raise RequestError(
                f"--results {self._results} cannot be written: {error.strerror} "
                f"({error.filename or self.folder}); choose another folder"
            ) from None

    def flushed_history(self) -> int:
        """Flush the history to the disk and return its length in bytes."""
        with (self.folder / HISTORY).open("ab") as file:
            os.fsync(file.fileno())
            return file.tell()

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one row to the history."""
        line = json.dumps(finite(row), allow_nan=False)
        with (self.folder / HISTORY).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def pictures(self, pictures: "Mapping[str, Image]") -> dict[str, Path]:
        """Write each picture as a PNG file and return the files by name."""
        files = {name: self.folder / f"{name}.png" for name in pictures}
        for name, picture in pictures.items():
            picture.save(files[name])
        return files

    def weights(self, content: bytes) -> None:
        """Write the network's parameters and buffers as a safetensors file."""
        write_atomically(self.folder / WEIGHTS, content)

    def items(self, content: bytes) -> None:
        """Write the result for each test sample, as `items.packed` returns it."""
        write_atomically(self.folder / ITEMS, content)

    def finish(self, record: RunRecord) -> None:
        """Write the record; from then on the run is finished.

        Raises NormbenchError if the record cannot be written.
        """
        if record.error is not None:
            error = record.error[-MAX_ERROR:]
            record = record.model_copy(update={"error": error})
        text = record.model_dump_json(indent=2) + "\n"
        try:
            write_atomically(self.folder / RESULT, text)
            if record.status == "failed":
                return  # the next attempt resumes from the checkpoint
            (self.folder / CHECKPOINT).unlink(missing_ok=True)
        except OSError as error:
            raise NormbenchError(
                f"the run ended ({record.status}), but its record cannot be written to "
                f"{self.folder}: {error.strerror}; the same command runs it again"
            ) from None


def _is_file_of_normbench(path: Path) -> bool:
    """Return whether `path` in a run's folder has a name that normbench writes."""
    # `write_atomically` first writes the file NAME as .NAME.<process id>.
    temporary = re.fullmatch(r"\.(.+)\.\d+", path.name)
    name = temporary[1] if temporary else path.name
    if _is_folder(path):
        return False
    return name in FILES or name.endswith(".png")


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _existing_folder(folder: Path) -> Path:
    """Return `folder`, or its nearest parent that exists."""
    return next((path for path in (folder, *folder.parents) if path.exists()), folder)


def finite(value: Any) -> Any:
    """Replace NaN and infinity by None, as JSON has no such numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return value
