"""A sweep seen from outside: what its files say, and what a terminal shows of it."""

import fcntl
import io
import itertools
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, Command
from hypothesis import given
from hypothesis import strategies as st
from records_made import a_record, written
from rich.console import Console

from normbench.cli.watch import MARKS, _shares, _view
from normbench.config.identity import run_id
from normbench.config.schema import Choice, RunConfig, RunRecord, Skipped
from normbench.errors import RequestError
from normbench.records import store
from normbench.sweeps.manifest import Announcement, Manifest, folders, read_manifest
from normbench.sweeps.watch import Watch

KNOWN: dict[str, RunConfig] = {}
"""The configs that `grid` made, by run id."""


@cache
def base() -> RunRecord:
    return a_record("norm=batch")


def grid(**axes: Sequence[Any]) -> list[str]:
    """The run ids of every combination of these values; `norm` is a name."""
    keys = []
    for values in itertools.product(*axes.values()):
        changed = dict(zip(axes, values, strict=True))
        if "norm" in changed:
            changed["norm"] = Choice(name=changed["norm"], of=changed["norm"])
        if "batch_size" in changed:
            changed["norm_batch"] = changed["batch_size"]
        config = base().config.model_copy(update=changed)
        keys.append(run_id(config))
        KNOWN[keys[-1]] = config
    return keys


def said(
    *keys: str, skipped: Sequence[str] = (), todo: Sequence[str] | None = None
) -> Manifest:
    return Manifest(
        title="sweep",
        workers=2,
        runs={key: KNOWN[key] for key in keys},
        skipped={key: Skipped(config=KNOWN[key], reason="odd") for key in skipped},
        todo=list(keys if todo is None else todo),
    )


def the_record(key: str, value: float | None = 0.25, **changes: Any) -> RunRecord:
    own = {"run_id": key, "config": KNOWN[key], "metrics": {"test/error": value}}
    return base().model_copy(update=own | changes)


def ended(results: Path, key: str, value: float | None = 0.25, **changes: Any) -> None:
    written(results, the_record(key, value, **changes))


def before_the_sweep(results: Path, key: str) -> None:
    """Date a record back."""
    result = store.run_folder(results, key) / store.RESULT
    os.utime(result, (1e9, 1e9))


@pytest.fixture
def announcement(tmp_path: Path) -> Iterator[Announcement]:
    with Announcement(tmp_path) as announcement:
        yield announcement


NORMS = ("batch", "group")
NORMBENCH = (sys.executable, "-m", "normbench")
SIZES = (2, 32)
SEEDS = (0, 1)


def test_a_clock_that_is_wrong_ends_no_sweep(
    announcement: Announcement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = said(*grid(norm=NORMS, seed=SEEDS))
    for now in (-1e9, -0.5, 2.0**32, 4e11):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        announcement.say(manifest)
        (folder,) = folders(tmp_path)
        assert read_manifest(folder) == manifest, now


def test_what_a_sweep_says_is_there_while_it_runs_and_until_the_next(
    tmp_path: Path,
) -> None:
    manifest = said(*grid(norm=NORMS, seed=SEEDS))
    with Announcement(tmp_path) as first:
        assert folders(tmp_path) == []
        first.say(manifest)
        (folder,) = folders(tmp_path)
        assert store.is_running(folder)
        assert read_manifest(folder) == manifest
        with Announcement(tmp_path) as second:
            second.say(manifest)
            assert len(folders(tmp_path)) == 2
    assert not store.is_running(folder)
    with Announcement(tmp_path) as third:
        third.say(manifest)
        assert len(folders(tmp_path)) == 1
    assert len(folders(tmp_path)) == 1


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    with Announcement(tmp_path) as announcement:
        announcement.say(said(*grid(seed=SEEDS)))
    (file,) = tmp_path.glob("sweeps/*/*.gz")
    for content in (b"", b"{}", file.read_bytes()[:-9]):
        file.write_bytes(content)
        with pytest.raises(RequestError, match=r"manifest.json.gz is no manifest"):
            Watch(tmp_path).look()


def test_a_record_and_a_manifest_of_odd_values_are_shown(
    tmp_path: Path, announcement: Announcement
) -> None:
    """Numbers that have no mean, and options of a norm that are mappings."""
    keys = grid(seed=range(4))
    for option in ({"a": 1}, {"a": [1]}, [{"a": 1}]):
        config = base().config.model_copy(update={"norm": Choice(name="x", o=option)})
        keys.append(run_id(config))
        KNOWN[keys[-1]] = config
    announcement.say(said(*keys))
    for key, value in zip(keys, (1.7e308, 1.7e308, -1e100, 0.5), strict=False):
        ended(tmp_path, key, value)
    shown = Watch(tmp_path).look()
    assert [(cell.n, cell.mean) for cell in shown.cells if cell.n] == [(1, 0.5)]
    assert len(shown.cells) == 4
    json.dumps(shown.plain(), allow_nan=False)


def test_a_run_that_may_not_be_looked_into_is_named_and_left_out(
    tmp_path: Path, announcement: Announcement, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = grid(seed=SEEDS)
    announcement.say(said(a, b))
    ended(tmp_path, a)
    closed = store.run_folder(tmp_path, b)
    closed.mkdir(parents=True)
    plain = os.stat
    for refused in (closed, closed.parent):

        def stat(path: Any, refused: Path = refused, **options: Any) -> os.stat_result:
            if not isinstance(path, int) and refused in Path(path).parents:
                raise PermissionError(13, "Permission denied", str(path))
            return plain(path, **options)

        monkeypatch.setattr(os, "stat", stat)
        shown = Watch(tmp_path).look()
        (named,) = shown.left_out
        assert str(closed) in named and named.endswith(": Permission denied")
        assert shown.states() == {"ok": 1, "missing": 1}
        monkeypatch.setattr(os, "stat", plain)


def test_results_that_cannot_be_written_are_a_wrong_request(tmp_path: Path) -> None:
    (tmp_path / "sweeps").touch()
    with pytest.raises(RequestError, match="cannot be written"):
        Announcement(tmp_path).say(said(*grid(seed=SEEDS)))


def test_a_run_goes_from_missing_to_running_to_its_end(
    tmp_path: Path, announcement: Announcement
) -> None:
    ok, diverges, fails, stops = grid(lr=(0.1, 1.0, 2.0, 3.0))
    (never,) = grid(lr=[4.0])
    announcement.say(said(ok, diverges, fails, stops, skipped=[never]))
    watch = Watch(tmp_path)

    def states() -> list[str]:
        return [cell.states[0] for cell in watch.look().cells]

    assert states() == ["missing"] * 4 + ["skipped"]
    with store.RunWriter(tmp_path, ok) as writer:
        writer.begin(KNOWN[ok])
        assert states()[0] == "running"
        writer.finish(the_record(ok))
        assert states()[0] == "ok"
    ended(tmp_path, diverges, None, status="diverged")
    ended(tmp_path, fails, status="failed", error="Traceback\nOSError: odd", metrics={})
    with store.RunWriter(tmp_path, stops) as writer:
        writer.begin(KNOWN[stops])
    assert states() == ["ok", "diverged", "failed", "interrupted", "skipped"]
    snapshot = watch.look()
    assert snapshot.failures == {fails: "OSError: odd"}
    assert snapshot.pending() == 1
    assert snapshot.active


def test_a_run_that_is_done_again_has_not_ended(
    tmp_path: Path, announcement: Announcement
) -> None:
    (again, left) = grid(seed=SEEDS)
    for key in (again, left):
        ended(tmp_path, key)
        before_the_sweep(tmp_path, key)
    announcement.say(said(again, left, todo=[again]))
    watch = Watch(tmp_path)
    assert watch.look().cells[0].states == ("missing", "ok")
    ended(tmp_path, again, 0.5)
    (cell,) = watch.look().cells
    assert cell.states == ("ok", "ok")
    assert cell.mean == pytest.approx(0.375)


def test_cells_differ_in_as_few_keys_as_tell_them_apart(
    tmp_path: Path, announcement: Announcement
) -> None:
    tuned = [
        *grid(norm=["batch"], batch_size=[2], lr=[0.1], seed=SEEDS),
        *grid(norm=["group"], batch_size=[2], lr=[0.2], seed=SEEDS),
        *grid(norm=["batch"], batch_size=[8], lr=[0.4], seed=SEEDS),
    ]
    announcement.say(said(*tuned))
    snapshot = Watch(tmp_path).look()
    assert snapshot.by == ["norm", "batch_size"]
    assert snapshot.column == "batch_size"
    assert [cell.by for cell in snapshot.cells] == [
        {"norm": "batch", "batch_size": 2},
        {"norm": "batch", "batch_size": 8},
        {"norm": "group", "batch_size": 2},
    ]
    assert all(len(cell.states) == 2 for cell in snapshot.cells)


def test_one_key_has_no_columns_and_one_cell_no_key(
    tmp_path: Path, announcement: Announcement
) -> None:
    announcement.say(said(*grid(norm=NORMS, seed=SEEDS)))
    watch = Watch(tmp_path)
    assert (watch.look().by, watch.look().column) == (["norm"], None)
    announcement.say(said(*grid(seed=SEEDS)))
    assert [cell.by for cell in watch.look().cells] == [{}]


def test_the_best_cell_is_the_one_with_the_best_mean(
    tmp_path: Path, announcement: Announcement
) -> None:
    a, b, c, d = grid(norm=NORMS, seed=SEEDS)
    announcement.say(said(a, b, c, d))
    watch = Watch(tmp_path)
    ended(tmp_path, a, 0.1)
    ended(tmp_path, b, 0.5)
    assert watch.look().extremes() == {}
    ended(tmp_path, c, 0.2)
    ended(tmp_path, d, None)
    ((best, worst),) = watch.look().extremes().values()
    assert (best.by, best.mean, best.n) == ({"norm": "group"}, 0.2, 1)
    assert (worst.by, worst.mean, worst.n) == ({"norm": "batch"}, 0.3, 2)
    for key, error in {a: 0.1, b: 0.1, c: 0.2, d: 0.2}.items():
        ended(tmp_path, key, error, direction="maximize")
    ((best, _),) = Watch(tmp_path).look().extremes().values()
    assert best.by == {"norm": "group"}


def test_a_look_reads_only_what_has_changed(
    tmp_path: Path, announcement: Announcement, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = grid(norm=NORMS, batch_size=SIZES, seed=SEEDS)
    announcement.say(said(*keys))
    watch = Watch(tmp_path)
    opened: list[str] = []
    read, lock = store.read, store.is_running

    def reading(folder: Path) -> RunRecord | None:
        opened.append(folder.name)
        return read(folder)

    def asking(folder: Path) -> bool:
        if folder.name in keys:
            opened.append(folder.name)
        return lock(folder)

    monkeypatch.setattr(store, "read", reading)
    monkeypatch.setattr(store, "is_running", asking)
    for key in keys[:4]:
        ended(tmp_path, key)
    with store.RunWriter(tmp_path, keys[4]) as writer:
        writer.begin(KNOWN[keys[4]])
    watch.look()
    assert sorted(opened) == sorted(keys[:5])
    opened.clear()
    watch.look()
    assert opened == []
    ended(tmp_path, keys[5])
    watch.look()
    assert opened == [keys[5]]


def test_sweeps_on_one_folder_are_seen_as_one(tmp_path: Path) -> None:
    keys = grid(norm=NORMS, seed=SEEDS)
    with Announcement(tmp_path) as first, Announcement(tmp_path) as second:
        first.say(said(*keys[:2]))
        watch = Watch(tmp_path)
        assert watch.look().states().total() == 2
        second.say(said(*keys[2:]))
        assert watch.look().states().total() == 4
    snapshot = watch.look()
    assert not snapshot.active
    with Announcement(tmp_path) as third:
        third.say(said(*keys[:1]))  # which takes the folders of the others away
        assert watch.look().active


def test_time_left_is_learnt_from_the_runs_that_have_ended(
    tmp_path: Path, announcement: Announcement
) -> None:
    keys = grid(seed=SEEDS, norm=NORMS)
    announcement.say(said(*keys))
    watch = Watch(tmp_path)
    assert watch.look().left is None
    assert watch.look().rate is None
    ended(tmp_path, keys[0])  # 3.5 seconds; three are left, for two workers
    assert watch.look().left == pytest.approx(3.5 * 3 / 2)
    for key in keys[1:]:
        ended(tmp_path, key)
    assert watch.look().left == 0.0


@given(st.lists(st.sampled_from(sorted(MARKS)), min_size=9), st.integers(7, 80))
def test_no_state_is_left_out_of_a_bar_for_being_rare(
    states: list[str], width: int
) -> None:
    shown = _shares(states, width)
    assert len(shown) == width
    assert set(shown) == set(states)


STYLE = re.compile(r"\x1b\[[0-9;]*m")


class Screen:
    """A process in a terminal of its own, and all that it has written there."""

    def __init__(self, arguments: list[str], lines: int) -> None:
        self.written = ""
        self.process, self._terminal = _in_a_terminal(arguments, lines)

    def wait_for(self, pattern: str, seconds: float = 60) -> str:
        """Until what was written matches; all of it."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, STYLE.sub("", self.written)):
            assert time.monotonic() < deadline, self.written
            assert self._read(), self.written
        return self.written

    def press(self, key: bytes) -> None:
        os.write(self._terminal, key)

    def end(self, seconds: float = 60) -> int:
        """Its exit code, once it has ended by itself."""
        deadline = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < deadline, self.written
        return self.process.wait(timeout=10)

    def lines(self) -> list[str]:
        """What is left on the screen once the view is gone."""
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
        announcement.say(said(*keys))
    for key in keys:
        ended(tmp_path, key)
    snapshot = Watch(tmp_path).look()
    marks = "■" * 8
    fits = {120: f"{marks} 9/9 0.2500", 60: f"{marks} 0.2500", 45: marks, 20: ""}
    for columns, cell in fits.items():
        printed = io.StringIO()
        console = Console(file=printed, width=columns, force_terminal=False)
        console.print(_view(snapshot, console, max_lines=None))
        lines = printed.getvalue().splitlines()
        assert max(map(len, lines)) <= columns
        row = next(line for line in lines if line.startswith("batch"))
        assert cell in row, columns
        assert (" 9/9" in row, "0.25" in row) == (columns == 120, columns > 45)


def test_ctrl_c_ends_watching_and_leaves_the_terminal_clean(tmp_path: Path) -> None:
    keys = grid(lr=[i / 100 for i in range(1, 31)])
    with Announcement(tmp_path) as announcement:
        announcement.say(said(*keys))
        for key in keys[:10]:
            ended(tmp_path, key)
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


def test_a_terminal_that_knows_no_more_gets_one_picture(
    command: Command, invoke: Command, tmp_path: Path
) -> None:
    ok, other = grid(norm=NORMS)
    with Announcement(tmp_path) as announcement:
        announcement.say(said(ok, other))
        ended(tmp_path, ok)
        watch = ["watch", "--results", str(tmp_path)]
        plain = command(*watch, PYTHONUTF8="0", PYTHONIOENCODING="ascii")
        assert plain.returncode == 0, plain.stderr
        assert "\x1b" not in plain.stdout
        assert "# 1 ok  . 1 to come" in plain.stdout
        told = json.loads(invoke(*watch, "--json").stdout)
    assert (told["runs"], told["ok"], told["missing"]) == (2, 1, 1)
    assert told["active"] is True
    assert [cell["by"] for cell in told["cells"]] == [
        {"norm": "batch"},
        {"norm": "group"},
    ]
    stopped = invoke(*watch).stdout
    assert "stopped; the same command continues it" in stopped


def test_without_a_sweep_it_says_so(invoke: Command) -> None:
    told = invoke("watch", "--results", "nowhere")
    assert told.returncode == 2
    assert told.stderr.startswith("error: no sweep has run in --results nowhere")


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
