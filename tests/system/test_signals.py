"""Ctrl-C at any time after the start of the program, and closed terminals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import SMALL

from normbench.system.interrupts import INTERRUPTED_MESSAGE

on_posix = pytest.mark.skipif(os.name != "posix", reason="its signals")
NORMBENCH = (sys.executable, "-m", "normbench")
LONG = [*SMALL["cnn"], "budget.epochs=1000", "log_every=1", "checkpoint.every=null"]
TINY = [*LONG, "tracker=none"]
CATCHES_ALL = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
except BaseException:
    pass
from {name} import *
"""


def result_of(
    words: Sequence[str], folder: Path, **environment: str
) -> tuple[int, str]:
    """Run a command in `folder`; return its exit code and its standard error."""
    done = subprocess.run(
        words,
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stderr


def path_with(folder: Path) -> str:
    """Return a PYTHONPATH that begins with `folder`."""
    return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])


@on_posix
def test_ctrl_c_ends_an_import_that_catches_all_exceptions(tmp_path: Path) -> None:
    """The import is that of typer, then that of the user's module."""
    (tmp_path / "typer.py").write_text(CATCHES_ALL.format(name="typing"))
    words = [*NORMBENCH, "train"]
    result = result_of(words, tmp_path, PYTHONPATH=path_with(tmp_path))
    assert result == (130, f"{INTERRUPTED_MESSAGE}\n")
    (tmp_path / "typer.py").rename(tmp_path / "mine.py")
    words = [*NORMBENCH, "train", *TINY, "--module", "mine"]
    assert result_of(words, tmp_path) == (130, f"{INTERRUPTED_MESSAGE}\n")
    assert {path.name for path in tmp_path.iterdir()} <= {"mine.py", "__pycache__"}


@on_posix
def test_a_process_that_ignores_ctrl_c_continues_to_ignore_it(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(
        "import os, signal\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "raise SystemExit('continued')\n"
    )
    words = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *NORMBENCH, "train"]
    result = result_of(words, tmp_path, PYTHONPATH=path_with(tmp_path))
    assert result == (1, "continued\n")


def start(folder: Path, *words: str, session: bool = True) -> subprocess.Popen[str]:
    """Start a command in `folder`, by default in a session without a terminal."""
    return subprocess.Popen(
        words,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=session,
    )


@pytest.mark.slow
@on_posix
@pytest.mark.parametrize("command", ["train", "sweep"])
def test_ctrl_c_ends_a_command_at_any_time(command: str, tmp_path: Path) -> None:
    """The first 0.2 seconds, in which Python itself starts, are not tested."""
    for moment in range(12):
        words = [*NORMBENCH, command, *TINY, "--results", f"runs{moment}"]
        with start(tmp_path, *words, session=False) as process:
            time.sleep(0.2 + moment / 4)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=120)
        assert process.returncode == 130, (moment, errors)
        assert "interrupted; " in errors and "Traceback" not in errors, (moment, errors)


def wait_for_rows(count: int, folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the histories in `folder` have more than `count` rows."""
    deadline = time.monotonic() + 200
    while True:
        files = folder.rglob("history.jsonl")
        if sum(len(file.read_text().splitlines()) for file in files) > count:
            return
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(str(process.communicate()))
        time.sleep(0.05)


COMMANDS = {
    "train": ["train", *TINY],
    "sweep": ["sweep", *TINY, "seed=0,1", "engine.workers=2"],
    "compare": [
        *("compare", *LONG, "--workers", "2"),
        *("--arm", "norm=batch", "--arm", "norm=none"),
    ],
}


@pytest.mark.slow
@on_posix
@pytest.mark.parametrize("command", COMMANDS)
def test_a_terminal_that_is_closed_leaves_checkpoints(
    command: str, tmp_path: Path
) -> None:
    """The terminal and its shell each send SIGHUP; SIGTERM may follow."""
    with start(tmp_path, *NORMBENCH, *COMMANDS[command]) as process:
        wait_for_rows(8, tmp_path, process)
        for number in (signal.SIGHUP, signal.SIGHUP):
            os.killpg(process.pid, number)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=200)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].startswith("interrupted; "), errors
    assert "Traceback" not in errors
    assert list(tmp_path.rglob("checkpoint.pt"))
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.slow
@on_posix
@pytest.mark.parametrize("command", ["train", "sweep"])
def test_with_nohup_a_closed_terminal_ends_no_run(command: str, tmp_path: Path) -> None:
    words = ["nohup", *NORMBENCH, *COMMANDS[command], "budget.max_steps=60"]
    with start(tmp_path, *words) as process:
        wait_for_rows(4, tmp_path, process)
        os.killpg(process.pid, signal.SIGHUP)
        _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert len(list(tmp_path.rglob("result.json"))) == 1 + (command == "sweep")


@pytest.mark.slow
@on_posix
def test_a_comparison_says_after_sigterm_how_to_continue(tmp_path: Path) -> None:
    with start(tmp_path, *NORMBENCH, *COMMANDS["compare"]) as process:
        wait_for_rows(8, tmp_path, process)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=200)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == INTERRUPTED_MESSAGE
    assert list(tmp_path.rglob("checkpoint.pt"))
