"""The record of a run on disk: one folder a run, `result.json` written last.

`results/runs/<2 hex>/<run_id>/` holds `config.yaml`, `history.jsonl` (closed after
every row), pictures, `weights.safetensors` where asked for, and `result.json`, which
appears by one atomic rename: a folder without it is a run that did not finish, and that
its checkpoints take up again.
"""

import gc
import gzip
import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

import yaml
from filelock import FileLock, Timeout
from pydantic import ValidationError

from normbench.errors import Busy, NormbenchError, RequestError
from normbench.schema import RunConfig, RunRecord, Status

if TYPE_CHECKING:
    from torch import Tensor  # records are read where there is no torch

LOCK = ".lock"
CONFIG = "config.yaml"
RESULT = "result.json"
HISTORY = "history.jsonl"
WEIGHTS = "weights.safetensors"
MOMENT = 0.1
"""Seconds: more than one who asks whether a run is being done holds its lock."""
CHECKPOINT = "checkpoint.pt"
PREVIOUS_CHECKPOINT = "checkpoint.previous.pt"


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
        self._lock = FileLock(self.folder / LOCK)
        with self._writing(results):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=MOMENT, poll_interval=MOMENT / 10)
            except Timeout:
                raise Busy(
                    f"run {run_id} is being done by another process, in {self.folder}"
                ) from None
        self._results = results

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self._lock.release()

    def begin(self, config: RunConfig, resume_at: int | None = None) -> None:
        """Make the folder ready for the first row, or for the next one.

        What an earlier try left there is removed, but for its result, which stands
        until `finish` replaces it. To resume, its checkpoints and the first `resume_at`
        bytes of its history stay too. Raises RequestError where that is not possible.
        """
        kept = {LOCK, RESULT}
        if resume_at is not None:
            kept |= {CHECKPOINT, PREVIOUS_CHECKPOINT, HISTORY}
        with self._writing(self._results):
            for left_over in self.folder.iterdir():
                if left_over.name not in kept:
                    left_over.unlink()
            text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
            write_atomically(self.folder / CONFIG, text)
            with (self.folder / HISTORY).open("ab") as file:
                file.truncate(resume_at or 0)

    @contextmanager
    def _writing(self, results: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RequestError(
                f"--results {results} cannot be written: {error.strerror} "
                f"({error.filename}); name a folder that can"
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

    def pictures(self, pictures: "Mapping[str, Tensor]") -> dict[str, Path]:
        """Write each picture, (3, H, W) in [0, 1], as PNG; the files by name."""
        files = {}
        for name, picture in pictures.items():
            from PIL import Image

            pixels = picture.detach().cpu().clamp(0, 1).mul(255).round().byte()
            files[name] = self.folder / f"{name}.png"
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(files[name])
        return files

    def weights(self, state: "Mapping[str, Tensor]") -> None:
        """Write the network's parameters and buffers."""
        from safetensors.torch import save

        tensors = {name: tensor.contiguous() for name, tensor in state.items()}
        write_atomically(self.folder / WEIGHTS, save(tensors))

    def finish(self, record: RunRecord) -> None:
        """Write the result: from here on the run is finished.

        Raises NormbenchError where that is not possible.
        """
        text = record.model_dump_json(indent=2) + "\n"
        try:
            write_atomically(self.folder / RESULT, text)
            if record.status == "failed":
                return  # it may get further the next time, from where it was
            for name in (CHECKPOINT, PREVIOUS_CHECKPOINT):
                (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise NormbenchError(
                f"the run ended ({record.status}), but its record cannot be written to "
                f"{self.folder}: {error.strerror}; the same command runs it again"
            ) from None


class NoWriter:
    """Writes nothing: for the processes of a run that are not its first."""

    def log(self, row: Mapping[str, Any]) -> None:
        pass

    def flushed_history(self) -> int:
        return 0

    def pictures(self, pictures: "Mapping[str, Tensor]") -> dict[str, Path]:
        return {}

    def weights(self, state: "Mapping[str, Tensor]") -> None:
        pass


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `path` whole or not at all, whether the process or the machine stops."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    data = content.encode() if isinstance(content, str) else content
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_compact(path: Path, records: Iterable[RunRecord]) -> None:
    """Write records as gzipped JSON lines, by id: equal records give equal bytes."""
    ordered = sorted(records, key=lambda record: record.run_id)
    lines = "".join(record.model_dump_json() + "\n" for record in ordered)
    write_atomically(path, gzip.compress(lines.encode(), mtime=0))


def read_compact(path: Path) -> list[RunRecord]:
    """What `write_compact` wrote. Raises RequestError where that cannot be read."""
    try:
        lines = gzip.decompress(path.read_bytes()).splitlines()
        return [RunRecord.model_validate_json(line) for line in lines]
    except (OSError, EOFError, zlib.error, ValidationError) as error:
        raise RequestError(f"{path} holds no records: {error}") from None


def restore(results: Path, records: Iterable[RunRecord]) -> None:
    """Make each of `records` a finished run under `results`, where it is none yet.

    Such a run has an empty history, no pictures and no weights. Raises Busy where a
    process is doing it, RequestError where it cannot be written.
    """
    for record in records:
        found = read(run_folder(results, record.run_id))
        if found is None or found.status == "failed":
            with RunWriter(results, record.run_id) as writer:
                writer.begin(record.config)
                writer.finish(record)


def finite(value: Any) -> Any:
    """`value` with every float that is not finite as None: JSON has no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return value


def read(folder: Path) -> RunRecord | None:
    """The record in a run's folder; None where there is none, or a damaged one.

    Raises RequestError for a record that another version of normbench wrote.
    """
    try:
        data = (folder / RESULT).read_bytes()
    except OSError:
        return None
    return _parse(data, folder)


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's history, oldest first; a torn last line is left out."""
    rows = []
    for line in (folder / HISTORY).read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def satisfies(folder: Path, record: RunRecord | None, config: RunConfig) -> bool:
    """Whether a finished run holds all that `config` asks for."""
    if record is None or record.status == "failed":
        return False
    if not set(config.probes) <= set(record.config.probes):
        return False
    # `strict` is in no id, since it changes no number; it says what is refused.
    if config.data.get("strict") and record.facts.get("skipped_images"):
        return False
    return not config.keep_weights or (folder / WEIGHTS).is_file()


STATES = (*get_args(Status), "running", "interrupted", "missing")
"""What a run can be: how it ended, or that it has not."""


def state(results: Path, run_id: str) -> str:
    """One of STATES: `running` is a run whose lock is held, `interrupted` one that was
    begun and that no process is doing.
    """
    folder = run_folder(results, run_id)
    if is_running(folder):
        return "running"
    found = read(folder)
    if found is not None:
        return found.status
    return "interrupted" if (folder / HISTORY).exists() else "missing"


def run_ids(results: Path) -> list[str]:
    """The ids of all runs that have a folder, finished or not, sorted."""
    return [
        folder.name
        for folder in _run_folders(results)
        if folder.name.startswith(folder.parent.name) and folder.is_dir()
    ]


def all_records(results: Path) -> tuple[list[RunRecord], list[Path]]:
    """Every finished run under `results`, by id, and the results that are damaged."""
    records, damaged = [], []
    with no_garbage():
        for folder in _run_folders(results):
            try:
                data = (folder / RESULT).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                data = b""
            record = _parse(data, folder)
            if record is None:
                damaged.append(folder / RESULT)
            else:
                records.append(record)
    return records, damaged


def _parse(data: bytes, folder: Path) -> RunRecord | None:
    try:
        record = RunRecord.model_validate_json(data)
    except ValidationError as error:
        if any(mistake["loc"] == ("format",) for mistake in error.errors()):
            raise RequestError(
                f"{folder / RESULT} is of a format that this version of normbench "
                "does not read; choose other --results or another version"
            ) from None
        return None
    return record if record.run_id == folder.name else None


def _run_folders(results: Path) -> list[Path]:
    return sorted(results.glob("[0-9a-f][0-9a-f]/*"))


@contextmanager
def no_garbage() -> Iterator[None]:
    """Without the cyclic collector, which would walk all records again and again.

    It takes half of the time of reading many.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def is_running(folder: Path) -> bool:
    """Whether a process, here or elsewhere, is doing the run in `folder` now.

    Where nothing can be written, nothing runs.
    """
    if not (folder / LOCK).is_file():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def find(results: Path, prefix: str) -> Path:
    """The folder of the one run whose id starts with `prefix`.

    Raises RequestError where there is none or more than one.
    """
    folders = [
        folder
        for folder in _run_folders(results)
        if folder.name.startswith(prefix) and folder.is_dir()
    ]
    if not folders:
        raise RequestError(f"no run in {results} has an id that starts with {prefix!r}")
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders[:4])
        raise RequestError(
            f"{prefix!r} begins {len(folders)} run ids ({names}); write more of it"
        )
    return folders[0]
