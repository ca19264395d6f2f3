"""What `normbench watch` shows of a sweep, in a terminal and elsewhere."""

import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import SMALL, Command
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from watch_made import (
    NORMS,
    SIZES,
    a_manifest,
    grid,
    record_of,
    write_record,
)

from normbench.cli.progress import SweepProgress
from normbench.cli.watch import MARKS, _shares, view
from normbench.records import store
from normbench.sweeps.manifest import Announcement, folders
from normbench.sweeps.watch import Watch

NORMBENCH = (sys.executable, "-m", "normbench")


@given(st.lists(st.sampled_from(sorted(MARKS)), min_size=9), st.integers(7, 80))
def test_no_state_is_left_out_of_a_bar_for_being_rare(
    states: list[str], width: int
) -> None:
    shown = _shares(states, width)
    assert len(shown) == width
    assert set(shown) == set(states)


STYLE = re.compile(r"\x1b\[[0-9;]*m")


class Screen:
    """A process in a pseudo-terminal, and everything that it has written there."""

    def __init__(self, arguments: list[str], lines: int) -> None:
        self.written = ""
        self.process, self._terminal = _in_a_terminal(arguments, lines)

    def wait_for(self, pattern: str, seconds: float = 60) -> str:
        """Wait until the output matches `pattern`; return the whole output."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, STYLE.sub("", self.written)):
            assert time.monotonic() < deadline, self.written
            assert self._read(), self.written
        return self.written

    def press(self, key: bytes) -> None:
        os.write(self._terminal, key)

    def end(self, seconds: float = 60) -> int:
        """Wait until the process ends; return its exit code."""
        deadline = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < deadline, self.written
        return self.process.wait(timeout=10)

    def lines(self) -> list[str]:
        """Return the lines that stay in the terminal after the full-screen view."""
        _, _, after = self.written.rpartition("\x1b[?1049l")
        return [line.rstrip("\r") for line in STYLE.sub("", after).split("\n")]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)

    def _read(self) -> bool:
        if not select.select([self._terminal], [], [], 0.1)[0]:
            return True
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # the other end is closed
            return False
        self.written += data.decode()
        return bool(data)


def _in_a_terminal(
    arguments: list[str], lines: int
) -> tuple[subprocess.Popen[bytes], int]:
    plain = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES"}}
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, 80, 0, 0))
    process = subprocess.Popen(
        [*NORMBENCH, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=plain | {"TERM": "xterm-256color", "PYTHONUTF8": "1"},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    return process, ours


@contextmanager
def watching(results: Path, lines: int = 24) -> Iterator[Screen]:
    screen = Screen(["watch", "--results", str(results)], lines)
    try:
        yield screen
    finally:
        screen.close()


def test_a_table_fits_the_terminal(tmp_path: Path) -> None:
    keys = grid(norm=NORMS, batch_size=SIZES, seed=range(9))
    with Announcement(tmp_path) as announcement:
        announcement.publish(a_manifest(*keys))
    for key in keys:
        write_record(tmp_path, key)
    snapshot = Watch(tmp_path).look()
    marks = "■" * 8
    fits = {120: f"{marks} 9/9 0.2500", 60: f"{marks} 0.2500", 45: marks, 20: ""}
    for columns, cell in fits.items():
        printed = io.StringIO()
        console = Console(file=printed, width=columns, force_terminal=False)
        console.print(view(snapshot, console, max_lines=None))
        lines = printed.getvalue().splitlines()
        assert max(map(len, lines)) <= columns
        row = next(line for line in lines if line.startswith("batch"))
        assert cell in row, columns
        assert (" 9/9" in row, "0.25" in row) == (columns == 120, columns > 45)


def test_ctrl_c_ends_watching_and_leaves_the_terminal_clean(tmp_path: Path) -> None:
    keys = grid(lr=[i / 100 for i in range(1, 31)])
    with Announcement(tmp_path) as announcement:
        announcement.publish(a_manifest(*keys))
        for key in keys[:10]:
            write_record(tmp_path, key)
        with watching(tmp_path, lines=20) as screen:
            shown = screen.wait_for("rows below")
            assert "\x1b[?1049h" in shown
            assert "\x1b[?1049l" not in shown
            assert "rows above, all ended" in shown
            assert "lr=0.11" in shown
            assert "lr=0.02 " not in shown
            screen.press(b"\x03")
            assert screen.end() == 130
    assert screen.written.rindex("\x1b[?25h") > screen.written.rindex("\x1b[?25l")
    left = "\n".join(screen.lines())
    assert "10 of 30 runs have ended" in left
    assert "interrupted" not in left
    assert all(f"lr={i / 100} " in left for i in range(1, 31))


def test_a_pipe_gets_plain_text_once(
    command: Command, invoke: Command, tmp_path: Path
) -> None:
    ok, other = grid(norm=NORMS)
    with Announcement(tmp_path) as announcement:
        announcement.publish(a_manifest(ok, other))
        write_record(tmp_path, ok)
        watch = ["watch", "--results", str(tmp_path)]
        plain = command(*watch, PYTHONUTF8="0", PYTHONIOENCODING="ascii")
        assert plain.returncode == 0, plain.stderr
        assert "\x1b" not in plain.stdout
        assert "# 1 ok  . 1 to come" in plain.stdout
        shown = json.loads(invoke(*watch, "--json").stdout)
    assert (shown["runs"], shown["ok"], shown["missing"]) == (2, 1, 1)
    assert shown["active"] is True
    assert [cell["by"] for cell in shown["cells"]] == [
        {"norm": "batch"},
        {"norm": "group"},
    ]
    stopped = invoke(*watch).stdout
    assert "stopped; the same command continues it" in stopped


def test_the_runs_of_a_check_are_watched_without_their_metrics(
    invoke: Command, tmp_path: Path
) -> None:
    keys = grid(norm=NORMS, seed=range(2))
    watch = ["watch", "--results", str(tmp_path)]
    shown: dict[bool, str] = {}
    for blind in (False, True):
        with Announcement(tmp_path) as announcement:
            announcement.publish(a_manifest(*keys).model_copy(update={"blind": blind}))
            for key in keys[:3]:
                write_record(tmp_path, key)
            shown[blind] = invoke(*watch).stdout
            plain = json.loads(invoke(*watch, "--json").stdout)
        assert plain["blind"] is blind
        assert (plain["ok"], plain["missing"]) == (3, 1)
        assert (plain["extremes"] == {}) is blind
        for cell in plain["cells"]:
            assert (cell["mean"] is None) is (cell["metric"] is None) is blind
    assert "0.2500" in shown[False] and "best " in shown[False]
    for hidden in ("0.25", "best ", "worst ", "test/error"):
        assert hidden not in shown[True]
    assert "3 ok" in shown[True]
    assert "no metrics are shown before the verdict" in shown[True]
    assert "no metrics" not in shown[False]


def test_progress_of_a_check_names_no_metric() -> None:
    for blind in (False, True):
        printed = io.StringIO()
        console = Console(file=printed, width=100, force_terminal=False)
        progress = SweepProgress(console, blind=blind)
        progress.start(1, None)
        (key,) = grid(norm=["batch"])
        progress.ended(record_of(key), None)
        progress.close()
        assert ("test/error 0.2500" in printed.getvalue()) is not blind
        assert ("  ok  " in printed.getvalue()) is blind


def test_without_a_sweep_it_says_so(invoke: Command) -> None:
    shown = invoke("watch", "--results", "nowhere")
    assert shown.returncode == 2
    assert shown.stderr.startswith("error: no sweep has run in --results nowhere")


def _stop_during_a_run(sweep: subprocess.Popen[bytes], results: Path) -> None:
    """Stop all processes of the sweep at a moment when a run is in progress."""
    deadline = time.monotonic() + 60
    while True:
        os.killpg(sweep.pid, signal.SIGSTOP)
        time.sleep(0.05)
        runs = [store.run_folder(results, key) for key in store.run_ids(results)]
        if folders(results) and any(map(store.is_running, runs)):
            return
        os.killpg(sweep.pid, signal.SIGCONT)
        assert time.monotonic() < deadline, "no run began"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_real_sweep_is_watched_to_its_end(tmp_path: Path) -> None:
    words = [*SMALL["cnn"], "budget=smoke", "tracker=none", "engine.workers=1"]
    values = ["norm=affine,none", "batch_size=8,32", "seed=0,1"]
    sweep = subprocess.Popen(
        [*NORMBENCH, "sweep", *words, *values, "--results", str(tmp_path)],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _stop_during_a_run(sweep, tmp_path)
        with watching(tmp_path) as screen:
            screen.wait_for("▶ 1 running")
            os.killpg(sweep.pid, signal.SIGCONT)
            assert screen.end() == 0
        assert sweep.wait(timeout=60) == 0
    finally:
        if sweep.poll() is None:
            os.killpg(sweep.pid, signal.SIGKILL)
        sweep.wait()
    left = "\n".join(screen.lines())
    assert "8 of 8 runs have ended" in left
    assert "all have ended" in left
    assert re.search(r"affine +■■ 0\.\d{4} +■■ 0\.\d{4}", left)
    assert "best     test/error" in left
