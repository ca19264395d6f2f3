"""The commands `sweep`, `status` and `rerun`: output, exit codes and records."""

import json
from pathlib import Path

import pytest
from conftest import SMALL, Command
from norms_made import ODD

SMOKE = [*SMALL["cnn"], "tracker=none", "budget=smoke", "norm=affine"]


@pytest.fixture
def odd(tmp_path: Path) -> list[str]:
    """The arguments with which a command knows `norm=odd`."""
    (tmp_path / "odd_norm.py").write_text(ODD)
    (tmp_path / "mine" / "norm").mkdir(parents=True)
    yaml = "# Odd\nname: odd\ndoes: works\n"
    (tmp_path / "mine" / "norm" / "odd.yaml").write_text(yaml)
    return ["norm=odd", "--config-dir", "mine", "--module", "odd_norm"]


@pytest.mark.slow
def test_a_sweep_does_only_missing_runs_and_status_counts_them(invoke: Command) -> None:
    grid = [*SMOKE, "seed=0,1"]
    before = json.loads(invoke("sweep", *grid, "--dry-run", "--json").stdout)
    assert (before["runs"], before["missing"], before["seconds"]) == (2, 2, None)
    done = invoke("sweep", *grid, "--json")
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)
    assert [record["config"]["seed"] for record in records] == [0, 1]
    assert all(record["status"] == "ok" for record in records)

    wider = [*SMOKE, "seed=0,1,2"]
    after = json.loads(invoke("sweep", *wider, "--dry-run", "--json").stdout)
    assert (after["finished"], after["missing"], after["stale"]) == (2, 1, 0)
    assert after["seconds"] > 0
    assert after["bytes"] > 1000
    status = json.loads(invoke("status", *wider, "--json").stdout)
    assert (status["runs"], status["ok"], status["missing"]) == (3, 2, 1)
    again = invoke("sweep", *grid)
    assert again.returncode == 0
    assert "2 of 2 runs are finished already" in again.stderr
    assert json.loads(invoke("status", "--json").stdout)["ok"] == 2


@pytest.mark.slow
def test_failures_are_recorded_and_do_not_stop_other_runs(
    command: Command, invoke: Command, odd: list[str]
) -> None:
    does = "norm.does=raises,dies,hangs,works"
    # Long enough for a run on a busy machine, so that only `hangs` is stopped.
    sweep = [*SMOKE, *odd, does, "engine.timeout=25", "engine.workers=2"]
    done = command("sweep", *sweep, "--json", timeout=300)
    assert done.returncode == 1, done.stderr
    assert [r["config"]["norm"]["does"] for r in json.loads(done.stdout)] == ["works"]
    listed = json.loads(invoke("results", "--json").stdout)
    results = {r["config"]["norm"]["does"]: (r["status"], r["error"]) for r in listed}
    assert results.pop("works") == ("ok", None)
    for does, words in (
        ("raises", "odd on purpose"),
        ("dies", "SIGKILL, 2 times"),
        ("hangs", "engine.timeout=25"),
    ):
        status, error = results[does]
        assert (status, words in error) == ("failed", True), does

    skipping = command("sweep", *sweep, "--skip-failed")
    assert skipping.returncode == 0, skipping.stderr
    assert "3 failed and are not repeated" in skipping.stderr


@pytest.mark.slow
def test_diverged_runs_are_finished_and_incompatible_norms_are_skipped(
    invoke: Command,
) -> None:
    arms = ["--arm", "norm=group norm.num_groups=3"]
    arms += ["--arm", "norm=none lr=1e30 warmup=0.0"]
    for again in (False, True):
        done = invoke("sweep", *SMOKE, *arms)
        assert done.returncode == 0, done.stderr
        assert "1 skipped: norm=group" in done.stderr
        assert "1 finished" in done.stdout
        assert ("1 of 1 runs are finished" in done.stderr) == again
        assert ("diverged at step" in done.stderr) == (not again)


@pytest.mark.slow
def test_runs_of_other_code_are_counted_and_repeated_with_redo_stale(
    command: Command, odd: list[str], tmp_path: Path
) -> None:
    def stale() -> int:
        dry_run = command("sweep", *SMOKE, *odd, "--dry-run", "--json")
        return int(json.loads(dry_run.stdout)["stale"])

    assert command("sweep", *SMOKE, *odd).returncode == 0
    (tmp_path / "odd_norm.py").write_text(ODD + "# changed\n")
    assert stale() == 1
    assert "come from other code" in command("sweep", *SMOKE, *odd).stderr
    redone = command("sweep", *SMOKE, *odd, "--redo-stale")
    assert "1 ok" in redone.stdout, redone.stderr
    assert stale() == 0


def test_a_wrong_plan_is_refused_and_writes_nothing(
    invoke: Command, tmp_path: Path
) -> None:
    refused = invoke("sweep", *SMOKE, "seed=0,1,two")
    assert refused.returncode == 2
    assert "seed='two'" in refused.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_rerun_repeats_a_run_and_compares_the_metrics(
    invoke: Command, tmp_path: Path
) -> None:
    record = json.loads(invoke("train", *SMOKE, "--json").stdout)
    same = invoke("rerun", record["run_id"][:6], "--json")
    assert same.returncode == 0, same.stderr
    plain = json.loads(same.stdout)
    assert plain["identical"] is True
    assert plain["before"] == record
    assert plain["after"]["metrics"] == record["metrics"]
    assert len(json.loads(invoke("results", "--json").stdout)) == 1

    result = next((tmp_path / "results" / "runs").glob("??/*/result.json"))
    record["metrics"]["test/error"] += 0.5
    result.write_text(json.dumps(record))
    other = invoke("rerun", record["run_id"][:6])
    assert other.returncode == 1
    assert "not identical" in other.stdout
