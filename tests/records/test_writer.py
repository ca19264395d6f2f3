"""The folder of a run as `RunWriter` writes it: its lock, and files in the way."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from records_made import a_record, written

from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.errors import Busy, NormbenchError, RequestError, Unreadable
from normbench.records import store
from normbench.system.atomic import write_atomically


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


def test_a_folder_link_or_pipe_in_the_way_of_a_run_is_named(tmp_path: Path) -> None:
    config = compose([])
    folder = store.run_folder(tmp_path, run_id(config))
    folder.mkdir(parents=True)
    names = (".lock", "config.yaml", "history.jsonl", "result.json", "stylised.png")
    for name in names:
        (folder / name).mkdir()
        with pytest.raises(RequestError) as error:
            store.RunWriter(tmp_path, run_id(config))
        assert f"{folder / name} is a folder" in str(error.value)
        assert "move the folder away" in str(error.value)
        (folder / name).rmdir()
    for name in (".lock", "history.jsonl"):
        for make in (os.mkfifo, lambda path: path.symlink_to("nothing")):
            make(folder / name)
            with pytest.raises(RequestError, match=r"move (it|the link) away") as error:
                store.RunWriter(tmp_path, run_id(config))
            assert str(folder / name) in str(error.value)
            (folder / name).unlink()
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="--results"):
        store.RunWriter(tmp_path / "file", run_id(config))
    folder.rmdir()
    folder.touch()
    with pytest.raises(RequestError, match=f"{folder} is not a folder; move it away"):
        store.RunWriter(tmp_path, run_id(config))


def test_a_write_does_not_replace_a_pipe_or_link(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(OSError, match="not a regular file"):
            write_atomically(path, "text")
        assert path.is_fifo(), path
    assert sorted(tmp_path.iterdir()) == [link, pipe]


def test_the_error_of_a_full_disk_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose([])

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with store.RunWriter(tmp_path, run_id(config)) as writer:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(RequestError) as error:
            writer.begin(config)
    assert f"No space left on device ({writer.folder})" in str(error.value)


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
                    with pytest.raises(Busy, match="another process is training"):
                        store.RunWriter(results, run_id(config))
            with nobody():
                assert store.state(results, run_id(config)) == "interrupted"
                with pytest.raises(RequestError) as error:
                    store.RunWriter(results, run_id(config))
                assert f"this user may not write to {folder};" in str(error.value)
                other = compose(["seed=1"])
                with pytest.raises(RequestError) as error:
                    store.RunWriter(results, run_id(other))
                assert f"may not write to {results};" in str(error.value)
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
    """Act as another user than root, to whom file permissions apply."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
