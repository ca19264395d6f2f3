"""Commands that are killed, stopped by Ctrl-C, or started twice.

The tests do not depend on timing: a command stops itself (SIGSTOP) after a given step.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from interrupted_made import CNN_WORDS, content

from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.config.schema import RunRecord
from normbench.records import store
from normbench.records.store import Results
from normbench.training.experiment import run_one

pytestmark = pytest.mark.slow

PAUSE = """
import os
import signal

from normbench.training import loop


def fit(*arguments, after_step, fit=loop.fit, **options):
    def pause(step, pending):
        after_step(step, pending)
        if step == int(os.environ["PAUSE_AFTER"]):
            os.kill(os.getpid(), signal.SIGSTOP)

    return fit(*arguments, after_step=pause, **options)


loop.fit = fit
"""

Train = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def train(tmp_path: Path) -> Iterator[Train]:
    """Start `normbench train`, which pauses after a step (0: never)."""
    (tmp_path / "pause.py").write_text(PAUSE)
    processes = []

    def start(*overrides: str, pause_after: int = 0) -> subprocess.Popen[str]:
        arguments = ["train", *CNN_WORDS, *overrides, "--module", "pause", "--json"]
        process = subprocess.Popen(
            [sys.executable, "-m", "normbench", *arguments, "--results", "results"],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PAUSE_AFTER": f"{pause_after}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_until_paused(process: subprocess.Popen[str]) -> None:
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[RunRecord, str]:
    """The record that a process prints, and its messages."""
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return RunRecord.model_validate_json(output), errors


def test_a_killed_run_is_resumed_by_the_same_command(
    train: Train, tmp_path: Path
) -> None:
    config = compose(CNN_WORDS)
    folder = store.run_folder(tmp_path / "results", run_id(config))
    for step in (4, 8):  # checkpoints are written at steps 3 and 6
        process = train(pause_after=step)
        wait_until_paused(process)
        process.kill()
        process.communicate()
        assert store.read(folder) is None
    finished, errors = ended(train())
    assert "resuming from step 6" in errors
    whole = run_one(config, Results(tmp_path / "whole"))
    assert content(tmp_path / "results", finished) == content(tmp_path / "whole", whole)


def test_ctrl_c_saves_the_run_and_prints_where_it_continues(train: Train) -> None:
    process = train("checkpoint.every=null", pause_after=4)
    wait_until_paused(process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    message = errors.splitlines()[-1]
    assert message.startswith("interrupted; ")
    assert message.endswith("continues from step 5")
    assert "Traceback" not in errors
    _, errors = ended(train("checkpoint.every=null"))
    assert "resuming from step 5" in errors


def test_a_command_does_not_do_the_run_of_another_process(
    train: Train, tmp_path: Path
) -> None:
    first = train(pause_after=4)
    wait_until_paused(first)
    second = train()
    output, errors = second.communicate(timeout=120)
    assert (second.returncode, output) == (2, "")
    assert "another process" in errors
    first.send_signal(signal.SIGCONT)
    finished, _ = ended(first)
    folder = store.run_folder(tmp_path / "results", finished.run_id)
    steps = [row["step"] for row in store.read_history(folder)]
    assert steps == sorted(steps)
    assert json.loads((folder / store.RESULT).read_text())["status"] == "ok"
