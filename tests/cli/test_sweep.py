"""Sweeps by the command: done, done again, asked about, and what a run's end means."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from norms_made import ODD

TINY = ["task=cnn", "data.size=14", "task.stem_stride=2", "task.width=8"]
SMOKE = [*TINY, "tracker=none", "budget=smoke", "norm=affine"]


@pytest.fixture
def odd(tmp_path: Path) -> list[str]:
    """What makes `norm=odd` known to a command."""
    (tmp_path / "odd_norm.py").write_text(ODD)
    (tmp_path / "mine" / "norm").mkdir(parents=True)
    (tmp_path / "mine" / "norm" / "odd.yaml").write_text(
        "# Odd\nname: odd\ndoes: works\n"
    )
    return ["norm=odd", "--config-dir", "mine", "--module", "odd_norm"]


def by_norm(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {record["config"]["norm"]["does"]: record for record in records}


@pytest.mark.slow
def test_a_sweep_does_what_is_missing_and_says_how_far_it_is(command: Command) -> None:
    grid = [*SMOKE, "seed=0,1"]
    before = json.loads(command("sweep", *grid, "--dry-run", "--json").stdout)
    assert (before["runs"], before["missing"], before["seconds"]) == (2, 2, None)
    done = command("sweep", *grid, "--json")
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)
    assert [record["config"]["seed"] for record in records] == [0, 1]
    assert all(record["status"] == "ok" for record in records)

    wider = [*SMOKE, "seed=0,1,2"]
    after = json.loads(command("sweep", *wider, "--dry-run", "--json").stdout)
    assert (after["finished"], after["missing"], after["stale"]) == (2, 1, 0)
    assert after["seconds"] > 0
    assert after["bytes"] > 1000
    status = json.loads(command("status", *wider, "--json").stdout)
    assert (status["runs"], status["ok"], status["missing"]) == (3, 2, 1)
    again = command("sweep", *grid)
    assert again.returncode == 0
    assert "2 of 2 runs are finished already" in again.stderr
    assert json.loads(command("status", "--json").stdout)["ok"] == 2


@pytest.mark.slow
def test_every_end_of_a_run_is_recorded_and_the_others_go_on(
    command: Command, odd: list[str]
) -> None:
    does = "norm.does=raises,dies,hangs,works"
    # Longer than an unloaded machine needs for a run, so that only `hangs` hangs.
    sweep = [*SMOKE, *odd, does, "engine.timeout=25", "engine.workers=2"]
    done = command("sweep", *sweep, "--json", timeout=300)
    assert done.returncode == 1, done.stderr
    assert [r["config"]["norm"]["does"] for r in json.loads(done.stdout)] == ["works"]
    listed = by_norm(json.loads(command("results", "--json").stdout))
    assert {key: record["status"] for key, record in listed.items()} == {
        "raises": "failed",
        "dies": "failed",
        "hangs": "failed",
        "works": "ok",
    }
    assert "odd on purpose" in listed["raises"]["error"]
    assert "SIGKILL, 2 times" in listed["dies"]["error"]
    assert "engine.timeout=25" in listed["hangs"]["error"]

    left = command("sweep", *sweep, "--skip-failed")
    assert left.returncode == 0, left.stderr
    assert "3 failed and are left" in left.stderr


@pytest.mark.slow
def test_a_diverged_run_is_an_outcome_and_is_not_done_again(command: Command) -> None:
    grid = [*TINY, "tracker=none", "budget=smoke", "norm=none", "lr=1e30", "warmup=0.0"]
    done = command("sweep", *grid)
    assert done.returncode == 0, done.stderr
    assert "diverged at step" in done.stderr
    assert "1 of 1 runs are finished" in command("sweep", *grid).stderr


@pytest.mark.slow
def test_a_norm_that_cannot_work_is_skipped_and_the_rest_is_done(
    command: Command,
) -> None:
    arms = ["--arm", "norm=group norm.num_groups=3", "--arm", "norm=affine"]
    done = command("sweep", *TINY, "tracker=none", "budget=smoke", *arms)
    assert done.returncode == 0, done.stderr
    assert "1 skipped: norm=group" in done.stderr
    assert "1 finished" in done.stdout


@pytest.mark.slow
def test_runs_of_other_code_are_counted_and_done_again_when_asked(
    command: Command, odd: list[str], tmp_path: Path
) -> None:
    assert command("sweep", *SMOKE, *odd).returncode == 0
    (tmp_path / "odd_norm.py").write_text(ODD + "# changed\n")
    told = command("sweep", *SMOKE, *odd, "--dry-run", "--json")
    assert json.loads(told.stdout)["stale"] == 1
    assert "come from other code" in command("sweep", *SMOKE, *odd).stderr
    redone = command("sweep", *SMOKE, *odd, "--redo-stale")
    assert "1 ok" in redone.stdout, redone.stderr
    told = command("sweep", *SMOKE, *odd, "--dry-run", "--json")
    assert json.loads(told.stdout)["stale"] == 0


def test_a_wrong_plan_is_refused_and_writes_nothing(
    command: Command, tmp_path: Path
) -> None:
    refused = command("sweep", *SMOKE, "seed=0,1,two")
    assert refused.returncode == 2
    assert "seed='two'" in refused.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_a_run_can_be_done_again_and_compared(
    command: Command, odd: list[str], tmp_path: Path
) -> None:
    record = json.loads(command("train", *SMOKE, "--json").stdout)
    same = command("rerun", record["run_id"][:6], "--json")
    assert same.returncode == 0, same.stderr
    outcome = json.loads(same.stdout)
    assert outcome["identical"] is True
    assert outcome["before"] == record
    assert outcome["after"]["metrics"] == record["metrics"]
    assert len(json.loads(command("results", "--json").stdout)) == 1

    result = next((tmp_path / "results" / "runs").glob("??/*/result.json"))
    record["metrics"]["test/error"] += 0.5
    result.write_text(json.dumps(record))
    other = command("rerun", record["run_id"][:6])
    assert other.returncode == 1
    assert "not identical" in other.stdout
