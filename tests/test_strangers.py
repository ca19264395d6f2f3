"""Records, histories, manifests and verdicts that somebody else made, or that rotted.

Whatever they hold, a command reads what is whole, names what is not, writes nowhere
else, waits for nothing, and imports nothing that they name.
"""

import gzip
import inspect
import json
import os
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from PIL import Image
from records_made import a_record, written

from normbench.claims.check import restore_records
from normbench.cli.plot import _of_histories
from normbench.config import identity
from normbench.config.schema import RunConfig, RunRecord
from normbench.data.base import REGISTRY as DATA
from normbench.errors import Damaged, NormbenchError, RequestError, Unreadable
from normbench.records import store
from normbench.records.sync import offline_runs
from normbench.report.page.material import gather
from normbench.sweeps.manifest import Announcement, Manifest, folders, read_manifest
from normbench.system import untrusted
from normbench.training.stylization import load, styles
from normbench.verdicts.files import read_verdict

CLAIMS = Path(__file__).parents[1] / "results" / "claims"
RECORD = a_record("tracker=none")
PLAIN = RECORD.model_dump(mode="json")


def compact(path: Path, *records: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        gzip.compress("".join(json.dumps(r) + "\n" for r in records).encode())
    )
    return path


def with_id(plain: dict[str, Any]) -> dict[str, Any]:
    """`plain`, a record, with the id of its config."""
    config = RunConfig.model_validate_json(json.dumps(plain["config"]))
    return plain | {"run_id": identity.hashed(config)}


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Nothing in `folder` changes."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    yield
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of the user's, with files whose names a run's folder has, too."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("thesis.txt", "config.yaml", "history.jsonl", "picture.png", ".lock"):
        (folder / name).write_text("years of work")
    return folder


def test_a_record_cannot_name_a_folder(mine: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    (results / "00").mkdir(parents=True)
    other = a_record("seed=7").run_id
    names = [str(mine), "../mine", "..", "", ".", RECORD.run_id.upper(), "0" * 15]
    names += [RECORD.run_id + "\n", f"{RECORD.run_id}/../../../mine", "0" * 17, other]
    for name in names:
        compact(tmp_path / "claim" / "records.jsonl.gz", PLAIN | {"run_id": name})
        with untouched(tmp_path), pytest.raises(RequestError, match="line 1: its run_"):
            restore_records(tmp_path / "claim", results)
    restored = compact(tmp_path / "claim" / "records.jsonl.gz", PLAIN)
    restore_records(restored.parent, results)
    assert store.read(store.run_folder(results, RECORD.run_id)) == RECORD


def test_the_command_refuses_records_of_a_strangers_folder(
    mine: Path, command: Command, tmp_path: Path
) -> None:
    compact(
        tmp_path / "claims" / "layernorm-axes" / "records.jsonl.gz",
        PLAIN | {"run_id": str(mine)},
    )
    with untouched(mine):
        told = command(
            *("claim", "check", "layernorm-axes", "--from-records", "--budget=smoke"),
            *("--output", "claims", "--results", "results"),
        )
    assert told.returncode == 2
    (line,) = told.stderr.splitlines()
    assert "records.jsonl.gz holds no records: line 1: its run_id is not 16" in line


def test_nothing_is_written_through_a_link(mine: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    folder = store.run_folder(results, RECORD.run_id)
    for link in (folder.parent, folder, folder / "history.jsonl", folder / ".lock"):
        shutil.rmtree(results, ignore_errors=True)
        link.parent.mkdir(parents=True)
        is_file = link.parent == folder
        link.symlink_to(mine / "thesis.txt" if is_file else mine)
        with untouched(mine), pytest.raises(NormbenchError, match=r"link|symbolic"):
            store.restore(results, [RECORD])
        with untouched(mine), pytest.raises(RequestError, match=r"link|symbolic"):
            store.RunWriter(results, RECORD.run_id).begin(RECORD.config)
    shutil.rmtree(results)
    folder.mkdir(parents=True)
    for name in ("config.yaml", "result.json", "stylised.png", "checkpoint.pt"):
        (folder / name).symlink_to(mine / "thesis.txt")
    with untouched(mine), store.RunWriter(results, RECORD.run_id) as writer:
        writer.begin(RECORD.config)
        writer.finish(RECORD)
    assert store.read(folder) == RECORD


def test_nothing_is_read_through_a_link(tmp_path: Path) -> None:
    results = tmp_path / "results"
    folder = written(results, RECORD)
    elsewhere = tmp_path / "elsewhere"
    Image.new("RGB", (8, 8)).save(tmp_path / "private.png")
    (folder / "stylised.png").symlink_to(tmp_path / "private.png")
    with pytest.raises(Unreadable, match="it is a link"):
        untrusted.picture(folder / "stylised.png")
    for path in (folder / "result.json", folder, folder.parent):
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
        records, (unreadable, *_) = store.all_records(results)
        assert records == []
        assert "is a link" in str(unreadable)
        path.unlink()
        elsewhere.rename(path)
    # What holds all runs may be one: a results folder is often on another disk.
    (tmp_path / "linked").symlink_to(results)
    assert store.all_records(tmp_path / "linked") == ([RECORD], [])


def test_a_link_among_wandb_folders_is_not_uploaded(tmp_path: Path) -> None:
    written(tmp_path, RECORD)
    name = f"offline-run-20260101_000000-{RECORD.run_id}"
    elsewhere, wandb = tmp_path / "elsewhere", tmp_path / "wandb"
    log = f"run-{RECORD.run_id}.wandb"
    elsewhere.mkdir()
    wandb.mkdir()
    (elsewhere / log).touch()
    (wandb / name).symlink_to(elsewhere)
    assert offline_runs(tmp_path).waiting == []
    (wandb / name).unlink()
    (wandb / name).mkdir()
    (wandb / name / log).symlink_to(elsewhere / log)
    assert offline_runs(tmp_path).waiting == []
    (wandb / name / log).unlink()
    (wandb / name / log).touch()
    assert offline_runs(tmp_path).waiting == [wandb / name]


def test_every_committed_record_has_the_id_of_its_config() -> None:
    for path in sorted(CLAIMS.glob("*/records.jsonl.gz")):
        assert store.read_compact(path), path


def test_what_an_id_leaves_out_is_what_the_class_says() -> None:
    for name in DATA.names():
        data = DATA.get(name)
        if "fingerprint" in inspect.signature(data.__init__).parameters:
            assert identity.LEFT_OUT[name] == data.path_options | data.not_hashed, name
        else:
            assert name not in identity.LEFT_OUT


def test_a_record_of_a_users_own_data_is_read(tmp_path: Path) -> None:
    own = {"name": "of_my_own", "path": "/x", "fingerprint": "0" * 32}
    plain = PLAIN | {"config": PLAIN["config"] | {"data": own}}
    compact(tmp_path / "records.jsonl.gz", plain)
    assert len(store.read_compact(tmp_path / "records.jsonl.gz")) == 1


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
    "too large": b" " * (untrusted.RECORD + 1),
}


@pytest.mark.parametrize("kind", WRONG_RECORDS)
def test_a_wrong_record_is_named_and_left_out(kind: str, tmp_path: Path) -> None:
    whole = a_record("seed=1")
    written(tmp_path, whole)
    path = store.run_folder(tmp_path, RECORD.run_id) / store.RESULT
    path.parent.mkdir(parents=True)
    path.write_bytes(WRONG_RECORDS[kind])
    records, (unreadable,) = store.all_records(tmp_path)
    assert records == [whole]
    assert str(path) in str(unreadable)
    assert len(str(unreadable).splitlines()) == 1
    counts, (unreadable,) = store.states(tmp_path, store.run_ids(tmp_path))
    assert dict(counts) == {"ok": 1}
    assert unreadable.path == path
    assert gather(tmp_path, tmp_path / "claims").damaged[0].path == path


ODD: list[Callable[[Path], object]] = [os.mkfifo, Path.mkdir]


def test_what_is_no_file_is_named_and_blocks_nobody(tmp_path: Path) -> None:
    readers: dict[str, Callable[[Path], object]] = {
        "result.json": lambda path: store.look(path.parent),
        "history.jsonl": lambda path: store.read_history(path.parent),
        "stylised.png": untrusted.picture,
        "checkpoint.pt": untrusted.require_file,
        "verdict.json": read_verdict,
        "records.jsonl.gz": store.read_compact,
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


@pytest.mark.slow
def test_commands_go_on_beside_what_is_wrong(command: Command, tmp_path: Path) -> None:
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
        told = command(*arguments)
        assert told.returncode == 0, told.stderr
        assert f"left out: {wrong.relative_to(tmp_path)} cannot be" in told.stderr
        if arguments[0] in {"plot", "report"}:
            line = f"left out: {history.relative_to(tmp_path)} is damaged: line 2"
            assert line in told.stderr
    for arguments in (
        ["show", RECORD.run_id],
        ["rerun", RECORD.run_id],
        ["stylize", RECORD.run_id, "x.png"],
    ):
        told = command(*arguments)
        assert told.returncode == 1, told.stderr
        (line,) = told.stderr.splitlines()
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


def test_a_wrong_history_is_named_and_counts_for_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = a_record("seed=1")
    folders = [written(tmp_path, each) for each in (RECORD, whole)]
    for folder in folders:
        (folder / "history.jsonl").write_bytes(GOOD_ROW * 3)
    for kind, row in WRONG_ROWS.items():
        (folders[0] / "history.jsonl").write_bytes(GOOD_ROW + row + GOOD_ROW)
        with pytest.raises(Damaged, match=r"history\.jsonl is damaged: line 2"):
            store.read_history(folders[0])
        drawn = _of_histories([RECORD, whole], ["norm"], "lr", tmp_path)
        assert len(drawn) == 1, kind
        assert "line 2" in capsys.readouterr().err, kind
    (folders[0] / "history.jsonl").write_bytes(GOOD_ROW + GOOD_ROW[:-9])
    assert len(store.read_history(folders[0])) == 1  # a process was killed there


def test_a_folder_that_may_not_be_looked_into_is_named(
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


def test_lines_without_end_are_refused_at_the_first_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, history = tmp_path / "records.jsonl.gz", tmp_path / "history.jsonl"
    records.write_bytes(gzip.compress(b"\n" * 2**24))
    history.write_bytes(b"\n" * 2**24)
    monkeypatch.setattr(untrusted, "UNPACKED", 2**24)
    monkeypatch.setattr(untrusted, "HISTORY", 2**24)
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
    monkeypatch.setattr(untrusted, "MOST_RECORDS", 1)
    with pytest.raises(RequestError, match="has more than 1 records"):
        store.read_compact(records)


def test_a_gzip_bomb_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untrusted, "UNPACKED", 2**20)
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


def test_a_manifest_names_only_runs_of_its_configs(tmp_path: Path) -> None:
    config, run_id = RECORD.config, RECORD.run_id
    with Announcement(tmp_path) as announcement:
        said = {"title": "sweep", "workers": 1, "skipped": {}}
        for runs, todo in (
            ({"../../x": config}, []),
            ({"0" * 16: config}, []),
            ({run_id: config}, ["/etc"]),
        ):
            announcement.say(Manifest(runs=runs, todo=todo, **said))
            (folder,) = folders(tmp_path)
            with pytest.raises(RequestError, match="is no manifest"):
                read_manifest(folder)
        announcement.say(Manifest(runs={run_id: config}, todo=[run_id], **said))
        assert read_manifest(folder).todo == [run_id]


def test_a_sweep_that_begins_removes_only_what_sweeps_left(tmp_path: Path) -> None:
    said = Manifest(
        title="sweep",
        workers=1,
        runs={RECORD.run_id: RECORD.config},
        skipped={},
        todo=[],
    )
    with Announcement(tmp_path) as first:
        first.say(said)
    (folder,) = folders(tmp_path)
    (folder / "notes.txt").touch()
    with Announcement(tmp_path) as second:
        second.say(said)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_a_record_names_no_module_that_is_imported(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "evil.py").write_text("open('was_here', 'w').close()")
    environment = PLAIN["environment"] | {"modules": {"evil": "0" * 16}}
    plain = PLAIN | {"environment": environment}
    folder = written(tmp_path / "results" / "runs", RECORD)
    (folder / "result.json").write_text(json.dumps(plain))
    for arguments in (["rerun"], ["stylize"]):
        rest = ["x.png"] if arguments == ["stylize"] else []
        told = command(*arguments, RECORD.run_id, *rest)
        assert told.returncode == 2
        (line,) = told.stderr.splitlines()
        assert "--module 'evil'" in line
        assert not (tmp_path / "was_here").exists()


def a_style_record(**task: Any) -> RunRecord:
    plain = a_record("task=style", "tracker=none").model_dump(mode="json")
    plain["config"]["task"] |= task
    return RunRecord.model_validate_json(json.dumps(with_id(plain)))


def test_a_style_network_that_does_not_build_is_one_line(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"conv1.weight": torch.zeros(16, 3)}, tmp_path / "weights.safetensors")
    for task in (
        {"width": "wide"},
        {"width": 2**40},
        {"width": 0},
        {"blocks": 2**40},
        {"blocks": None},
        {"width": True},
        {"width": 8, "blocks": 1},
    ):
        with pytest.raises(RequestError) as told:
            load(a_style_record(**task), tmp_path)
        assert len(str(told.value).splitlines()) == 1, task
    plain = a_style_record().model_dump(mode="json")
    for styled in (3, "x", {"a": 1}, [], None):
        plain["config"]["data"]["styles"] = styled
        assert styles(RunRecord.model_validate_json(json.dumps(plain))) == 1
