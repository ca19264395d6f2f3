"""What is written to a stream: a failure ends no run, text moves no cursor."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, Command
from hypothesis import given
from hypothesis import strategies as st
from records_made import A_RECORD, written

from normbench.config.identity import run_id
from normbench.config.schema import Choice, RunRecord
from normbench.records import store
from normbench.system.streams import clean

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="its streams")
NORMBENCH = (sys.executable, "-m", "normbench")
SEVERAL = """
import json, sys
from normbench.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["normbench", *words]
    try:
        main()
    except SystemExit as end:
        print("<end>", end.code)
"""
"""The program, once for each command that it is given: importing takes a moment."""
TINY = [*SMALL["cnn"], "tracker=none", "budget.max_steps=4", "evaluations=2"]
NASTY = "\x1b]0;owned\x07\x9b31m\x1b[2J\r\x7f\u202e"
"""A title for the terminal, colours, an empty screen, and text from right to left."""
ASIAN = "/data/花 データ"


def named(norm: str, seed: int = 0, path: str = ASIAN, **changes: Any) -> RunRecord:
    """A record whose norm and data are called so."""
    data = Choice(name="own", path=path)
    own = {"seed": seed, "norm": Choice(name=norm), "data": data}
    config = A_RECORD.config.model_copy(update=own)
    return A_RECORD.model_copy(
        update={"config": config, "run_id": run_id(config), **changes}
    )


def seen_on_a_terminal(*words: str, **environment: str) -> str:
    """What a command writes to a terminal."""
    screen, terminal = pty.openpty()
    with subprocess.Popen(
        words,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"} | environment,
        stdout=terminal,
        stderr=terminal,
    ):
        os.close(terminal)
        shown = b""
        while piece := read(screen):
            shown += piece
    os.close(screen)
    return shown.decode()


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the end of a terminal
        return b""


# What a stream can be that cannot be written: a descriptor, made anew for each process.


def full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def without_a_reader() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def gone() -> int:
    screen, terminal = pty.openpty()
    os.close(screen)
    return terminal


BROKEN = {each.__name__: each for each in (full, without_a_reader, gone)}
CLOSED = ["sh", "-c", 'exec "$@" 2>&-', "sh"]
NO_LARGER = ["sh", "-c", 'exec prlimit --fsize=64 "$@" 2>>"$LOG"', "sh"]

PROGRESS = """
import logging, sys, time, traceback, warnings
from normbench.system import streams
streams.install()
from rich.progress import Progress
from normbench.cli.console import Terminal
from normbench.cli.progress import Lines, SweepProgress, run_observer
for observer in (run_observer(), Lines()):
    observer.start("a run", 3)
    for step in range(3):
        observer.log({"step": step, "val/loss": 1.0})
        observer.note("é 花" + "." * 100)
    observer.warn("careful")
    observer.close()
sweep = SweepProgress(Terminal(stderr=True))
sweep.start(2, None)
for step in range(3):
    sweep.warn(f"careful {step}")
sweep.close()
print("progress", file=sys.stderr, flush=True)
warnings.warn("careful")
logging.warning("careful")
sys.stderr.flush()
print("done")
"""


@on_linux
def test_progress_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PROGRESS]
    environment = os.environ | {"LOG": str(tmp_path / "log"), "TERM": "xterm"}

    def out(words: list[str], stderr: int = subprocess.DEVNULL) -> tuple[int, str]:
        done = subprocess.run(
            words, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
        return done.returncode, done.stdout

    for name, broken in BROKEN.items():
        descriptor = broken()
        assert out(words, descriptor) == (0, "done\n"), name
        os.close(descriptor)
    assert out([*CLOSED, *words]) == (0, "done\n")
    assert out([*NO_LARGER, *words]) == (0, "done\n")
    assert (tmp_path / "log").stat().st_size == 64


READ_BY_NOBODY = """
import sys
from normbench.system import streams
streams.install()
for _ in range(5000):
    print("progress " * 10, file=sys.stderr)
print("done")
"""


@on_linux
def test_a_reader_that_does_not_read_blocks_no_progress() -> None:
    reader, writer = os.pipe()
    done = subprocess.run(
        [sys.executable, "-c", READ_BY_NOBODY],
        stdout=subprocess.PIPE,
        stderr=writer,
        timeout=60,
    )
    assert done.stdout == b"done\n"
    os.close(writer)
    os.close(reader)


@on_linux
def test_a_terminal_that_nobody_reads_blocks_no_progress() -> None:
    """With any room it counts as ready, and a write of more than that would block."""
    for filled in (False, True):
        screen, terminal = pty.openpty()
        if filled:  # until there is room for less than what is written next
            os.set_blocking(terminal, False)
            with suppress(BlockingIOError):
                while os.write(terminal, b"x" * 100):
                    pass
            os.set_blocking(terminal, True)
            os.read(screen, 600)
        long = READ_BY_NOBODY.replace("* 10", "* 400")
        done = subprocess.run(
            [sys.executable, "-c", long],
            stdout=subprocess.PIPE,
            stderr=terminal,
            timeout=60,
        )
        assert done.stdout == b"done\n", filled
        assert os.get_blocking(terminal), filled
        os.close(terminal)
        os.close(screen)


def test_a_slow_reader_gets_all_of_a_result() -> None:
    code = (
        "from normbench.system import streams\n"
        "streams.install(); print('x' * 300_000)\n"
        "assert not streams.lost_output()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE
    ) as process:
        time.sleep(2)
        assert process.stdout is not None
        assert len(process.stdout.read()) == 300_001
    assert process.returncode == 0


@on_linux
def test_a_closed_stream_gets_no_text_of_a_file(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from normbench.system import streams\n"
        "streams.install()\n"
        "with open('rows', 'w') as file:\n"
        "    print('progress', file=sys.stderr)\n"
        "    print('result')\n"
        "    os.write(2, b'from a library')\n"
    )
    for closed in ("0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"):
        words = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", code]
        assert subprocess.run(words, cwd=tmp_path).returncode == 0, closed
        assert (tmp_path / "rows").read_text() == "", closed


@on_linux
def test_a_result_that_cannot_be_written_is_one_line_and_exit_code_1(
    tmp_path: Path,
) -> None:
    written(tmp_path / "results/runs", named("batch"))
    commands = [["--version"], ["results", "--csv"], ["show", named("batch").run_id]]

    def ended(words: list[str], stdout: int | None = None) -> tuple[int, list[str]]:
        done = subprocess.run(
            words, cwd=tmp_path, stdout=stdout, stderr=subprocess.PIPE, text=True
        )
        return done.returncode, done.stderr.splitlines()

    why = "error: standard output cannot be written"
    for command in commands:
        told = {
            "full": [f"{why}: No space left on device"],
            "without_a_reader": [],
            "gone": [f"{why}: Input/output error"],
        }
        words = [*NORMBENCH, *command]
        for name in BROKEN if command == ["results", "--csv"] else ["full"]:
            descriptor = BROKEN[name]()
            assert ended(words, descriptor) == (1, told[name]), (name, command)
            os.close(descriptor)
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *NORMBENCH, "results"]
    assert ended(closed) == (1, [f"{why}: Bad file descriptor"])


@pytest.mark.slow
@on_linux
def test_a_run_whose_progress_cannot_be_written_is_recorded(tmp_path: Path) -> None:
    """Its result is then on a pipe, and its record on the disk."""
    for number, (name, broken) in enumerate(BROKEN.items()):
        descriptor = broken()
        words = ["train", *TINY, f"seed={number}", "checkpoint.every=1"]
        done = subprocess.run(
            [*NORMBENCH, *words, "--json"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=descriptor,
        )
        os.close(descriptor)
        assert done.returncode == 0, name
        finished = RunRecord.model_validate_json(done.stdout)
        assert finished.status == "ok" and finished.steps == 4, name
        folder = store.run_folder(tmp_path / "results/runs", finished.run_id)
        assert store.read(folder) == finished


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize("how", ["a log that cannot grow", *BROKEN])
def test_a_sweep_whose_progress_cannot_be_written_does_all_runs(
    how: str, tmp_path: Path
) -> None:
    words = [*NORMBENCH, "sweep", *TINY, "seed=range(0,5)", "engine.workers=2"]
    log = tmp_path / "log"
    broken = BROKEN.get(how)
    descriptor = broken() if broken else os.open(log, os.O_WRONLY | os.O_CREAT)
    with subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=descriptor, text=True
    ) as sweep:
        os.close(descriptor)
        if broken is None:
            # Its workers are there by then, and may write what they like.
            while not list(tmp_path.rglob("result.json")) and sweep.poll() is None:
                time.sleep(0.05)
            size = log.stat().st_size
            limit = ["prlimit", "--pid", str(sweep.pid), f"--fsize={size}"]
            subprocess.run(limit, check=True)
        out, _ = sweep.communicate(timeout=300)
    assert sweep.returncode == 0, out
    assert "5 ok" in out
    assert len(list(tmp_path.rglob("result.json"))) == 5


@pytest.mark.slow
@on_linux
def test_a_comparison_whose_reader_had_enough_does_all_runs(tmp_path: Path) -> None:
    arms = ["--arm", "norm=batch", "--arm", "norm=none", "--seeds", "6"]
    words = [*NORMBENCH, "compare", *SMALL["cnn"], "budget.max_steps=1", *arms]
    words += ["budget.epochs=1", "evaluations=1", "--rates", "0.1", "--workers", "2"]
    both = subprocess.run(
        ["sh", "-c", '"$@" 2>&1 | head -1', "sh", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "compare" in both.stdout
    assert len(list(tmp_path.rglob("result.json"))) == 12


def test_what_a_stream_cannot_encode_is_written_otherwise(tmp_path: Path) -> None:
    results = tmp_path / "花"
    for seed in range(3):
        written(results, named(f"é{seed}", seed))
    ids = sorted(path.parent.name for path in results.rglob("result.json"))
    for encoding in ("ascii", "cp1252", "utf-8", "utf-16"):
        words = (["--csv"], ["--json"], [])
        commands = [["results", *each, "--results", str(results)] for each in words]
        done = subprocess.run(
            [sys.executable, "-c", SEVERAL, json.dumps(commands)],
            env=os.environ | {"PYTHONIOENCODING": encoding},
            capture_output=True,
        )
        texts = done.stdout.decode(encoding).split("<end> 0\n")
        assert len(texts) == 4 and texts[-1] == "", (encoding, done)
        rows = list(csv.DictReader(io.StringIO(texts[0])))
        assert sorted(row["run_id"] for row in rows) == ids, encoding
        plain = json.loads(texts[1])
        assert {each["config"]["data"]["path"] for each in plain} == {ASIAN}, encoding
        table = texts[2]
        assert all(key in table for key in ids), encoding
        as_is = encoding.startswith("utf")
        paths = {row["data.path"] for row in rows}
        escaped = "/data/\\u82b1 \\u30c7\\u30fc\\u30bf"
        assert paths == {ASIAN if as_is else escaped}, encoding
        assert ("花" in table) == as_is, encoding


def test_no_command_lets_a_record_command_the_terminal(tmp_path: Path) -> None:
    results = tmp_path / "runs"
    for seed, status in enumerate(("ok", "ok", "failed")):
        bad = named(f"bat{NASTY}ch", seed, NASTY, status=status, error=NASTY)
        bad = bad.model_copy(update={"metrics": {f"test/{NASTY}": 1.0}})
        written(results, bad)
    commands = [
        ["results"],
        ["results", "--csv"],
        ["results", "--json"],
        ["results", "--by", "norm"],
        ["results", "--where", f"norm=bat{NASTY}"],
        ["results", "--where", f"{NASTY}=1"],
        ["show", bad.run_id],
        ["show", bad.run_id, "--json"],
        ["show", NASTY],
        ["status"],
        ["status", "--results", f"{results}{NASTY}"],
        [f"no{NASTY}"],
        ["list", f"no{NASTY}"],
    ]
    shown = seen_on_a_terminal(
        *(sys.executable, "-c", SEVERAL, json.dumps(commands)),
        NORMBENCH_RESULTS=str(results),
    )
    texts = re.split(r"<end> \d\r\n", shown)
    assert len(texts) == len(commands) + 1, shown
    for command, text in zip(commands, texts, strict=False):
        assert "Traceback" not in text, (command, text)
        assert_harmless(text, command)
        if "--json" in command:
            json.loads(text)
    assert "owned" in texts[0]


def assert_harmless(shown: str, what: object) -> None:
    """Of all commands only rich's colours, and the lines' own ends, are in `shown`."""
    rest = re.sub(r"\x1b\[[0-9;]*m|\r\n", "", shown)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", rest), (what, rest)
    assert "\x1b[31m" not in shown and "\x1b[2J" not in shown, what


BAR = f"""
from normbench.system import streams
streams.install()
from normbench.cli.progress import Lines, SweepProgress, run_observer
from normbench.cli.console import Terminal
nasty = {NASTY!r} + "[/red]"
for observer in (run_observer(), Lines()):
    observer.start(nasty, 2)
    observer.log({{"step": 1, nasty: 1.0, "val/loss": 1.0}})
    observer.note(nasty)
    observer.warn(nasty)
    observer.close()
sweep = SweepProgress(Terminal(stderr=True))
sweep.start(2, None)
sweep.tally.running["a"] = nasty
sweep.warn(nasty)
sweep.unrecorded("a", nasty)
sweep.close()
"""


def test_progress_does_not_let_a_name_command_the_terminal() -> None:
    shown = seen_on_a_terminal(sys.executable, "-c", BAR)
    assert "\\u001b]0;owned\\u0007" in shown
    for command in ("\x1b]", "\x9b", "\x07", "\x1b[2J\\", "\x7f", "\u202e"):
        assert command not in shown, repr(command)


@given(st.text())
def test_clean_text_commands_nothing_and_json_of_it_is_the_same(text: str) -> None:
    cleaned = clean(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", cleaned)
    quoted = json.dumps(text, ensure_ascii=False)
    assert json.loads(clean(quoted)) == text


def test_csv_has_no_formula_and_its_numbers_are_numbers(
    command: Command, tmp_path: Path
) -> None:
    formulas = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\uff1d1"]
    for seed, formula in enumerate(formulas):
        metrics = {"test/error": -0.5, "=cmd()": 1e-9}
        written(tmp_path, named(formula, seed, formula, metrics=metrics))
    done = command("results", "--csv", "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert sorted(row["norm"] for row in rows) == sorted(f"'{f}" for f in formulas)
    assert all(row["data.path"] == row["norm"] for row in rows)
    assert {(row["test/error"], row["'=cmd()"]) for row in rows} == {("-0.5", "1e-09")}
    by = command("results", "--by", "norm", "--csv", "--results", str(tmp_path))
    cells = list(csv.DictReader(io.StringIO(by.stdout)))
    assert sorted(cell["norm"] for cell in cells) == sorted(f"'{f}" for f in formulas)
    assert {cell["mean"] for cell in cells} == {"-0.5"}


def test_csv_has_no_formula_for_another_delimiter(
    command: Command, tmp_path: Path
) -> None:
    """A spreadsheet may split at semicolons, whatever this program writes."""
    written(tmp_path, named("a;=1+1;b", path="c;d", metrics={"test/error": 0.5}))
    done = command("results", "--csv", "--results", str(tmp_path))
    assert '"a;\'=1+1;b"' in done.stdout and '"c;d"' in done.stdout, done.stdout
    assert ",0.5" in done.stdout  # a number stays bare
    for line in done.stdout.splitlines():
        assert not any(cell[:1] == "=" for cell in line.split(";")), line
