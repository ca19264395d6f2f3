"""Records of runs on disk: each run has a folder, `results/runs/<2 hex>/<run_id>/`.

The folder contains `config.yaml`, `history.jsonl` (written after every row), pictures,
`weights.safetensors` with keep_weights=true, and at last the record, `result.json`,
which is written atomically. A run without a record is not finished; it resumes from its
checkpoint.
"""

import gc
import gzip
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from pydantic_core import from_json

from normbench.config import identity
from normbench.config.identity import RUN_ID
from normbench.config.schema import RunConfig, RunRecord, Status
from normbench.errors import Damaged, RequestError, Unreadable
from normbench.records.source import comes_from_this_code
from normbench.records.writer import CHECKPOINT as CHECKPOINT
from normbench.records.writer import CONFIG as CONFIG
from normbench.records.writer import HISTORY as HISTORY
from normbench.records.writer import LOCK as LOCK
from normbench.records.writer import RESULT as RESULT
from normbench.records.writer import WEIGHTS as WEIGHTS
from normbench.records.writer import RunWriter as RunWriter
from normbench.records.writer import finite as finite
from normbench.records.writer import run_folder as run_folder
from normbench.system import locks, untrusted
from normbench.system.atomic import write_atomically


class OtherFormat(Unreadable, RequestError):
    """The record is in the format of another version of normbench; it is kept."""


def write_compact(path: Path, records: Iterable[RunRecord]) -> None:
    """Write records as gzipped JSON lines, sorted by id.

    Equal records give equal bytes.
    """
    ordered = sorted(records, key=lambda record: record.run_id)
    lines = "".join(record.model_dump_json() + "\n" for record in ordered)
    write_atomically(path, gzip.compress(lines.encode(), mtime=0))


def read_compact(path: Path) -> list[RunRecord]:
    """Read the file of `write_compact`. Raises RequestError if it cannot be read."""
    try:
        records = []
        lines = io.BytesIO(untrusted.unzipped(path, follow=True))
        for number, line in enumerate(lines, 1):
            if number > untrusted.MAX_RECORDS:
                limit = f"{untrusted.MAX_RECORDS:,}"
                raise Damaged(path, f"it has more than {limit} records")
            records.append(
                _checked(line[: untrusted.MAX_RECORD_BYTES], path, f"line {number}: ")
            )
        return records
    except Unreadable as error:
        raise _no_records(path, error.why) from None
    except OSError as error:
        raise _no_records(path, error.strerror) from None


def _no_records(path: Path, why: str | None) -> RequestError:
    return RequestError(f"{path}: records cannot be read: {why}")


def read_valid(folder: Path) -> RunRecord | None:
    """Read the record in a run's folder; None if the folder has no record.

    Raises Damaged if the record is invalid or belongs to another run, OtherFormat if
    another version of normbench wrote it, and Unreadable if the file cannot be read.
    """
    path = folder / RESULT
    for parent in (folder, folder.parent):
        if parent.is_symlink():
            raise Unreadable(path, f"{parent} is a link; put the folder itself there")
    try:
        data = untrusted.content(path, untrusted.MAX_RECORD_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    record = _checked(data, path)
    if record.run_id != folder.name:
        raise Damaged(path, f"it is the record of another run, {record.run_id}")
    return record


def read(folder: Path) -> RunRecord | None:
    """Read the record in a run's folder; None if it is missing or damaged.

    Raises OtherFormat and Unreadable as `read_valid` does, so such a run is not redone.
    """
    try:
        return read_valid(folder)
    except Damaged:
        return None


def find_record(results: Path, prefix: str) -> tuple[RunRecord, Path]:
    """Return the record and the folder of the run whose id starts with `prefix`.

    Raises RequestError if no run or more than one run has such an id, or if the run has
    no record. Also raises the errors of `read_valid`.
    """
    folder = find_folder(results, prefix)
    record = read_valid(folder)
    if record is None:
        raise RequestError(
            f"{folder} has no {RESULT}: the run did not finish; `normbench train` with "
            "its overrides runs it again"
        )
    return record, folder


def _checked(data: bytes, path: Path, where: str = "") -> RunRecord:
    """Parse a record, and check that its id belongs to its config.

    Errors name the file `path`, and the place `where` in this file.
    """
    try:
        record = untrusted.parsed(RunRecord, data, path, where)
    except Damaged:
        with suppress(ValueError):
            content = from_json(data)
            if isinstance(content, dict) and content.get("format", 1) != 1:
                raise OtherFormat(
                    path,
                    f"{where}this version of normbench cannot read the record's "
                    "format; choose another --results folder or another version",
                ) from None
        raise
    if wrong := identity.mistake(record.run_id, record.config):
        raise Damaged(path, where + wrong)
    return record


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's history, oldest first; skip an incomplete last line.

    Raises Damaged and Unreadable as `untrusted.history` does, and Unreadable if the
    file is missing.
    """
    path = folder / HISTORY
    try:
        return untrusted.history(path)
    except (FileNotFoundError, NotADirectoryError):
        raise Unreadable(path, "the file does not exist") from None


def satisfies(folder: Path, record: RunRecord | None, config: RunConfig) -> bool:
    """Return whether a record is finished and has everything that `config` asks for."""
    if record is None or record.status == "failed":
        return False
    if not set(config.probes) <= set(record.config.probes):
        return False
    if not set(config.measured) <= set(record.config.measured):
        return False
    # `data.strict` is not part of the run id, as it changes no number. With it, a run
    # refuses data with unreadable images instead of skipping these images.
    if config.data.options.get("strict") and record.facts.get("skipped_images"):
        return False
    return not config.keep_weights or (folder / WEIGHTS).is_file()


@dataclass(frozen=True)
class Results:
    """A folder of runs, and the rule for which of its records count as finished.

    `modules` are the names of the user's modules. With `redo_stale`, a record counts
    only if the current code made it.
    """

    folder: Path
    modules: tuple[str, ...] = ()
    redo_stale: bool = False

    def finished(self, config: RunConfig) -> RunRecord | None:
        """The record of the run that `config` asks for, or None if it must be run."""
        folder = run_folder(self.folder, identity.run_id(config))
        record = read(folder)
        if record is None or not satisfies(folder, record, config):
            return None
        return record if self.counts(record) else None

    def counts(self, record: RunRecord) -> bool:
        """Return False if `redo_stale` is set and other code made the record."""
        if not self.redo_stale:
            return True
        return comes_from_this_code(record, self.modules)

    def resolved(self) -> "Results":
        """Return the same results with an absolute path, for other processes."""
        return replace(self, folder=self.folder.resolve())

    def writer(self, config: RunConfig) -> RunWriter:
        """The writer of the run that `config` asks for; it takes the run's lock."""
        return RunWriter(self.folder, identity.run_id(config))


STATES = (*get_args(Status), "running", "interrupted", "missing")
"""The states of a run: the status of its record, or a state of an unfinished run."""


def state(results: Path, run_id: str) -> str:
    """Return the state of a run, one of STATES.

    A run is `running` while a process holds its lock, and `interrupted` if it has
    started but has no record and no process. Raises Damaged, OtherFormat and Unreadable
    as `read_valid` does.
    """
    folder = run_folder(results, run_id)
    if is_running(folder):
        return "running"
    record = read_valid(folder)
    if record is not None:
        return record.status
    return "interrupted" if (folder / HISTORY).exists() else "missing"


def states(
    results: Path, run_ids: Iterable[str]
) -> tuple[Counter[str], list[Unreadable]]:
    """Count the runs in each of STATES; return the counts and the unreadable results.

    A run with an unreadable result is not counted.
    """
    counts: Counter[str] = Counter()
    unreadable = []
    for run_id in run_ids:
        try:
            counts[state(results, run_id)] += 1
        except Unreadable as error:
            unreadable.append(error)
    return counts, unreadable


def run_ids(results: Path, unreadable: list[Unreadable] | None = None) -> list[str]:
    """Return the sorted ids of all runs that have a folder, finished or not.

    Folders that cannot be listed are added to `unreadable`.
    """
    return [
        folder.name
        for folder in _run_folders(results, unreadable)
        if RUN_ID.fullmatch(folder.name)
        and folder.name.startswith(folder.parent.name)
        and _is_folder(folder)
    ]


def all_records(results: Path) -> tuple[list[RunRecord], list[Unreadable]]:
    """Return all records under `results`, sorted by id, and the unreadable results."""
    records: list[RunRecord] = []
    unreadable: list[Unreadable] = []
    with no_garbage():
        for folder in _run_folders(results, unreadable):
            try:
                record = read_valid(folder)
            except Unreadable as error:
                unreadable.append(error)
            else:
                if record is not None:
                    records.append(record)
    return records, unreadable


def _run_folders(
    results: Path, unreadable: list[Unreadable] | None = None
) -> list[Path]:
    """List `results/<2 hex>/*`; add folders that cannot be listed to `unreadable`."""
    paths: list[Path] = []
    for shard in _list(results, unreadable):
        if len(shard.name) == 2 and set(shard.name) <= set("0123456789abcdef"):
            paths += _list(shard, unreadable)
    return sorted(paths)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except PermissionError:
        return False


def _list(folder: Path, unreadable: list[Unreadable] | None) -> list[Path]:
    """Return the paths in a folder, [] if it is missing; add errors to `unreadable`."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        if unreadable is not None:
            unreadable.append(Unreadable(folder, str(error.strerror)))
        return []


@contextmanager
def no_garbage() -> Iterator[None]:
    """Disable the cyclic garbage collector in the block.

    The collector would inspect all records repeatedly, which doubles the time to read.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def is_running(folder: Path) -> bool:
    """Return whether a process of any user is training the run in `folder`."""
    return locks.is_held(folder / LOCK)


def find_folder(results: Path, prefix: str) -> Path:
    """Return the folder of the run whose id starts with `prefix`.

    Raises RequestError if there is no such run or more than one.
    """
    ids = [run_id for run_id in run_ids(results) if run_id.startswith(prefix)]
    if not ids:
        raise RequestError(f"no run in {results} has an id that starts with {prefix!r}")
    if len(ids) > 1:
        raise RequestError(
            f"{len(ids)} run ids start with {prefix!r} ({', '.join(ids[:4])}); write "
            "more characters"
        )
    return run_folder(results, ids[0])
