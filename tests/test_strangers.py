"""Records, histories, manifests and verdicts from strangers, and damaged ones.

A command reads the valid files and names the others. It writes only into its own
folders, waits for nothing, and imports nothing that a file names.
"""

import gzip
import inspect
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from checks_made import ENGINE
from conftest import Command
from PIL import Image
from records_made import a_record, written

from normbench.claims.saved import SavedRuns
from normbench.config import identity
from normbench.config.schema import RunConfig, RunRecord
from normbench.data.base import REGISTRY as DATA
from normbench.errors import RequestError, Unreadable
from normbench.records import store
from normbench.records.sync import offline_runs
from normbench.sweeps.manifest import Announcement, Manifest, folders, read_manifest
from normbench.sweeps.plan import Plan
from normbench.system import untrusted
from normbench.training.stylization import load, styles

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
    """Return the record `plain` with the run id of its config."""
    config = RunConfig.model_validate_json(json.dumps(plain["config"]))
    return plain | {"run_id": identity.hashed(config)}


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Assert that nothing in `folder` changes inside the block."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    yield
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Make a folder of the user with the file names of a run's folder."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("thesis.txt", "config.yaml", "history.jsonl", "picture.png", ".lock"):
        (folder / name).write_text("years of work")
    return folder


def test_a_record_cannot_name_a_folder(mine: Path, tmp_path: Path) -> None:
    other = a_record("seed=7").run_id
    names = [str(mine), "../mine", "..", "", ".", RECORD.run_id.upper(), "0" * 15]
    names += [RECORD.run_id + "\n", f"{RECORD.run_id}/../../../mine", "0" * 17, other]
    for name in names:
        compact(tmp_path / "claim" / "records.jsonl.gz", PLAIN | {"run_id": name})
        with untouched(tmp_path), pytest.raises(RequestError, match="line 1: its run_"):
            SavedRuns(tmp_path / "claim")
    compact(tmp_path / "claim" / "records.jsonl.gz", PLAIN)
    plan = Plan({RECORD.run_id: RECORD.config}, {}, ENGINE)
    assert SavedRuns(tmp_path / "claim").run(plan, "") == {RECORD.run_id: RECORD}


def test_the_command_refuses_records_of_a_strangers_folder(
    mine: Path, invoke: Command, tmp_path: Path
) -> None:
    compact(
        tmp_path / "claims" / "layernorm-axes" / "records.jsonl.gz",
        PLAIN | {"run_id": str(mine)},
    )
    (tmp_path / "claims" / "layernorm-axes" / "verdict.json").touch()
    with untouched(mine):
        done = invoke(
            *("claim", "check", "layernorm-axes", "--from-records"),
            *("--claims", "claims", "--results", "results"),
        )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert (
        "records.jsonl.gz: records cannot be read: line 1: its run_id is not 16" in line
    )


def test_nothing_is_written_through_a_link(mine: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    folder = store.run_folder(results, RECORD.run_id)
    for link in (folder.parent, folder, folder / "history.jsonl", folder / ".lock"):
        shutil.rmtree(results, ignore_errors=True)
        link.parent.mkdir(parents=True)
        is_file = link.parent == folder
        link.symlink_to(mine / "thesis.txt" if is_file else mine)
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


def test_the_table_of_unhashed_options_agrees_with_the_classes() -> None:
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


def test_a_manifest_names_only_runs_of_its_configs(tmp_path: Path) -> None:
    config, run_id = RECORD.config, RECORD.run_id
    with Announcement(tmp_path) as announcement:
        options = {"title": "sweep", "workers": 1, "skipped": {}}
        for runs, todo in (
            ({"../../x": config}, []),
            ({"0" * 16: config}, []),
            ({run_id: config}, ["/etc"]),
        ):
            announcement.publish(Manifest(runs=runs, todo=todo, **options))
            (folder,) = folders(tmp_path)
            with pytest.raises(RequestError, match="is not a valid manifest"):
                read_manifest(folder)
        announcement.publish(Manifest(runs={run_id: config}, todo=[run_id], **options))
        assert read_manifest(folder).todo == [run_id]


def test_a_new_sweep_removes_only_files_of_other_sweeps(tmp_path: Path) -> None:
    manifest = Manifest(
        title="sweep",
        workers=1,
        runs={RECORD.run_id: RECORD.config},
        skipped={},
        todo=[],
    )
    with Announcement(tmp_path) as first:
        first.publish(manifest)
    (folder,) = folders(tmp_path)
    (folder / "notes.txt").touch()
    with Announcement(tmp_path) as second:
        second.publish(manifest)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_record_names_no_module_that_is_imported(
    invoke: Command, tmp_path: Path
) -> None:
    (tmp_path / "evil.py").write_text("open('was_here', 'w').close()")
    environment = PLAIN["environment"] | {"modules": {"evil": "0" * 16}}
    plain = PLAIN | {"environment": environment}
    folder = written(tmp_path / "results" / "runs", RECORD)
    (folder / "result.json").write_text(json.dumps(plain))
    for arguments in (["rerun", RECORD.run_id], ["stylize", RECORD.run_id, "x.png"]):
        done = invoke(*arguments)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert "--module 'evil'" in line
        assert not (tmp_path / "was_here").exists()


def a_style_record(**task: Any) -> RunRecord:
    plain = a_record("task=style", "tracker=none").model_dump(mode="json")
    plain["config"]["task"] |= task
    return RunRecord.model_validate_json(json.dumps(with_id(plain)))


def test_a_style_network_that_cannot_be_built_is_refused(tmp_path: Path) -> None:
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
        with pytest.raises(RequestError) as refused:
            load(a_style_record(**task), tmp_path)
        assert len(str(refused.value).splitlines()) == 1, task
    plain = a_style_record().model_dump(mode="json")
    for styled in (3, "x", {"a": 1}, [], None):
        plain["config"]["data"]["styles"] = styled
        assert styles(RunRecord.model_validate_json(json.dumps(plain))) == 1
