"""Logging to W&B: it shows what the record says, and never changes or ends a run."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from conftest import SMALL, Command, Run

from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.config.wandb_variables import clean, find_folders
from normbench.errors import RequestError, Stopped
from normbench.records import store, tracking
from normbench.records.store import Results
from normbench.training import network
from normbench.training.experiment import run_one
from normbench.training.observer import Silent

WANDB = ["tracker=wandb", "tracker.mode=offline"]


def inspected(results: Path, *flags: str) -> Any:
    """Return what `wandb leet inspect` prints of the last run in `<results>/wandb`."""
    folder = sorted((results / "wandb").glob("offline-run-*"))[-1]
    leet = Path(sys.executable).with_name("wandb")
    arguments = [leet, "leet", "inspect", *flags, "--json", folder]
    printed = subprocess.run(arguments, capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    return printed.stdout


def test_an_offline_run_reads_back_what_the_record_says(
    run: Run, tmp_path: Path
) -> None:
    results = tmp_path / "runs"
    finished = run(*SMALL["style"], "budget.epochs=2", *WANDB, results=results)
    summary = json.loads(inspected(results, "--summary"))
    text = json.dumps(summary)
    assert finished.run_id in text
    for key, value in finished.metrics.items():
        assert find(summary, key) == pytest.approx(value), key
    records = [json.loads(line) for line in inspected(results).splitlines()]
    text = json.dumps(records)
    for word in ("norm:batch", "bs:4", "style-photographs", "train/batch_loss"):
        assert word in text
    folder = store.run_folder(results, finished.run_id)
    steps = {row["step"] for row in store.read_history(folder)}
    assert steps == {1, 2, 3, 4}  # ten crops in batches of four, twice
    assert list((results / "wandb").rglob("*.png"))


def test_a_run_taken_up_again_is_the_same_run_with_the_same_steps(
    run: Run, tmp_path: Path
) -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(len(asked))
        return len(asked) == 5

    overrides = [*SMALL["cnn"], "norm=batch", "evaluations=2", *WANDB, "budget=smoke"]
    with pytest.raises(Stopped):
        run_one(compose(overrides), Results(tmp_path), stop=stop)
    first = inspected(tmp_path)
    time.sleep(1.1)  # W&B names its folders by the second
    finished = run_one(compose(overrides), Results(tmp_path))
    folders = [*(tmp_path / "wandb").glob("offline-run-*")]
    assert {folder.name.split("-")[-1] for folder in folders} == {finished.run_id}
    assert len(folders) == 2
    summary = json.loads(inspected(tmp_path, "--summary"))
    for key, value in finished.metrics.items():
        assert find(summary, key) == pytest.approx(value), key

    def steps(printed: str) -> list[int]:
        rows = [json.loads(line) for line in printed.splitlines()]
        return [row["history"]["item"]["_step"] for row in rows if "history" in row]

    assert steps(first) == [1, 2, 3, 4, 5]
    assert steps(inspected(tmp_path)) == [6, 7, 8, 9, 10]


def find(tree: Any, key: str) -> Any:
    """Return the value of `key` at any place in a JSON tree."""
    if isinstance(tree, dict):
        if key in tree:
            return tree[key]
        tree = list(tree.values())
    if isinstance(tree, list):
        for branch in tree:
            if (value := find(branch, key)) is not None:
                return value
    return None


class Notes(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_the_tracker_changes_no_metric_and_shows_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    modes = {"none": ["tracker=none"], "wandb": WANDB}
    modes["disabled"] = ["tracker=wandb", "tracker.mode=disabled"]
    records, notes = {}, {name: Notes() for name in modes}
    for name, tracker in modes.items():
        config = compose([*SMALL["cnn"], "norm=batch", "budget=smoke", *tracker])
        records[name] = run_one(config, Results(tmp_path / name), observer=notes[name])
        assert records[name].run_id == records["none"].run_id
        as_json = records[name].model_dump_json(include={"metrics"})
        assert as_json == records["none"].model_dump_json(include={"metrics"}), name
    (line,) = notes["wandb"].texts
    assert "wandb leet" in line
    assert notes["none"].texts == notes["disabled"].texts == []
    assert capfd.readouterr() == ("", "")


def test_a_tracker_that_fails_is_one_warning_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise OSError("No space left on device")

    config = compose([*SMALL["cnn"], "budget.max_steps=2", *WANDB])
    for when in ("init", "log", "finish"):
        notes = Notes()
        with monkeypatch.context() as patch:
            patch.setattr(wandb if when == "init" else wandb.Run, when, broken)
            finished = run_one(config, Results(tmp_path / when), observer=notes)
        assert finished.status == "ok", when
        (failed,) = [text for text in notes.warnings if "No space left" in text]
        assert "goes on" in failed
        wandb.teardown()
    monkeypatch.setenv("WANDB_CONSOLE", "loud")
    notes = Notes()
    assert run_one(config, Results(tmp_path), observer=notes).status == "ok"
    (refused,) = notes.warnings
    assert "W&B failed (console: Input should be" in refused


def test_a_wandb_folder_that_cannot_be_written_does_not_end_the_run(
    run: Run, tmp_path: Path
) -> None:
    results = tmp_path / "runs"
    results.mkdir()
    (results / "wandb").touch()
    assert run(*SMALL["cnn"], *WANDB, results=results).status == "ok"


@pytest.mark.slow
def test_online_without_a_server_falls_back_to_offline(
    command: Command, tmp_path: Path
) -> None:
    mode = ["tracker=wandb", "tracker.mode=online"]
    done = command(
        *["train", *SMALL["cnn"], "budget=smoke", *mode],
        WANDB_BASE_URL="http://127.0.0.1:9",
        WANDB_API_KEY="",
        HOME=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    about_it = [line for line in done.stderr.splitlines() if "W&B" in line]
    assert "not reachable" in about_it[0]
    assert "wandb leet" in about_it[1]
    assert "wandb:" not in done.stderr
    assert list((tmp_path / "results" / "runs" / "wandb").glob("offline-run-*"))


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [5, 16])
def test_a_wandb_folder_that_is_full_is_one_warning(
    kilobytes: int, tmp_path: Path
) -> None:
    """With a limit on file sizes, W&B's log or the last check of the disk fails."""
    config = compose([*SMALL["cnn"]])
    network.make_task(config, torch.device("cpu"))  # fills the data cache
    overrides = " ".join([*SMALL["cnn"], "budget=smoke", "log_every=10", *WANDB])
    train = f"'{sys.executable}' -B -m normbench train {overrides}"
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f {kilobytes}; exec {train}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    failed = [line for line in done.stderr.splitlines() if "W&B failed" in line]
    assert len(failed) == 1, done.stderr
    (result,) = tmp_path.rglob("result.json")
    assert json.loads(result.read_text())["status"] == "ok"


def test_variables_of_wandb_count_and_a_key_wins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def tracker(*overrides: str, **variables: str) -> dict[str, Any]:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            config = compose(["tracker=wandb", *overrides])
        assert run_id(config) == run_id(compose([]))
        return config.tracker.model_dump(exclude={"name"})

    usual = {"mode": "offline", "project": "normbench", "entity": None, "group": None}
    assert tracker() == usual
    for name in ("MODE", "PROJECT", "ENTITY", "RUN_GROUP", "DISABLED"):
        assert tracker(**{f"WANDB_{name}": ""}) == usual, name
    chosen = {"PROJECT": "p", "ENTITY": "e", "RUN_GROUP": "g", "MODE": "online"}
    variables = {f"WANDB_{name}": value for name, value in chosen.items()}
    expected = {"mode": "online", "project": "p", "entity": "e", "group": "g"}
    assert tracker(**variables) == expected
    keys = ["mode=offline", "project=mine", "entity=me", "group=ours"]
    won = tracker(*(f"tracker.{key}" for key in keys), **variables)
    assert won == {
        "mode": "offline",
        "project": "mine",
        "entity": "me",
        "group": "ours",
    }
    for value, mode in {"disabled": "disabled", "dryrun": "offline"}.items():
        assert tracker(WANDB_MODE=value)["mode"] == mode
    for value in ("true", "1", "TRUE", "yes"):
        assert tracker(WANDB_DISABLED=value, WANDB_MODE="online")["mode"] == "disabled"
    for value in ("false", "0"):
        assert tracker(WANDB_DISABLED=value)["mode"] == "offline"
    assert tracker("tracker.mode=online", WANDB_DISABLED="true")["mode"] == "online"
    # Variables that are not needed are not validated.
    assert tracker("tracker.mode=online", WANDB_MODE="nonsense")["mode"] == "online"
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    assert compose(["tracker=none"]).tracker.name == "none"
    with pytest.raises(RequestError, match="WANDB_MODE=nonsense is unknown; write off"):
        compose(["tracker=wandb"])
    monkeypatch.setenv("WANDB_DISABLED", "perhaps")
    with pytest.raises(RequestError, match="WANDB_DISABLED=perhaps is unknown; write"):
        compose(["tracker=wandb"])


def test_a_wrong_variable_is_one_line_and_nothing_is_written(
    invoke: Command, tmp_path: Path
) -> None:
    done = invoke("train", *SMALL["cnn"], WANDB_MODE="on")
    assert done.returncode == 2
    assert done.stderr == (
        "error: WANDB_MODE=on is unknown; write offline, online or disabled\n"
    )
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_variables_of_a_run_reach_wandb(command: Command, tmp_path: Path) -> None:
    """Empty variables, which W&B itself refuses, count as not set."""
    variables = {"DIR": "mirror", "NAME": "n", "NOTES": "notes", "TAGS": "a, b,"}
    variables |= {"PROJECT": "p", "RUN_GROUP": "g", "JOB_TYPE": "j", "MODE": "dryrun"}
    variables |= {"RUN_ID": "x", "RESUME": "must", "BASE_URL": "", "CONSOLE": ""}
    environment = {f"WANDB_{name}": value for name, value in variables.items()}
    done = command("train", *SMALL["cnn"], "budget.max_steps=2", **environment)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert "wandb leet mirror/wandb/offline-run-" in done.stderr
    assert not (tmp_path / "results" / "runs" / "wandb").exists()
    rows = map(json.loads, inspected(tmp_path / "mirror").splitlines())
    (run,) = (row["run"] for row in rows if "run" in row)
    assert run["tags"] == ["norm:batch", "bs:32", "a", "b"]
    labels = ("display_name", "notes", "project", "run_group", "job_type")
    assert [run[label] for label in labels] == ["n", "notes", "p", "g", "j"]
    assert "resume" not in run
    (result,) = tmp_path.rglob("result.json")
    assert run["run_id"] == json.loads(result.read_text())["run_id"]


def test_offline_reports_nothing_and_online_only_if_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for asked, online in (("", "false"), ("false", "false"), ("true", "true")):
        monkeypatch.setenv("WANDB_ERROR_REPORTING", asked)
        clean(offline=False)
        assert os.environ["WANDB_ERROR_REPORTING"] == online
        clean(offline=True)
        assert os.environ["WANDB_ERROR_REPORTING"] == "false"


@pytest.mark.slow
def test_without_a_home_wandb_is_silent_and_works(tmp_path: Path) -> None:
    for number, home in enumerate([{}, {"HOME": "/proc/none"}]):
        folder = tmp_path / str(number)
        folder.mkdir()
        names = ("PATH", "PYTHONPATH", "NORMBENCH_CACHE", "VIRTUAL_ENV")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        train = ["train", *SMALL["cnn"], "budget.max_steps=2", "evaluations=1"]
        done = subprocess.run(
            [sys.executable, "-m", "normbench", *train],
            cwd=folder,
            env=kept | home | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        lines = done.stderr.splitlines()
        assert lines[-1].startswith("W&B, offline: `wandb leet"), home
        assert len(lines) == 3, done.stderr  # 2 of them are there without a tracker
        assert inspected(folder / "results" / "runs", "--summary")
        left = {path.name for path in folder.iterdir()}
        assert left == {"results"}, home


def test_folders_that_can_be_written_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, "")  # so that the old value is restored later
        monkeypatch.delenv(name)
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    find_folders(tmp_path / "spare")
    assert "WANDB_CACHE_DIR" not in os.environ
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "mine"))
    monkeypatch.setenv("WANDB_DATA_DIR", "/proc/none")
    find_folders(tmp_path / "spare")
    assert os.environ["WANDB_CACHE_DIR"] == str(tmp_path / "mine")
    assert Path(os.environ["WANDB_DATA_DIR"]).parent == tmp_path / "spare"


def test_without_a_home_folder_there_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETRC", "~no-such-user/.netrc")
    assert not tracking._has_login("http://127.0.0.1:9")
