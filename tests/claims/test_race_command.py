"""`compare --minutes` with tiny real runs."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL, Command
from sweeps_made import PATIENCE, wait_until

from normbench.records.store import CHECKPOINT
from normbench.sweeps.manifest import folders, read_manifest
from normbench.verdicts.ranking import Ranking

STEPS = ["budget.max_steps=40", "evaluations=1", "checkpoint.every=5"]
STEPS += ["evaluation.train_samples=100"]
RACE = ["compare", *SMALL["cnn"], *STEPS, "--gate", "0.99", "--seeds", "6,8"]
RACE += ["--arm", "norm=batch", "--arm", "norm=group", "--arm", "norm=none"]


@pytest.mark.slow
def test_a_race_ends_in_time_and_the_same_command_continues(command: Command) -> None:
    def race(minutes: float) -> tuple[Ranking, str]:
        words = [*RACE, "--minutes", str(minutes), "--json"]
        done = command(*words, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        assert "test/error" not in done.stderr  # no effect is shown before the end
        return Ranking.model_validate_json(done.stdout), done.stderr

    first, _ = race(0.05)
    assert (first.ended, first.arms) == ("time", [])
    assert sum(spent.minutes for spent in first.spent) < 1
    second, lines = race(10)
    assert second.ended in {"settled", "last look"} and second.seen[0] == 6
    assert second.arms[0].place == "best"
    assert "compare: test seeds, look 1 of 2, 0 of " in lines
    third, lines = race(10)
    assert third.arms == second.arms and "runs to do" not in lines
    assert [spent.runs for spent in third.spent] == [0, 0]


@pytest.mark.slow
def test_an_interrupted_race_leaves_checkpoints_and_shows_no_effects(
    tmp_path: Path,
) -> None:
    steps = ["budget.epochs=100", "budget.max_steps=3000", "log_every=1"]
    words = [sys.executable, "-m", "normbench", *RACE, *steps, "--minutes", "60"]
    results = tmp_path / "results" / "runs"
    process = subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(
        lambda: (
            bool([*results.glob(f"??/*/{CHECKPOINT}")]) or process.poll() is not None
        ),
        "a checkpoint",
    )
    (announced,) = folders(results)
    assert read_manifest(announced).blind
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, errors
    assert output == ""
    assert [*results.glob(f"??/*/{CHECKPOINT}")]


def test_a_wrong_race_is_refused(invoke: Command, tmp_path: Path) -> None:
    for arguments, message in (
        (["--minutes", "0"], "--minutes 0 is not a positive number"),
        (["--minutes", "-1"], "--minutes -1 is not a positive number"),
        (["--minutes", "nan"], "is not a positive number"),
        (["--minutes", "5", "batch_size=8,32"], "use one command for each level"),
        (["--minutes", "5", "--seeds", "4,8"], "must be increasing numbers of seeds"),
    ):
        done = invoke(*RACE, *arguments)
        assert done.returncode == 2, done.stderr
        assert message in " ".join(done.stderr.split()), arguments
        assert not (tmp_path / "results").exists()


def test_the_help_names_the_option(invoke: Command) -> None:
    assert "--minutes" in invoke("compare", "--help").stdout
