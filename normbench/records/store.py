"""The record of a run on disk: one folder a run, `result.json` written last.

`results/runs/<2 hex>/<run_id>/` holds `config.yaml`, `history.jsonl` (closed after
every row), pictures, `weights.safetensors` where asked for, and `result.json`, which
appears by one atomic rename: a folder without it is a run that did not finish, and that
its checkpoints take up again.
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
    """A record of another version of normbench, which is not overwritten."""


def write_compact(path: Path, records: Iterable[RunRecord]) -> None:
    """Write records as gzipped JSON lines, by id: equal records give equal bytes."""
    ordered = sorted(records, key=lambda record: record.run_id)
    lines = "".join(record.model_dump_json() + "\n" for record in ordered)
    write_atomically(path, gzip.compress(lines.encode(), mtime=0))


def read_compact(path: Path) -> list[RunRecord]:
    """What `write_compact` wrote. Raises RequestError where that cannot be read."""
    try:
        records = []
        lines = io.BytesIO(untrusted.unzipped(path, follow=True))
        for number, line in enumerate(lines, 1):
            if number > untrusted.MAX_RECORDS:
                most = f"{untrusted.MAX_RECORDS:,}"
                raise Damaged(path, f"it has more than {most} records")
            records.append(
                _checked(line[: untrusted.MAX_RECORD_BYTES], path, f"line {number}: ")
            )
        return records
    except Unreadable as error:
        raise RequestError(f"{path} holds no records: {error.why}") from None
    except OSError as error:
        raise RequestError(f"{path} holds no records: {error.strerror}") from None


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


def look(folder: Path) -> RunRecord | None:
    """The record in a run's folder; None where there is none.

    Raises Damaged for one that is damaged, that is of another run or makes no sense,
    OtherFormat for one that another version of normbench wrote, and Unreadable where
    the disk does not give it.
    """
    path = folder / RESULT
    for above in (folder, folder.parent):
        if above.is_symlink():
            raise Unreadable(path, f"{above} is a link; put the folder itself there")
    try:
        data = untrusted.content(path, untrusted.MAX_RECORD_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    record = _checked(data, path)
    if record.run_id != folder.name:
        raise Damaged(path, "it is the record of another run, or no folder of a run")
    return record


def read(folder: Path) -> RunRecord | None:
    """The record in a run's folder; None where there is none, or a damaged one.

    Raises OtherFormat and Unreadable as `look` does: such a run is not done again.
    """
    try:
        return look(folder)
    except Damaged:
        return None


def finished(results: Path, prefix: str) -> tuple[RunRecord, Path]:
    """The record, and the folder, of the one run whose id starts with `prefix`.

    Raises RequestError where there is no such run, or it has no record, and as `look`.
    """
    folder = find(results, prefix)
    record = look(folder)
    if record is None:
        raise RequestError(
            f"{folder} has no {RESULT}: the run did not finish; `normbench train` with "
            "its overrides runs it again"
        )
    return record, folder


def _checked(data: bytes, path: Path, where: str = "") -> RunRecord:
    """The record in `data`, which is of the run that it says."""
    try:
        record = untrusted.parsed(RunRecord, data, path, where)
    except Damaged:
        with suppress(ValueError):
            found = from_json(data)
            if isinstance(found, dict) and found.get("format", 1) != 1:
                raise OtherFormat(
                    path,
                    f"{where}it is of a format that this version of normbench does not "
                    "read; choose other --results or another version",
                ) from None
        raise
    if wrong := identity.mistake(record.run_id, record.config):
        raise Damaged(path, where + wrong)
    return record


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's history, oldest first; a torn last line is left out.

    Raises Damaged and Unreadable as `reading.history` does, also where there is none.
    """
    path = folder / HISTORY
    try:
        return untrusted.history(path)
    except (FileNotFoundError, NotADirectoryError):
        raise Unreadable(path, "it is not there") from None


def satisfies(folder: Path, record: RunRecord | None, config: RunConfig) -> bool:
    """Whether a finished run holds all that `config` asks for."""
    if record is None or record.status == "failed":
        return False
    if not set(config.probes) <= set(record.config.probes):
        return False
    # `strict` is in no id, since it changes no number; it says what is refused.
    if config.data.options.get("strict") and record.facts.get("skipped_images"):
        return False
    return not config.keep_weights or (folder / WEIGHTS).is_file()


@dataclass(frozen=True)
class Results:
    """A folder of runs, and which of its records count as finished.

    `modules` are the user's own, which a run may need. With `redo_stale`, a record
    counts only if it comes from the code that is here now.
    """

    folder: Path
    modules: tuple[str, ...] = ()
    redo_stale: bool = False

    def finished(self, config: RunConfig) -> RunRecord | None:
        """The record of the run that `config` asks for, or None if it must be done."""
        folder = run_folder(self.folder, identity.run_id(config))
        record = read(folder)
        if record is None or not satisfies(folder, record, config):
            return None
        return record if self.counts(record) else None

    def counts(self, record: RunRecord) -> bool:
        """Whether a record need not be redone because other code made it."""
        if not self.redo_stale:
            return True
        return comes_from_this_code(record, self.modules)

    def resolved(self) -> "Results":
        """The same folder by its absolute path, for processes that start elsewhere."""
        return replace(self, folder=self.folder.resolve())

    def writer(self, config: RunConfig) -> RunWriter:
        """The writer of the run that `config` asks for; it takes the run's lock."""
        return RunWriter(self.folder, identity.run_id(config))


STATES = (*get_args(Status), "running", "interrupted", "missing")
"""What a run can be: how it ended, or that it has not."""


def state(results: Path, run_id: str) -> str:
    """One of STATES: `running` is a run whose lock is held, `interrupted` one that was
    begun and that no process is doing.

    Raises Damaged, OtherFormat and Unreadable as `look` does.
    """
    folder = run_folder(results, run_id)
    if is_running(folder):
        return "running"
    found = look(folder)
    if found is not None:
        return found.status
    return "interrupted" if (folder / HISTORY).exists() else "missing"


def states(
    results: Path, run_ids: Iterable[str]
) -> tuple[Counter[str], list[Unreadable]]:
    """How many of the runs are in each of STATES, and the results that are unreadable.

    Those are in no state.
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
    """The ids of all runs that have a folder, finished or not, sorted.

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
    """Every finished run under `results`, by id, and the results that are unreadable,
    each with why."""
    records: list[RunRecord] = []
    unreadable: list[Unreadable] = []
    with no_garbage():
        for folder in _run_folders(results, unreadable):
            try:
                record = look(folder)
            except Unreadable as error:
                unreadable.append(error)
            else:
                if record is not None:
                    records.append(record)
    return records, unreadable


def _run_folders(
    results: Path, unreadable: list[Unreadable] | None = None
) -> list[Path]:
    """What is where runs are; folders that cannot be listed go to `unreadable`."""
    found: list[Path] = []
    for shard in _listed(results, unreadable):
        if len(shard.name) == 2 and set(shard.name) <= set("0123456789abcdef"):
            found += _listed(shard, unreadable)
    return sorted(found)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except PermissionError:
        return False


def _listed(folder: Path, unreadable: list[Unreadable] | None) -> list[Path]:
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
    """Whether a process, of any user, is doing the run in `folder` now."""
    return locks.is_held(folder / LOCK)


def find(results: Path, prefix: str) -> Path:
    """The folder of the one run whose id starts with `prefix`.

    Raises RequestError where there is none or more than one.
    """
    ids = [run_id for run_id in run_ids(results) if run_id.startswith(prefix)]
    if not ids:
        raise RequestError(f"no run in {results} has an id that starts with {prefix!r}")
    if len(ids) > 1:
        raise RequestError(
            f"{prefix!r} begins {len(ids)} run ids ({', '.join(ids[:4])}); write more "
            "of it"
        )
    return run_folder(results, ids[0])
