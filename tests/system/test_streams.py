"""A write to a stream that fails or blocks does not stop a run."""

import os
import pty
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import SMALL
from records_made import A_RECORD, written

from normbench.config.schema import RunRecord
from normbench.records import store

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="its streams")
NORMBENCH = (sys.executable, "-m", "normbench")
TINY = [*SMALL["cnn"], "tracker=none", "budget.max_steps=4", "evaluations=2"]


def full_disk() -> int:
    """Open a file descriptor whose writes fail: the disk is full."""
    return os.open("/dev/full", os.O_WRONLY)


def pipe_without_a_reader() -> int:
    """Open a file descriptor whose writes fail: a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def closed_terminal() -> int:
    """Open a file descriptor whose writes fail: a terminal that was closed."""
    screen, terminal = pty.openpty()
    os.close(screen)
    return terminal


BROKEN = {
    function.__name__: function
    for function in (full_disk, pipe_without_a_reader, closed_terminal)
}
CLOSED = ["sh", "-c", 'exec "$@" 2>&-', "sh"]
WITH_SIZE_LIMIT = ["sh", "-c", 'exec prlimit --fsize=64 "$@" 2>>"$LOG"', "sh"]

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
def test_progress_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PROGRESS]
    environment = os.environ | {"LOG": str(tmp_path / "log"), "TERM": "xterm"}

    def result(words: list[str], stderr: int = subprocess.DEVNULL) -> tuple[int, str]:
        done = subprocess.run(
            words, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
        return done.returncode, done.stdout

    for name, open_descriptor in BROKEN.items():
        descriptor = open_descriptor()
        assert result(words, descriptor) == (0, "done\n"), name
        os.close(descriptor)
    assert result([*CLOSED, *words]) == (0, "done\n")
    assert result([*WITH_SIZE_LIMIT, *words]) == (0, "done\n")
    assert (tmp_path / "log").stat().st_size == 64


MUCH_PROGRESS = """
import sys
from normbench.system import streams
streams.install()
for _ in range(5000):
    print("progress " * int(sys.argv[1]), file=sys.stderr)
print("done")
"""


@on_linux
def test_progress_does_not_wait_for_a_pipe_or_terminal_without_a_reader() -> None:
    """`poll` reports a terminal as ready if it has room, but a long write blocks."""
    for kind in ("pipe", "terminal", "filled terminal"):
        reader, writer = os.pipe() if kind == "pipe" else pty.openpty()
        if kind == "filled terminal":  # it has room for less than a line
            os.set_blocking(writer, False)
            with suppress(BlockingIOError):
                while os.write(writer, b"x" * 100):
                    pass
            os.set_blocking(writer, True)
            os.read(reader, 600)
        done = subprocess.run(
            [sys.executable, "-c", MUCH_PROGRESS, "10" if kind == "pipe" else "400"],
            stdout=subprocess.PIPE,
            stderr=writer,
            timeout=60,
        )
        assert done.stdout == b"done\n", kind
        assert os.get_blocking(writer), kind
        os.close(writer)
        os.close(reader)


def test_a_slow_reader_gets_a_whole_result() -> None:
    code = (
        "from normbench.system import streams\n"
        "streams.install(); print('x' * 300_000)\n"
        "assert not streams.lost_output()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE
    ) as process:
        time.sleep(1.5)
        assert process.stdout is not None
        assert len(process.stdout.read()) == 300_001
    assert process.returncode == 0


@on_linux
def test_output_to_a_closed_stream_is_not_written_into_a_file(tmp_path: Path) -> None:
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
    written(tmp_path / "results/runs", A_RECORD)
    prefix = "error: standard output cannot be written"
    messages = {
        "full_disk": [f"{prefix}: No space left on device"],
        "pipe_without_a_reader": [],
        "closed_terminal": [f"{prefix}: Input/output error"],
        "closed": [f"{prefix}: Bad file descriptor"],
    }
    for name, message in messages.items():
        shell = ["sh", "-c", 'exec "$@" >&-', "sh"] if name == "closed" else []
        descriptor = BROKEN.get(name, full_disk)()
        done = subprocess.run(
            [*shell, *NORMBENCH, "results", "--csv"],
            cwd=tmp_path,
            stdout=descriptor,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(descriptor)
        assert (done.returncode, done.stderr.splitlines()) == (1, message), name


@pytest.mark.slow
@on_linux
def test_a_run_whose_progress_cannot_be_written_is_recorded(tmp_path: Path) -> None:
    """The command prints its result to a pipe and writes its record to the disk."""
    for number, (name, open_descriptor) in enumerate(BROKEN.items()):
        descriptor = open_descriptor()
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
@pytest.mark.parametrize("stderr", ["a log that cannot grow", *BROKEN])
def test_a_sweep_whose_progress_cannot_be_written_executes_all_runs(
    stderr: str, tmp_path: Path
) -> None:
    words = [*NORMBENCH, "sweep", *TINY, "seed=range(0,5)", "engine.workers=2"]
    log = tmp_path / "log"
    is_log = stderr not in BROKEN
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT) if is_log else BROKEN[stderr]()
    with subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=descriptor, text=True
    ) as sweep:
        os.close(descriptor)
        if is_log:
            # After the first result, all workers have started without the limit.
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
def test_a_comparison_whose_reader_closes_the_pipe_executes_all_runs(
    tmp_path: Path,
) -> None:
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
