"""The dashboard: panels show logged keys, and publishing saves both objects or none."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, Command
from verdicts_made import CLAIMS, some_verdicts
from wandb_server import Received, serving

from normbench.config.composition import compose
from normbench.errors import NormbenchError
from normbench.records import store
from normbench.records.store import Results
from normbench.report import dashboard as built
from normbench.training.experiment import run_one

LOGGED = {
    "cnn": ["norm=batch"],
    "transformer": ["norm=batch", "probes=[pad_statistics]", "budget.max_steps=2"],
    "style": ["norm=instance", "budget.max_steps=1"],
}


@pytest.fixture(scope="module")
def shown() -> built.Dashboard:
    return built.dashboard(some_verdicts(), "normbench", None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Received]:
    """Log and upload a run of each task; return them by job type, as W&B has them."""
    results = tmp_path_factory.mktemp("runs")
    for task, overrides in LOGGED.items():
        offline = ["budget=smoke", "tracker=wandb", "tracker.mode=offline"]
        finished = run_one(
            compose([*offline, *SMALL[task], *overrides]), Results(results)
        )
        assert finished.status == "ok", finished.error
    with serving() as server:
        subprocess.run(
            [sys.executable, "-m", "normbench", "sync", "--results", str(results)],
            env=os.environ | server.environment,
            check=True,
            capture_output=True,
        )
    (folder,) = (f for f in results.glob("??/*") if (f / "stylised.png").is_file())
    style = server.runs[folder.name]
    (sent,) = (data for name, data in style.files.items() if name.endswith(".png"))
    assert sent == (folder / "stylised.png").read_bytes()
    assert store.read(folder) is not None
    assert {run.job_type for run in server.runs.values()} == set(LOGGED)
    return {str(run.job_type): run for run in server.runs.values()}


def logged(run: Received) -> dict[str, set[str]]:
    """Return the keys of a run, by the part of the run that has them."""
    media = {"image-file", "table-file"}
    rows: dict[str, Any] = {}
    for row in run.history:
        rows |= row
    images = {
        key
        for key, value in rows.items()
        if isinstance(value, dict) and value["_type"] in media
    }
    return {
        "config": set(leaves(run.config)),
        "summary": set(run.summary),
        "history": rows.keys() - images,
        "media": images,
    }


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_panels_show_what_runs_log(runs: Mapping[str, Received]) -> None:
    keys = {task: logged(run) for task, run in runs.items()}
    for section in built.sections():
        tasks = list(LOGGED) if section.task is None else [section.task]
        for panel in section.panels:
            assert any(
                all(
                    set(names) <= keys[task][part]
                    for part, names in panel.keys().items()
                )
                for task in tasks
            ), f"{panel} is logged by no run of {tasks}"
        for task in tasks:
            assert set(section.by) <= keys[task]["config"], section.title
    wrong = built.Panel(kind="scatter", x="batch_size", y="test/eror").keys()
    assert wrong["config"] == ["batch_size"]
    assert not set(wrong["summary"]) <= keys["cnn"]["summary"]


def test_the_outline_names_everything_to_publish(shown: built.Dashboard) -> None:
    text = built.outline(shown)
    for section in built.sections():
        assert text.count(f"  {section.title}\n") == 2  # in workspace and report
        for panel in section.panels:
            for names in panel.keys().values():
                assert all(name in text for name in names)
    assert "(your own entity)/normbench" in text
    assert "someone/digits" in built.outline(built.dashboard([], "digits", "someone"))


def test_each_part_has_a_row_and_text_cannot_break_the_table(
    shown: built.Dashboard,
) -> None:
    verdict = some_verdicts()[-1]
    first, second, third = verdict.parts
    changes = {"sentence": "a | b", "finding": "Words."}
    parts = [first.model_copy(update=changes), second, third]
    with_bar = verdict.model_copy(update={"parts": parts})
    _, _, *rows = built.verdict_table([with_bar]).splitlines()
    assert rows[0] == (
        f"| {verdict.claim} | {first.headline} | a \\| b | Words. | {first.scope} |"
    )
    assert rows[1].startswith(f"| {verdict.claim} | holds | {second.sentence} | how-")
    assert rows[2] == (
        f"| {verdict.claim} | not tested | {third.sentence} |  | {third.scope} |"
    )
    assert all(row.replace("\\|", "").count("|") == 6 for row in rows)
    assert "No claim has a verdict" in built.verdict_table([])
    for verdict in some_verdicts():
        assert verdict.claim in built.outline(shown)


def test_json_has_the_objects_of_the_client(invoke: Command) -> None:
    done = invoke("dashboard", "--json", "--claims", str(CLAIMS), "--entity", "me")
    assert done.returncode == 0, done.stderr
    plain = json.loads(done.stdout)
    sections = plain["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == [
        "Verdicts",
        *(section.title for section in built.sections()),
    ]
    assert plain["report"]["project"]["entityName"] == "me"
    grids = [b for b in plain["report"]["spec"]["blocks"] if b["type"] == "panel-grid"]
    assert len(grids) == len(built.sections())
    (condition,) = grids[0]["metadata"]["runSets"][0]["filters"]["filters"]
    assert condition["key"]["name"] == "jobType"
    assert (condition["op"], condition["value"]) == ("=", "cnn")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("", "not logged in"),
        pytest.param(
            "0" * 40, "W&B did not accept the dashboard", marks=pytest.mark.slow
        ),
    ],
)
def test_without_a_valid_login_nothing_is_published(
    key: str, message: str, command: Command, tmp_path: Path
) -> None:
    login = {"WANDB_API_KEY": key, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    done = command("dashboard", "--publish", timeout=300, HOME=str(tmp_path), **login)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {message}")
    assert "nothing was published" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_both_objects_are_published_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    calls: list[str] = []

    def refuse(self: object) -> None:
        raise ValueError("no such view")

    monkeypatch.setattr(wandb, "login", lambda **options: True)
    monkeypatch.setattr(built.wr.Report, "save", lambda self: calls.append("save"))
    monkeypatch.setattr(built.wr.Report, "delete", lambda self: calls.append("delete"))
    monkeypatch.setattr(built.ws.Workspace, "save", refuse)
    with pytest.raises(NormbenchError, match=r"no such view.*nothing was published"):
        built.publish(some_verdicts(), "normbench", "someone")
    assert calls == ["save", "delete"]

    monkeypatch.setattr(built.ws.Workspace, "save", lambda self: calls.append("view"))
    monkeypatch.setattr(built.ws.Workspace, "url", "here")
    monkeypatch.setattr(built.wr.Report, "url", "there")
    assert built.publish(some_verdicts(), "normbench", "someone") == {
        "workspace": "here",
        "report": "there",
    }
    assert calls[2:] == ["save", "view"]


def test_without_the_extra_the_error_says_how_to_install_it(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "wandb_workspaces.py").write_text("raise ImportError")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = command("dashboard", PYTHONPATH=path)
    assert done.returncode == 2
    assert done.stderr == (
        "error: the dashboard needs wandb-workspaces; install it with: "
        "pip install 'normbench[dashboard]'\n"
    )
