"""Sweeps whose processes are killed or interrupted: the same command completes them.

The user module FAULTS makes a process kill itself, its parent or both at a chosen
write, once, and records at which step each attempt of a run starts. In the end, all
metrics must equal those of undisturbed runs.
"""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from conftest import SMALL
from faults_made import Process, Sweep, undisturbed
from sweeps_made import PATIENCE, wait_until

from normbench.records import store
from normbench.records.store import Results
from normbench.sweeps.plan import plan_state

pytestmark = pytest.mark.slow


def test_a_killed_worker_is_replaced_and_its_run_goes_on(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "seed=0,1", "engine.workers=2")
    first, _ = sweep.ids
    output = sweep.run({first: ["half history.jsonl 8 me"]})
    assert f"the worker of run {first} was killed by SIGKILL" in output
    assert sweep.steps() == [[1, 6], [1]]
    sweep.check()


def test_workers_whose_parent_is_killed_stop_with_a_checkpoint(
    tmp_path: Path,
) -> None:
    sweep = Sweep(tmp_path, "seed=0,1", "engine.workers=2")
    first, _ = sweep.ids
    sweep.run({first: ["half history.jsonl 8 parent"]}, code=-signal.SIGKILL)
    assert first not in sweep.finished
    sweep.complete()
    assert sweep.steps()[0] == [1, 9]
    assert sweep.steps()[1].count(1) == 1


def test_a_record_cut_at_any_byte_is_a_run_to_do(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "seed=0")
    (key,) = sweep.ids
    whole = undisturbed(sweep.plan.runs[key])
    shutil.copytree(whole, sweep.run_folder(key))
    result = sweep.run_folder(key) / store.RESULT
    content = result.read_bytes().rstrip()
    assert list(plan_state(sweep.plan, Results(sweep.results)).finished) == [key]
    for length in range(len(content)):
        result.write_bytes(content[:length])
        assert list(plan_state(sweep.plan, Results(sweep.results)).missing) == [key]
    sweep.complete()
    assert sweep.steps() == [[1]]


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
    "half items.safetensors.gz 1": [1, 31],
    "after items.safetensors.gz 1": [1, 31],
    "half weights.safetensors 1": [1, 31],
    "before weights.safetensors 1": [1, 31],
    "after weights.safetensors 1": [1, 31],
    "half result.json 1": [1, 31],
    "before result.json 1": [1, 31],
    "after result.json 1": [1],
    "unlink checkpoint.pt 1": [1],
}
"""Where a worker is killed -> the first step of each attempt of its run."""


def test_a_worker_may_be_killed_at_every_write(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, f"seed=range(0,{len(WRITES)})", "keep_weights=true")
    at = {key: [f"{write} me"] for key, write in zip(sweep.ids, WRITES, strict=True)}
    output = sweep.run(at)
    assert output.count("the run is tried once more") == len(WRITES)
    assert dict(zip(WRITES, sweep.steps(), strict=True)) == WRITES
    sweep.check()


def test_all_processes_may_be_killed_at_once(tmp_path: Path) -> None:
    writes = [
        "half config.yaml 1",
        "half history.jsonl 7",
        "before checkpoint.pt 2",
        "half result.json 1",
        "after result.json 1",
    ]
    sweep = Sweep(tmp_path, f"seed=range(0,{len(writes)})", "engine.workers=1")
    at = {key: [f"{write} both"] for key, write in zip(sweep.ids, writes, strict=True)}
    for _ in writes:
        sweep.run(at, code=-signal.SIGKILL)
    sweep.complete()
    assert sweep.steps() == [[1], [1, 6], [1, 6], [1, 31], [1]]


def test_a_picture_may_be_half_written(tmp_path: Path) -> None:
    style = [*SMALL["style"], "tracker=none", "budget.max_steps=2", "evaluations=1"]
    sweep = Sweep(tmp_path, "checkpoint.every=1", recipe=style)
    (key,) = sweep.ids
    picture = next(undisturbed(sweep.plan.runs[key]).glob("*.png"))
    sweep.run({key: [f"half {picture.name} 1 me"]})
    assert sweep.steps() == [[1, 3]]
    sweep.check()


def test_a_run_whose_worker_dies_twice_may_be_finished_after_all(
    tmp_path: Path,
) -> None:
    sweep = Sweep(tmp_path, "seed=0,1")
    failed, finished = sweep.ids
    history = ["half history.jsonl 8 me", "half history.jsonl 9 me"]
    at = {failed: history, finished: [history[0], "after result.json 1 me"]}
    output = sweep.run(at, code=1)
    assert "1 ok, 1 failed" in output or "1 failed, 1 ok" in output
    assert set(sweep.finished) == {finished}
    sweep.complete()
    assert sweep.steps() == [[1, 6, 11], [1, 6]]


def test_sigterm_to_a_worker_moves_its_run_to_another(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "seed=0,1", "engine.workers=2")
    first, _ = sweep.ids
    process = sweep.start(slow=0.3)
    sweep.wait_for_rows(first, 7)
    os.kill(sweep.begun()[first][0].pid, signal.SIGTERM)
    sweep.hurry()
    output = sweep.end(process)
    assert "exit code 143" in output
    assert sweep.steps()[0][1] > 7
    sweep.check()


def interrupt(process: Process) -> None:
    """Send SIGINT to all processes of the command, as a terminal does at Ctrl-C."""
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.parametrize("how", ["once", "twice", "many times", "SIGTERM"])
def test_an_interrupted_sweep_leaves_no_process(how: str, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "seed=0,1,2", "engine.workers=2")
    process = sweep.start(slow=0.3)
    sweep.wait_for_rows(sweep.ids[0], 7)
    if how == "SIGTERM":
        os.kill(process.pid, signal.SIGTERM)
    else:
        for _ in range({"once": 1, "twice": 2, "many times": 20}[how]):
            interrupt(process)
            time.sleep(0.05)
    output = sweep.end(process, code=None)
    # A SIGINT during the exit of Python ends the process by the signal.
    codes = {130, -signal.SIGINT} if how == "many times" else {130}
    assert process.returncode in codes, output
    assert "interrupted; run the same command again to continue" in output
    sweep.complete()
    assert sweep.steps()[0][0] == 1
    assert sweep.steps()[0][1] > 5


def test_an_interrupt_waits_for_a_long_step(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "seed=0", "budget.max_steps=6")
    process = sweep.start(slow=4)
    sweep.wait_for_rows(sweep.ids[0], 2)
    interrupt(process)
    sweep.end(process, code=130)
    sweep.complete()
    assert sweep.steps()[0][1] > 2


def test_an_interrupt_does_not_wait_for_what_comes_before_training(
    tmp_path: Path,
) -> None:
    sweep = Sweep(tmp_path, "seed=0")
    (sweep.folder / "dull.py").write_text(
        "import pathlib, time\n"
        "from normbench.training import experiment\n"
        "def make_task(*args):\n"
        "    pathlib.Path('waits').touch()\n"
        f"    time.sleep({PATIENCE})\n"
        "experiment.make_task = make_task\n"
    )
    process = sweep.start(None, "--module", "dull")
    wait_until((sweep.folder / "waits").exists, "the run is being set up")
    interrupt(process)
    sweep.end(process, code=130)
    assert not sweep.begun()[sweep.ids[0]]


@pytest.mark.parametrize("when", ["planning", "worker"])
def test_a_sweep_may_be_interrupted_before_its_first_run(
    when: str, tmp_path: Path
) -> None:
    sweep = Sweep(tmp_path, "seed=0,1", "engine.workers=2")
    process = sweep.start(slow=0.3)  # no run ends before the interrupt
    wait_until((sweep.done / when).exists, when)
    interrupt(process)
    sweep.end(process, code=130)
    sweep.complete()


def test_racing_sweeps_do_each_run_once(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "seed=range(0,6)", "engine.workers=2")
    racers = [sweep.start(slow=0.05) for _ in range(3)]
    for racer in racers:
        sweep.end(racer)
    assert sweep.steps() == [[1]] * 6
    sweep.check()


def test_a_worker_may_die_while_it_has_nothing_to_do(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "seed=0,1", "engine.workers=2")
    first, second = sweep.ids
    with store.RunWriter(sweep.results, second):
        process = sweep.start()
        result = sweep.run_folder(first) / store.RESULT
        wait_until(result.exists, "the first run is finished")
        os.kill(sweep.begun()[first][0].pid, signal.SIGKILL)
    sweep.end(process)
    assert sweep.steps() == [[1], [1]]
    sweep.check()


def test_a_death_that_is_noticed_after_the_timeout_is_a_death(
    tmp_path: Path,
) -> None:
    sweep = Sweep(tmp_path, "seed=0")
    (key,) = sweep.ids
    process = sweep.start(None, "engine.timeout=15", slow=0.3)
    sweep.wait_for_rows(key, 1)
    os.kill(process.pid, signal.SIGSTOP)
    os.kill(sweep.begun()[key][0].pid, signal.SIGKILL)
    time.sleep(15)
    sweep.hurry()
    os.kill(process.pid, signal.SIGCONT)
    output = sweep.end(process, code=None)
    assert "was killed by SIGKILL; the run is tried once more" in output
    sweep.complete()


@pytest.mark.parametrize(
    ("does", "code", "words"),
    [
        ("raise ImportError('not here')", 2, "a worker cannot start: the module only"),
        ("os.kill(os.getpid(), 9)", 1, "3 workers one after another died"),
    ],
)
def test_workers_that_cannot_start_end_the_sweep(
    does: str, code: int, words: str, tmp_path: Path
) -> None:
    sweep = Sweep(tmp_path, "seed=range(0,4)", "engine.workers=2")
    (sweep.folder / "only.py").write_text(
        "import multiprocessing, os\n"
        f"if multiprocessing.parent_process() is not None:\n    {does}\n"
    )
    output = sweep.run(None, "--module", "only", code=code)
    assert words in output
    assert not list(sweep.results.glob("??/*"))


def test_a_reader_that_goes_away_does_not_end_a_sweep(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "seed=range(0,3)", "engine.workers=1")
    process = sweep.start()
    assert process.stdout is not None
    assert "3 runs to do" in process.stdout.readline()
    process.stdout.close()
    process.wait(PATIENCE)
    sweep.check()
