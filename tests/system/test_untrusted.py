"""Damaged files, pipes and links are named and left out, and do not block a reader."""

import gzip
import json
import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from records_made import a_record, written

from normbench.cli.plot import _curves
from normbench.errors import Damaged, NormbenchError, RequestError
from normbench.records import items, store
from normbench.report.page.material import gather
from normbench.sweeps.manifest import read_manifest
from normbench.system import untrusted
from normbench.verdicts.files import read_verdict

RECORD = a_record("tracker=none")
PLAIN = RECORD.model_dump(mode="json")


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


def in_the_config(**changes: Any) -> bytes:
    return json.dumps(PLAIN | {"config": PLAIN["config"] | changes}).encode()


WRONG_RECORDS: dict[str, bytes] = {
    "empty": b"",
    "no object": b"[1]",
    "a bad byte": json.dumps(PLAIN).encode().replace(b"mnist5k", b"mnist\xff"),
    "levels": b'{"config": ' + deep(100_000).encode() + b"}",
    "levels of an option": in_the_config(norm={"name": "x"})
    .decode()
    .replace('"x"', f'"x", "a": {deep(100_000)}')
    .encode(),
    "no data": in_the_config(data={}),
    "a norm that is a list": in_the_config(norm={"name": ["batch"]}),
    "a task that is a number": in_the_config(task=3),
    "a long number": in_the_config(batch_size=10**400),
    "a long number of an option": in_the_config(task={"name": "cnn", "width": 10**30}),
    "another id": json.dumps(PLAIN | {"run_id": "0" * 16}).encode(),
    "another config": in_the_config(seed=8),
    "NaN": json.dumps(PLAIN | {"metrics": {"test/error": float("nan")}}).encode(),
    "another format": json.dumps(PLAIN | {"format": 2}).encode(),
    "too large": b" " * (untrusted.MAX_RECORD_BYTES + 1),
}


@pytest.mark.usefixtures("no_package_verdicts")
def test_a_wrong_record_is_named_and_left_out(tmp_path: Path) -> None:
    whole = a_record("seed=1")
    written(tmp_path, whole)
    path = store.run_folder(tmp_path, RECORD.run_id) / store.RESULT
    path.parent.mkdir(parents=True)
    for kind, content in WRONG_RECORDS.items():
        path.write_bytes(content)
        records, (unreadable,) = store.all_records(tmp_path)
        assert records == [whole], kind
        assert str(path) in str(unreadable), kind
        assert len(str(unreadable).splitlines()) == 1, kind
        counts, (unreadable,) = store.states(tmp_path, store.run_ids(tmp_path))
        assert dict(counts) == {"ok": 1}, kind
        assert unreadable.path == path, kind
        assert gather(tmp_path, tmp_path / "claims").damaged[0].path == path, kind


ODD: list[Callable[[Path], object]] = [os.mkfifo, Path.mkdir]


def test_a_pipe_or_link_is_named_and_does_not_block(tmp_path: Path) -> None:
    readers: dict[str, Callable[[Path], object]] = {
        "result.json": lambda path: store.read_valid(path.parent),
        "history.jsonl": lambda path: store.read_history(path.parent),
        "stylised.png": untrusted.picture,
        "checkpoint.pt": untrusted.require_file,
        "verdict.json": read_verdict,
        "records.jsonl.gz": store.read_compact,
        "items.safetensors.gz": items.read_all,
        "manifest.json.gz": lambda path: read_manifest(path.parent),
        "norm.yaml": untrusted.yaml_value,
    }
    for name, read in readers.items():
        for make in ODD:
            path = tmp_path / name
            make(path)
            with pytest.raises(NormbenchError, match=r"is a named pipe|is a folder"):
                read(path)
            path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.usefixtures("no_package_verdicts")
def test_commands_leave_wrong_files_out(invoke: Command, tmp_path: Path) -> None:
    results = tmp_path / "results" / "runs"
    whole = a_record("seed=1", "tracker=none")
    folder = written(results, whole)
    (folder / "history.jsonl").write_text(
        '{"step": 1, "lr": 0.1}\n{"step": 2, "lr": 0.2}\n'
    )
    wrong = store.run_folder(results, RECORD.run_id) / store.RESULT
    wrong.parent.mkdir(parents=True)
    os.mkfifo(wrong)
    other = a_record("seed=2", "tracker=none")
    history = written(results, other) / "history.jsonl"
    history.write_bytes(b'{"step": 1}\n\xff\n{"step": 2}\n')
    for arguments in (
        ["results", "--by", "norm"],
        ["status"],
        ["plot", "--curves", "--metric", "lr"],
        ["report"],
    ):
        done = invoke(*arguments)
        assert done.returncode == 0, done.stderr
        assert f"left out: {wrong.relative_to(tmp_path)} cannot be" in done.stderr
        if arguments[0] in {"plot", "report"}:
            line = f"left out: {history.relative_to(tmp_path)} is damaged: line 2"
            assert line in done.stderr
    for arguments in (
        ["show", RECORD.run_id],
        ["rerun", RECORD.run_id],
        ["stylize", RECORD.run_id, "x.png"],
    ):
        done = invoke(*arguments)
        assert done.returncode == 1, done.stderr
        (line,) = done.stderr.splitlines()
        assert "result.json cannot be read: it is a named pipe; move it away" in line


GOOD_ROW = b'{"step": 1, "samples": 4, "epoch": 0.5, "val/loss": null, "lr": 0.1}\n'
WRONG_ROWS: dict[str, bytes] = {
    "a bad byte": b'{"step": 1, "lr\xff": 1}\n',
    "no object": b"[1, 2]\n",
    "a number": b"3\n",
    "nothing": b"\n",
    "half": b'{"step": 1, "l\n',
    "no step": b'{"lr": 0.1}\n',
    "a step that is a text": b'{"step": "1"}\n',
    "a step that is a truth": b'{"step": true}\n',
    "a step before the first": b'{"step": -1}\n',
    "NaN": b'{"step": 1, "lr": NaN}\n',
    "infinity": b'{"step": 1, "lr": 1e999}\n',
    "a square that is none": b'{"step": 1, "lr": 1e200}\n',
    "a dict": b'{"step": 1, "lr": {"a": 1}}\n',
    "a list": b'{"step": 1, "lr": [1]}\n',
    "a text": b'{"step": 1, "lr": "0.1"}\n',
    "a truth": b'{"step": 1, "lr": false}\n',
    "a long number": b'{"step": 1, "lr": ' + b"9" * 400 + b"}\n",
    "a longer number": b'{"step": 1, "lr": ' + b"9" * 5000 + b"}\n",
    "levels": b'{"step": 1, "lr": ' + deep(100_000).encode() + b"}\n",
}


def test_a_wrong_history_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = a_record("seed=1")
    folders = [written(tmp_path, record) for record in (RECORD, whole)]
    for folder in folders:
        (folder / "history.jsonl").write_bytes(GOOD_ROW * 3)
    for kind, row in WRONG_ROWS.items():
        (folders[0] / "history.jsonl").write_bytes(GOOD_ROW + row + GOOD_ROW)
        with pytest.raises(Damaged, match=r"history\.jsonl is damaged: line 2"):
            store.read_history(folders[0])
        drawn = _curves([RECORD, whole], ["norm"], "lr", tmp_path)
        assert len(drawn) == 1, kind
        assert "line 2" in capsys.readouterr().err, kind
    (folders[0] / "history.jsonl").write_bytes(GOOD_ROW + GOOD_ROW[:-9])
    assert len(store.read_history(folders[0])) == 1  # a process was killed there


def test_a_folder_without_permission_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = a_record("seed=1")
    written(tmp_path, whole)
    closed = written(tmp_path, RECORD)
    plain_open, plain_list = os.open, Path.iterdir

    def opened(path: Path, *arguments: Any, **options: Any) -> int:
        if Path(path).parent == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return plain_open(path, *arguments, **options)

    monkeypatch.setattr(os, "open", opened)
    records, (unreadable,) = store.all_records(tmp_path)
    assert records == [whole]
    assert str(unreadable).startswith(f"{closed / 'result.json'} cannot be read: Perm")
    counts, (unreadable,) = store.states(tmp_path, store.run_ids(tmp_path))
    assert dict(counts) == {"ok": 1}
    monkeypatch.setattr(os, "open", plain_open)

    def listed(path: Path) -> Iterator[Path]:
        if path == closed.parent:
            raise PermissionError(13, "Permission denied", str(path))
        return plain_list(path)

    monkeypatch.setattr(Path, "iterdir", listed)
    records, (unreadable,) = store.all_records(tmp_path)
    assert records == [whole]
    assert unreadable.path == closed.parent


def test_a_file_of_many_wrong_lines_is_refused_at_the_first_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, history = tmp_path / "records.jsonl.gz", tmp_path / "history.jsonl"
    records.write_bytes(gzip.compress(b"\n" * 2**24))
    history.write_bytes(b"\n" * 2**24)
    monkeypatch.setattr(untrusted, "MAX_UNPACKED_BYTES", 2**24)
    monkeypatch.setattr(untrusted, "MAX_HISTORY_BYTES", 2**24)
    tracemalloc.start()
    try:
        with pytest.raises(RequestError, match="line 1: "):
            store.read_compact(records)
        with pytest.raises(Damaged, match="line 1 "):
            untrusted.history(history)
        assert tracemalloc.get_traced_memory()[1] < 2**27
    finally:
        tracemalloc.stop()
    store.write_compact(records, [RECORD, RECORD])
    assert len(store.read_compact(records)) == 2
    monkeypatch.setattr(untrusted, "MAX_RECORDS", 1)
    with pytest.raises(RequestError, match="has more than 1 records"):
        store.read_compact(records)


def test_a_gzip_bomb_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untrusted, "MAX_UNPACKED_BYTES", 2**20)
    folder = tmp_path / "sweeps" / "x"
    folder.mkdir(parents=True)
    path = folder / "manifest.json.gz"
    path.write_bytes(gzip.compress(b" " * 2**24))
    with pytest.raises(RequestError, match="unpacks to more than 1 MiB"):
        read_manifest(folder)
    with pytest.raises(RequestError, match="unpacks to more than 1 MiB"):
        store.read_compact(path)
    for content in (b"", b"x", path.read_bytes()[:-5]):
        path.write_bytes(content)
        with pytest.raises(RequestError, match=r"manifest\.json\.gz"):
            read_manifest(folder)
