"""Records on disk: what is written is read back, and nothing half-written counts."""

import errno
import gc
import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records_made import A_RECORD, a_record, written

from normbench.config.composition import compose, compose_engine
from normbench.config.identity import run_id
from normbench.config.schema import RunRecord
from normbench.errors import Busy, NormbenchError, RequestError, Unreadable
from normbench.records import store
from normbench.records.store import Results
from normbench.sweeps.plan import Plan, plan_state
from normbench.system.atomic import write_atomically


def test_restored_records_are_finished_runs_and_replace_none(tmp_path: Path) -> None:
    here, gone = a_record("seed=1"), a_record("seed=2", metrics={"test/error": None})
    folder = written(tmp_path, here)
    store.restore(tmp_path, [here.model_copy(update={"steps": 11}), gone])
    assert store.read(folder) == here
    assert store.read(store.run_folder(tmp_path, gone.run_id)) == gone
    assert store.state(tmp_path, gone.run_id) == "ok"
    written(tmp_path, here.model_copy(update={"status": "failed"}))
    store.restore(tmp_path, [here])
    assert store.read(folder) == here


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


def test_history_is_there_while_the_run_goes_on(tmp_path: Path) -> None:
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


def test_a_second_try_starts_from_an_empty_folder(tmp_path: Path) -> None:
    config = compose([])
    with store.RunWriter(tmp_path, run_id(config)) as first:
        first.begin(config)
        first.log({"step": 1})
        (first.folder / "left-over.png").touch()
    second = store.RunWriter(tmp_path, run_id(config))
    second.begin(config)
    assert store.read_history(second.folder) == []
    assert not (second.folder / "left-over.png").exists()


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
    assert store.find(tmp_path, first.run_id[:6]).name == first.run_id
    with pytest.raises(RequestError, match="begins 2 run ids"):
        store.find(tmp_path, "")
    with pytest.raises(RequestError, match="no run"):
        store.find(tmp_path, "zzzz")


def test_a_folder_belongs_to_one_writer_at_a_time(tmp_path: Path) -> None:
    config = compose([])
    folder = store.run_folder(tmp_path, run_id(config))
    assert not store.is_running(folder)
    with store.RunWriter(tmp_path, run_id(config)) as writer:
        assert store.is_running(folder)
        writer.begin(config)
        writer.log({"step": 1})
        with pytest.raises(Busy, match="another process"):
            store.RunWriter(tmp_path, run_id(config))
        assert store.read_history(folder) == [{"step": 1}]
    assert not store.is_running(folder)
    with store.RunWriter(tmp_path, run_id(config)):
        pass


def test_a_result_stands_until_the_next_try_has_its_own(tmp_path: Path) -> None:
    finished = a_record()
    folder = written(tmp_path, finished)
    with store.RunWriter(tmp_path, finished.run_id) as writer:
        writer.begin(finished.config)
        assert store.read(folder) == finished
        better = finished.model_copy(update={"steps": 11})
        writer.finish(better)
    assert store.read(folder) == better


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


def test_a_record_that_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = a_record()

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with store.RunWriter(tmp_path, finished.run_id) as writer:
        writer.begin(finished.config)
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(NormbenchError, match="No space left"):
            writer.finish(finished)
    # Whether the file of a lock stays depends on the version of filelock.
    names = {f.name for f in writer.folder.iterdir()} - {".lock"}
    assert names == {"config.yaml", "history.jsonl"}


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


def test_files_of_others_stay_in_the_folder_of_a_run(tmp_path: Path) -> None:
    config = compose([])
    folder = store.run_folder(tmp_path, run_id(config))
    (folder / "notes").mkdir(parents=True)
    (folder / "drawn").mkdir()
    others = [folder / "notes" / "a.txt", folder / ".DS_Store", folder / "todo.txt"]
    ours = [folder / ".config.yaml.4711", folder / "weights.safetensors"]
    ours += [folder / "stylised.png", folder / "checkpoint.pt"]
    for path in (*others, *ours):
        path.write_text("kept")
    with store.RunWriter(tmp_path, run_id(config)) as writer:
        writer.begin(config)
        writer.finish(a_record())
    assert all(path.read_text() == "kept" for path in others)
    assert not any(path.exists() for path in ours)


def test_what_is_in_the_way_of_a_run_is_named(tmp_path: Path) -> None:
    config = compose([])
    folder = store.run_folder(tmp_path, run_id(config))
    folder.mkdir(parents=True)
    names = (".lock", "config.yaml", "history.jsonl", "result.json", "stylised.png")
    for name in names:
        (folder / name).mkdir()
        with pytest.raises(RequestError) as told:
            store.RunWriter(tmp_path, run_id(config))
        assert f"{folder / name} is a folder" in str(told.value)
        assert "move the folder away" in str(told.value)
        (folder / name).rmdir()
    for name in (".lock", "history.jsonl"):
        for make in (os.mkfifo, lambda path: path.symlink_to("nothing")):
            make(folder / name)
            with pytest.raises(RequestError, match=r"move (it|the link) away") as told:
                store.RunWriter(tmp_path, run_id(config))
            assert str(folder / name) in str(told.value)
            (folder / name).unlink()
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="--results"):
        store.RunWriter(tmp_path / "file", run_id(config))
    folder.rmdir()
    folder.touch()
    with pytest.raises(RequestError, match=f"{folder} is no folder; move it away"):
        store.RunWriter(tmp_path, run_id(config))


def test_no_file_takes_the_place_of_what_is_no_regular_file(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(OSError, match="not a regular file"):
            write_atomically(path, "text")
        assert path.is_fifo(), path
    assert sorted(tmp_path.iterdir()) == [link, pipe]


def test_a_full_disk_is_told_with_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose([])

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with store.RunWriter(tmp_path, run_id(config)) as writer:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(RequestError) as told:
            writer.begin(config)
    assert f"No space left on device ({writer.folder})" in str(told.value)


def test_a_damaged_record_is_told_as_damaged(tmp_path: Path) -> None:
    folder = written(tmp_path, a_record())
    (folder / store.RESULT).write_text("{")
    with pytest.raises(RequestError, match=r"result\.json is damaged: Invalid JSON"):
        store.finished(tmp_path, folder.name)
    (folder / store.RESULT).unlink()
    with pytest.raises(RequestError, match=r"has no result\.json: the run did not"):
        store.finished(tmp_path, folder.name)


def test_a_long_error_is_recorded_by_its_end(tmp_path: Path) -> None:
    failed = a_record(status="failed", error="x" * 10_000_000 + "the last line")
    found = store.read(written(tmp_path, failed))
    assert found is not None
    assert str(found.error).endswith("the last line")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_sees_that_a_run_is_being_done() -> None:
    config = compose([])
    with tempfile.TemporaryDirectory(prefix="normbench-") as name:
        Path(name).chmod(0o755)
        results = Path(name, "runs")
        folder = store.run_folder(results, run_id(config))
        before = os.umask(0o022)
        try:
            with store.RunWriter(results, run_id(config)) as writer:
                writer.begin(config)
                with nobody():
                    assert store.is_running(folder)
                    assert store.state(results, run_id(config)) == "running"
                    with pytest.raises(Busy, match="being done by another process"):
                        store.RunWriter(results, run_id(config))
            with nobody():
                assert store.state(results, run_id(config)) == "interrupted"
                with pytest.raises(RequestError) as told:
                    store.RunWriter(results, run_id(config))
                assert f"this user may not write to {folder};" in str(told.value)
                other = compose(["seed=1"])
                with pytest.raises(RequestError) as told:
                    store.RunWriter(results, run_id(other))
                assert f"may not write to {results};" in str(told.value)
            folder.chmod(0o000)
            with nobody():
                assert not store.is_running(folder)
                with pytest.raises(Unreadable, match="Permission denied"):
                    store.state(results, run_id(config))
                with pytest.raises(RequestError, match="this user may not write to"):
                    store.RunWriter(results, run_id(config))
        finally:
            os.umask(before)


@contextmanager
def nobody() -> Iterator[None]:
    """As another user, for whom permissions bind."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
