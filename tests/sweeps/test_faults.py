"""Sweeps that are hurt on purpose: after each, the same command completes the plan.

The program has no hooks for this. A module of the user's (FAULTS) makes a process kill
itself, its parent or its group at a chosen write, once; it also counts how often a run
is begun. Every case ends with the same command, and with the metrics of runs that
nothing happened to.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import SMALL
from sweeps_made import (
    PATIENCE,
    Process,
    Sweep,
    undisturbed,
    wait_until,
)

from normbench.records import store
from normbench.records.store import Results
from normbench.sweeps.plan import plan_state
from normbench.training.experiment import run_one

pytestmark = pytest.mark.slow


def test_a_killed_worker_is_replaced_and_its_run_goes_on(tmp_path: Path) -> None:
    hurt = Sweep(tmp_path, "seed=0,1", "engine.workers=2")
    first, _ = hurt.ids
    output = hurt.run({first: ["half history.jsonl 8 me"]})
    assert f"the worker of run {first} was killed by SIGKILL" in output
    assert hurt.steps() == [[1, 6], [1]]
    hurt.check()


def test_workers_whose_parent_is_killed_stop_with_a_checkpoint(
    tmp_path: Path,
) -> None:
    hurt = Sweep(tmp_path, "seed=0,1", "engine.workers=2")
    first, _ = hurt.ids
    hurt.run({first: ["half history.jsonl 8 parent"]}, code=-signal.SIGKILL)
    assert first not in hurt.finished
    hurt.complete()
    assert hurt.steps()[0] == [1, 9]
    assert hurt.steps()[1].count(1) == 1


def test_a_record_cut_at_any_byte_is_a_run_to_do(tmp_path: Path) -> None:
    hurt = Sweep(tmp_path, "seed=0")
    (key,) = hurt.ids
    whole = undisturbed(hurt.plan.runs[key])
    shutil.copytree(whole, hurt.run_folder(key))
    result = hurt.run_folder(key) / store.RESULT
    content = result.read_bytes().rstrip()
    assert list(plan_state(hurt.plan, Results(hurt.results)).finished) == [key]
    for length in range(len(content)):
        result.write_bytes(content[:length])
        assert list(plan_state(hurt.plan, Results(hurt.results)).missing) == [key]
    hurt.complete()
    assert hurt.steps() == [[1]]


WRITES = {
    "half config.yaml 1": [1],
    "before config.yaml 1": [1],
    "half history.jsonl 1": [1, 1],
    "half history.jsonl 28": [1, 26],
    "half checkpoint.pt 1": [1, 1],
    "half checkpoint.pt 2": [1, 6],
    "before checkpoint.pt 2": [1, 6],
    "half checkpoint.pt 3": [1, 11],
    "after checkpoint.pt 2": [1, 11],
    "half weights.safetensors 1": [1, 31],
    "before weights.safetensors 1": [1, 31],
    "after weights.safetensors 1": [1, 31],
    "half result.json 1": [1, 31],
    "before result.json 1": [1, 31],
    "after result.json 1": [1],
    "unlink checkpoint.pt 1": [1],
}
"""Where a worker is killed, and the steps that its run is begun at."""


def test_a_worker_may_be_killed_at_every_write(tmp_path: Path) -> None:
    hurt = Sweep(tmp_path, f"seed=range(0,{len(WRITES)})", "keep_weights=true")
    at = {key: [f"{write} me"] for key, write in zip(hurt.ids, WRITES, strict=True)}
    output = hurt.run(at)
    assert output.count("begins once more") == len(WRITES)
    assert dict(zip(WRITES, hurt.steps(), strict=True)) == WRITES
    hurt.check()


def test_all_processes_may_be_killed_at_once(tmp_path: Path) -> None:
    writes = [
        "half config.yaml 1",
        "half history.jsonl 7",
        "before checkpoint.pt 2",
        "half result.json 1",
        "after result.json 1",
    ]
    hurt = Sweep(tmp_path, f"seed=range(0,{len(writes)})", "engine.workers=1")
    at = {key: [f"{write} both"] for key, write in zip(hurt.ids, writes, strict=True)}
    for _ in writes:
        hurt.run(at, code=-signal.SIGKILL)
    hurt.complete()
    assert hurt.steps() == [[1], [1, 6], [1, 6], [1, 31], [1]]


def test_a_picture_may_be_half_written(tmp_path: Path) -> None:
    style = [*SMALL["style"], "tracker=none", "budget.max_steps=2", "evaluations=1"]
    hurt = Sweep(tmp_path, "checkpoint.every=1", recipe=style)
    (key,) = hurt.ids
    picture = next(undisturbed(hurt.plan.runs[key]).glob("*.png"))
    hurt.run({key: [f"half {picture.name} 1 me"]})
    assert hurt.steps() == [[1, 3]]
    hurt.check()


def test_a_run_whose_worker_dies_twice_may_be_finished_after_all(
    tmp_path: Path,
) -> None:
    hurt = Sweep(tmp_path, "seed=0,1")
    failed, finished = hurt.ids
    history = ["half history.jsonl 8 me", "half history.jsonl 9 me"]
    at = {failed: history, finished: [history[0], "after result.json 1 me"]}
    output = hurt.run(at, code=1)
    assert "1 ok, 1 failed" in output or "1 failed, 1 ok" in output
    assert set(hurt.finished) == {finished}
    hurt.complete()
    assert hurt.steps() == [[1, 6, 11], [1, 6]]


def test_sigterm_to_a_worker_moves_its_run_to_another(tmp_path: Path) -> None:
    hurt = Sweep(tmp_path, "seed=0,1", "engine.workers=2")
    first, _ = hurt.ids
    process = hurt.start(slow=0.3)
    hurt.wait_for_rows(first, 7)
    os.kill(hurt.begun()[first][0].pid, signal.SIGTERM)
    output = hurt.end(process)
    assert "exit code 143" in output
    assert hurt.steps()[0][1] > 7
    hurt.check()


def interrupt(process: Process) -> None:
    """What a terminal does at Ctrl-C."""
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.parametrize("how", ["once", "twice", "many times", "SIGTERM"])
def test_an_interrupted_sweep_leaves_no_process(how: str, tmp_path: Path) -> None:
    hurt = Sweep(tmp_path, "seed=0,1,2", "engine.workers=2")
    process = hurt.start(slow=0.3)
    hurt.wait_for_rows(hurt.ids[0], 7)
    if how == "SIGTERM":
        os.kill(process.pid, signal.SIGTERM)
    else:
        for _ in range({"once": 1, "twice": 2, "many times": 20}[how]):
            interrupt(process)
            time.sleep(0.05)
    output = hurt.end(process, code=None)
    # One more while Python itself is ending ends it by the signal.
    codes = {130, -signal.SIGINT} if how == "many times" else {130}
    assert process.returncode in codes, output
    assert "interrupted; run the same command again to continue" in output
    hurt.complete()
    assert hurt.steps()[0][0] == 1
    assert hurt.steps()[0][1] > 5


def test_an_interrupt_waits_for_a_long_step(tmp_path: Path) -> None:
    hurt = Sweep(tmp_path, "seed=0", "budget.max_steps=6")
    process = hurt.start(slow=4)
    hurt.wait_for_rows(hurt.ids[0], 2)
    interrupt(process)
    hurt.end(process, code=130)
    hurt.complete()
    assert hurt.steps()[0][1] > 2


def test_an_interrupt_does_not_wait_for_what_comes_before_training(
    tmp_path: Path,
) -> None:
    hurt = Sweep(tmp_path, "seed=0")
    (hurt.folder / "dull.py").write_text(
        "import pathlib, time\n"
        "from normbench.training import experiment\n"
        "def make_task(*args):\n"
        "    pathlib.Path('waits').touch()\n"
        f"    time.sleep({PATIENCE})\n"
        "experiment.make_task = make_task\n"
    )
    process = hurt.start(None, "--module", "dull")
    wait_until((hurt.folder / "waits").exists, "the run is being set up")
    interrupt(process)
    hurt.end(process, code=130)
    assert not hurt.begun()[hurt.ids[0]]


@pytest.mark.parametrize("when", ["planning", "worker"])
def test_a_sweep_may_be_interrupted_before_its_first_run(
    when: str, tmp_path: Path
) -> None:
    hurt = Sweep(tmp_path, "seed=0,1", "engine.workers=2")
    process = hurt.start()
    wait_until((hurt.done / when).exists, when)
    interrupt(process)
    hurt.end(process, code=130)
    hurt.complete()


def test_racing_sweeps_do_each_run_once(tmp_path: Path) -> None:
    hurt = Sweep(tmp_path, "seed=range(0,6)", "engine.workers=2")
    racers = [hurt.start(slow=0.05) for _ in range(3)]
    for racer in racers:
        hurt.end(racer)
    assert hurt.steps() == [[1]] * 6
    hurt.check()


def test_a_worker_may_die_while_it_has_nothing_to_do(tmp_path: Path) -> None:
    hurt = Sweep(tmp_path, "seed=0,1", "engine.workers=2")
    first, second = hurt.ids
    with store.RunWriter(hurt.results, second):
        process = hurt.start()
        result = hurt.run_folder(first) / store.RESULT
        wait_until(result.exists, "the first run is finished")
        os.kill(hurt.begun()[first][0].pid, signal.SIGKILL)
    hurt.end(process)
    assert hurt.steps() == [[1], [1]]
    hurt.check()


def test_a_death_that_is_noticed_after_the_timeout_is_a_death(
    tmp_path: Path,
) -> None:
    hurt = Sweep(tmp_path, "seed=0")
    (key,) = hurt.ids
    process = hurt.start(None, "engine.timeout=15", slow=0.3)
    hurt.wait_for_rows(key, 1)
    os.kill(process.pid, signal.SIGSTOP)
    os.kill(hurt.begun()[key][0].pid, signal.SIGKILL)
    time.sleep(15)
    os.kill(process.pid, signal.SIGCONT)
    output = hurt.end(process, code=None)
    assert "was killed by SIGKILL; it begins once more" in output
    hurt.complete()


@pytest.mark.parametrize(
    ("does", "code", "words"),
    [
        ("raise ImportError('not here')", 2, "a worker cannot start: --module only"),
        ("os.kill(os.getpid(), 9)", 1, "3 workers one after another died"),
    ],
)
def test_workers_that_cannot_start_end_the_sweep(
    does: str, code: int, words: str, tmp_path: Path
) -> None:
    hurt = Sweep(tmp_path, "seed=range(0,4)", "engine.workers=2")
    (hurt.folder / "only.py").write_text(
        "import multiprocessing, os\n"
        f"if multiprocessing.parent_process() is not None:\n    {does}\n"
    )
    output = hurt.run(None, "--module", "only", code=code)
    assert words in output
    assert not list(hurt.results.glob("??/*"))


def test_the_results_folder_may_be_removed_meanwhile(tmp_path: Path) -> None:
    hurt = Sweep(tmp_path, "seed=0,1", "engine.workers=2")
    process = hurt.start(slow=0.1)
    hurt.wait_for_rows(hurt.ids[0], 7)
    hurt.results.rename(hurt.folder / "removed")
    hurt.end(process, code=None)
    assert process.returncode in {0, 1}
    hurt.complete()


def test_a_reader_that_goes_away_does_not_end_a_sweep(tmp_path: Path) -> None:
    hurt = Sweep(tmp_path, "seed=range(0,3)", "engine.workers=1")
    process = hurt.start()
    assert process.stdout is not None
    assert "3 runs to do" in process.stdout.readline()
    process.stdout.close()
    process.wait(PATIENCE)
    hurt.check()


def without_root() -> list[str]:
    """What a command begins with, so that permissions hold for root too."""
    if os.geteuid() != 0:
        return []
    drop = "ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)"  # CAP_DAC_OVERRIDE, for good
    program = f"import ctypes, os, sys; {drop}; os.execv(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", program]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    hurt = Sweep(tmp_path, "seed=0,1", "engine.workers=2")
    first, second = hurt.ids
    run_one(hurt.plan.runs[first], Results(hurt.results))
    hurt.look()
    shutil.copytree(hurt.run_folder(first), hurt.run_folder(second))
    folders = [path for path in hurt.results.rglob("*") if path.is_dir()]
    for path in [*hurt.results.rglob("*"), hurt.results]:
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        output = hurt.end(hurt.start(before=without_root()), code=2)  # before any run
        assert "cannot be written: Permission denied" in output
        assert "1 of 2 runs are finished already" in output
        status = [sys.executable, "-m", "normbench", "status", "--json"]
        done = subprocess.run(
            [*without_root(), *status],
            cwd=hurt.folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["ok"] == 1
    finally:
        for path in [hurt.results, *folders]:
            path.chmod(0o755)
        for path in hurt.results.rglob("*"):
            path.chmod(path.stat().st_mode | 0o200)
    hurt.complete()


def test_files_that_cannot_grow_fail_a_run_for_now(tmp_path: Path) -> None:
    """A full disk, wherever the tests run; files of half a checkpoint still fit."""
    hurt = Sweep(tmp_path, "seed=0,1,2", "engine.workers=2")
    limited = ["bash", "-c", 'ulimit -f 3 && exec "$@"', "bash"]
    output = hurt.end(hurt.start(before=limited), code=1)
    assert "no checkpoint can be written" in output
    assert "File too large" in output
    assert not hurt.finished
    hurt.complete()
    assert hurt.steps() == [[1, 1]] * 3


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB at `results` in the working folder."""
    folder = tmp_path / "results"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("only root mounts; a limit on the size of files stands for it")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize(("left", "ends"), [(0, 2), (16, 1)])
def test_a_disk_may_be_full(left: int, ends: int, disk: Path, tmp_path: Path) -> None:
    hurt = Sweep(tmp_path, "seed=0,1,2", "engine.workers=2")
    run_one(hurt.plan.runs[hurt.ids[0]], Results(hurt.results))
    ballast = disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(ballast, ballast.stat().st_size - left * 1024)
    output = hurt.run(code=ends)
    assert "No space left on device" in output
    ballast.unlink()
    hurt.complete()
