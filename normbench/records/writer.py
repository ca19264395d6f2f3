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
    from PIL.Image import Image  # records are read where there is no Pillow

LOCK = ".lock"
CONFIG = "config.yaml"
RESULT = "result.json"
HISTORY = "history.jsonl"
WEIGHTS = "weights.safetensors"
CHECKPOINT = "checkpoint.pt"
FILES = (LOCK, CONFIG, RESULT, HISTORY, WEIGHTS, CHECKPOINT, "checkpoint.previous.pt")
"""The files that normbench writes to the folder of a run, or has written, beside
pictures (PNG)."""
MOMENT = 0.1
"""Seconds: more than one who asks whether a run is being done holds its lock."""
MOST_ERROR = 2**18
"""Characters of a traceback that are recorded: its last ones."""


def run_folder(results: Path, run_id: str) -> Path:
    """Where the run `run_id` lives under `results`."""
    return results / run_id[:2] / run_id


class RunWriter:
    """Writes one run's folder, which is this process's own until the `with` ends.

    The lock is the operating system's: it ends with the process, however that ends.
    """

    def __init__(self, results: Path, run_id: str) -> None:
        """Raises Busy where another has the folder, RequestError where none can."""
        self.folder = run_folder(results, run_id)
        self._results, self._run_id = results, run_id
        self._lock = FileLock(self.folder / LOCK)
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._check_the_way()
            try:
                self._lock.acquire(timeout=MOMENT, poll_interval=MOMENT / 10)
            except Timeout:
                self._raise_busy()
            except PermissionError:
                if locks.is_held(self.folder / LOCK):
                    self._raise_busy()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self._lock.release()

    def begin(self, config: RunConfig, resume_at: int | None = None) -> None:
        """Make the folder ready for the first row, or for the next one.

        What an earlier try of normbench left there is removed (FILES, pictures and
        temporary files), but for its result, which stands until `finish` replaces it.
        To resume, its checkpoints and the first `resume_at` bytes of its history stay
        too. Files of others stay. Raises RequestError where that is not possible.
        """
        kept = {LOCK, RESULT}
        if resume_at is not None:
            kept |= {CHECKPOINT, HISTORY}
        with self._writing():
            self._check_the_way()
            for left_over in self.folder.iterdir():
                if left_over.name not in kept and _is_ours(left_over):
                    left_over.unlink()
            text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
            write_atomically(self.folder / CONFIG, text)
            with (self.folder / HISTORY).open("ab") as file:
                file.truncate(resume_at or 0)

    def _raise_busy(self) -> NoReturn:
        raise Busy(
            f"run {self._run_id} is being done by another process, in {self.folder}"
        ) from None

    def _check_the_way(self) -> None:
        """Raise RequestError for what is where a file of the run has to be."""
        folders = (self.folder.parent, self.folder)
        opened = [self.folder / LOCK, self.folder / HISTORY]
        for path in (*folders, *opened):
            if path.is_symlink():
                raise RequestError(
                    f"{path} is a link; a run writes to {self._results} alone: move "
                    "the link away, or name other --results"
                )
        names = {path.name for path in self.folder.glob("*.png") if _is_folder(path)}
        for name in (*FILES, *sorted(names)):
            if (self.folder / name).is_dir():
                raise RequestError(
                    f"{self.folder / name} is a folder, and a file of run "
                    f"{self._run_id} has that name; move the folder away"
                )
        for path in opened:
            if path.exists() and not path.is_file():
                raise RequestError(
                    f"{path} is no regular file, and a file of run {self._run_id} has "
                    "that name; move it away"
                )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except FileExistsError as error:
            raise RequestError(
                f"--results {self._results} cannot be written: {error.filename} is no "
                "folder; move it away, or name other --results"
            ) from None
        except PermissionError:
            raise RequestError(
                f"--results {self._results} cannot be written: this user may not write "
                f"to {_first_there(self.folder)}; name a folder that can"
            ) from None
        except OSError as error:
            raise RequestError(
                f"--results {self._results} cannot be written: {error.strerror} "
                f"({error.filename or self.folder}); name a folder that can"
            ) from None

    def flushed_history(self) -> int:
        """The length of the history in bytes, once all of it is on the disk."""
        with (self.folder / HISTORY).open("ab") as file:
            os.fsync(file.fileno())
            return file.tell()

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one row to the history."""
        line = json.dumps(finite(row), allow_nan=False)
        with (self.folder / HISTORY).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def pictures(self, pictures: "Mapping[str, Image]") -> dict[str, Path]:
        """Write each picture as PNG; the files by name."""
        files = {name: self.folder / f"{name}.png" for name in pictures}
        for name, picture in pictures.items():
            picture.save(files[name])
        return files

    def weights(self, content: bytes) -> None:
        """Write the network's parameters and buffers, as a safetensors file."""
        write_atomically(self.folder / WEIGHTS, content)

    def finish(self, record: RunRecord) -> None:
        """Write the result: from here on the run is finished.

        Raises NormbenchError where that is not possible.
        """
        if record.error is not None:
            last = record.error[-MOST_ERROR:]
            record = record.model_copy(update={"error": last})
        text = record.model_dump_json(indent=2) + "\n"
        try:
            write_atomically(self.folder / RESULT, text)
            if record.status == "failed":
                return  # it may get further the next time, from where it was
            (self.folder / CHECKPOINT).unlink(missing_ok=True)
        except OSError as error:
            raise NormbenchError(
                f"the run ended ({record.status}), but its record cannot be written to "
                f"{self.folder}: {error.strerror}; the same command runs it again"
            ) from None


def _is_ours(path: Path) -> bool:
    """Whether `path`, in a run's folder, is a file that normbench writes there."""
    temporary = re.fullmatch(r"\.(.+)\.\d+", path.name)
    name = temporary[1] if temporary else path.name
    if _is_folder(path):
        return False
    return name in FILES or name.endswith(".png")


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _first_there(folder: Path) -> Path:
    """`folder`, or the first above it that is there."""
    return next((each for each in (folder, *folder.parents) if each.exists()), folder)


def finite(value: Any) -> Any:
    """`value` with every float that is not finite as None: JSON has no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return value
