"""Records on disk: read back as written; an incomplete record does not count."""

import errno
import gc
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records_made import A_RECORD, a_record, written

from normbench.config.composition import compose, compose_engine
from normbench.config.identity import run_id
from normbench.config.schema import RunRecord
from normbench.errors import RequestError, Unreadable
from normbench.records import store
from normbench.records.store import Results
from normbench.sweeps.plan import Plan, plan_state


@given(
    metrics=st.dictionaries(st.text(), st.none() | st.floats(allow_nan=False)),
    error=st.none() | st.text(),
)
def test_a_record_round_trips_through_its_json(
    metrics: dict[str, float | None], error: str | None
) -> None:
    finished = A_RECORD.model_copy(
        update={"metrics": store.finite(metrics), "error": error}
    )
    text = finished.model_dump_json()
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert RunRecord.model_validate_json(text) == finished


def test_a_record_round_trips_through_its_folder(tmp_path: Path) -> None:
    finished = a_record()
    folder = written(tmp_path, finished)
    assert folder == tmp_path / finished.run_id[:2] / finished.run_id
    assert store.read(folder) == finished
    assert store.all_records(tmp_path) == ([finished], [])


def test_a_record_cut_at_any_byte_is_no_record(tmp_path: Path) -> None:
    folder = written(tmp_path, a_record())
    path = folder / store.RESULT
    whole = path.read_bytes().rstrip()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert store.read(folder) is None
    records, (unreadable,) = store.all_records(tmp_path)
    assert (records, unreadable.path) == ([], path)


def test_the_history_is_readable_while_the_run_goes_on(tmp_path: Path) -> None:
    config = compose([])
    writer = store.RunWriter(tmp_path, run_id(config))
    writer.begin(config)
    writer.log({"step": 1, "train/batch_loss": 2.5})
    writer.log({"step": 2, "train/batch_loss": math.nan})
    rows = store.read_history(writer.folder)
    assert rows == [
        {"step": 1, "train/batch_loss": 2.5},
        {"step": 2, "train/batch_loss": None},
    ]
    with (writer.folder / store.HISTORY).open("a") as file:
        file.write('{"step": 3, "tra')
    assert store.read_history(writer.folder) == rows
    assert store.read(writer.folder) is None


def test_a_run_is_run_again_if_it_failed_or_lacks_weights(tmp_path: Path) -> None:
    for status in ("ok", "diverged", "failed", "skipped"):
        finished = a_record(status=status)
        folder = written(tmp_path, finished)
        again = not store.satisfies(folder, store.read(folder), finished.config)
        assert again == (status == "failed"), status
    finished = a_record()
    folder = written(tmp_path, finished)
    asked = compose(["keep_weights=true"])
    assert run_id(asked) == finished.run_id
    assert not store.satisfies(folder, finished, asked)
    (folder / store.WEIGHTS).touch()
    assert store.satisfies(folder, finished, asked)


def test_find_takes_unique_beginnings(tmp_path: Path) -> None:
    first, second = a_record("seed=1"), a_record("seed=2")
    for finished in (first, second):
        written(tmp_path, finished)
    assert store.find_folder(tmp_path, first.run_id[:6]).name == first.run_id
    with pytest.raises(RequestError, match="2 run ids start with"):
        store.find_folder(tmp_path, "")
    with pytest.raises(RequestError, match="no run"):
        store.find_folder(tmp_path, "zzzz")


def test_a_record_in_the_folder_of_another_run_does_not_count(tmp_path: Path) -> None:
    finished, other = a_record("seed=1"), a_record("seed=2")
    folder = written(tmp_path, finished)
    (folder / store.RESULT).write_text(other.model_dump_json())
    assert store.read(folder) is None


def test_a_record_of_another_format_is_refused_not_overwritten(tmp_path: Path) -> None:
    finished = a_record()
    folder = written(tmp_path, finished)
    newer = finished.model_dump(mode="json") | {"format": 2}
    (folder / store.RESULT).write_text(json.dumps(newer))
    with pytest.raises(RequestError, match="format"):
        store.read(folder)


def test_a_damaged_record_is_named_and_an_unfinished_run_is_not(
    tmp_path: Path,
) -> None:
    whole, torn, unfinished = (a_record(f"seed={seed}") for seed in range(3))
    for finished in (whole, torn, unfinished):
        written(tmp_path, finished)
    path = store.run_folder(tmp_path, torn.run_id) / store.RESULT
    path.write_bytes(b'{"run_id": "\xff')
    (store.run_folder(tmp_path, unfinished.run_id) / store.RESULT).unlink()
    records, (unreadable,) = store.all_records(tmp_path)
    assert (records, unreadable.path) == ([whole], path)
    assert gc.isenabled()


def test_a_disk_that_does_not_answer_is_not_a_run_without_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = a_record()
    folder = written(tmp_path, finished)
    plain = os.open

    def broken(path: Path, *arguments: Any, **options: Any) -> int:
        if Path(path).name == store.RESULT:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return plain(path, *arguments, **options)

    monkeypatch.setattr(os, "open", broken)
    with pytest.raises(Unreadable, match=r"result\.json cannot be read: Input/output"):
        store.read(folder)
    plan = Plan({finished.run_id: finished.config}, {}, compose_engine([]))
    assert plan_state(plan, Results(tmp_path)).missing.keys() == {finished.run_id}


def test_a_damaged_record_is_reported_as_damaged(tmp_path: Path) -> None:
    folder = written(tmp_path, a_record())
    (folder / store.RESULT).write_text("{")
    with pytest.raises(RequestError, match=r"result\.json is damaged: Invalid JSON"):
        store.find_record(tmp_path, folder.name)
    (folder / store.RESULT).unlink()
    with pytest.raises(RequestError, match=r"has no result\.json: the run did not"):
        store.find_record(tmp_path, folder.name)


def test_a_long_error_is_recorded_by_its_end(tmp_path: Path) -> None:
    failed = a_record(status="failed", error="x" * 10_000_000 + "the last line")
    record = store.read(written(tmp_path, failed))
    assert record is not None
    assert str(record.error).endswith("the last line")
