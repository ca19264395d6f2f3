"""Sweeps by the engines `ray` and `slurm`, both on this machine.

Their processes are killed and stopped in the middle of a run.
"""

import os
import signal
from pathlib import Path

import pytest
from faults_made import Sweep
from sweeps_made import THIRTY_STEPS, wait_until

from normbench.sweeps.manifest import folders, read_manifest

pytestmark = pytest.mark.slow

RAY = ["engine=ray", "engine.workers=2", "engine.runs_per_task=2"]
SLURM = ["engine=slurm", "engine.cluster=local", "engine.workers=2"]
LOCAL = ["engine=local", "engine.workers=2"]


@pytest.mark.parametrize("engine", [RAY, SLURM], ids=["ray", "slurm"])
def test_a_process_is_killed_and_the_next_one_gets_sigterm(
    engine: list[str], tmp_path: Path
) -> None:
    sweep = Sweep(tmp_path, "seed=range(0,4)", *engine)
    first = sweep.ids[0]
    process = sweep.start(None, slow=0.3)
    sweep.wait_for_rows(first, 7)
    os.kill(sweep.begun()[first][-1].pid, signal.SIGKILL)
    wait_until(lambda: len(sweep.begun()[first]) == 2, "the run is started once more")
    sweep.wait_for_rows(first, 8)
    os.kill(sweep.begun()[first][-1].pid, signal.SIGTERM)
    sweep.hurry()
    sweep.end(process)
    (first_step, after_kill, after_stop), *others = sweep.steps()
    assert first_step == 1
    assert after_kill > 1 and after_kill % 5 == 1  # after a regular checkpoint
    assert after_stop > 8  # after the checkpoint that SIGTERM causes
    assert others == [[1]] * 3
    killed, stopped, *_ = sweep.begun()[first]
    assert killed.pid != stopped.pid
    sweep.check()
    (announced,) = folders(sweep.results)
    manifest = read_manifest(announced)
    assert (manifest.workers, manifest.todo) == (2, sweep.ids)


@pytest.mark.parametrize("engine", [RAY, SLURM], ids=["ray", "slurm"])
def test_an_interrupted_sweep_is_completed_by_another_engine(
    engine: list[str], tmp_path: Path
) -> None:
    sweep = Sweep(tmp_path, "seed=range(0,4)", *engine)
    process = sweep.start(None, slow=0.3)
    sweep.wait_for_rows(sweep.ids[0], 7)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    sweep.end(process, code=130)
    assert sweep.ids[0] not in sweep.finished
    sweep.overrides = (*THIRTY_STEPS, "seed=range(0,4)", *LOCAL)
    sweep.complete()
    assert sweep.steps()[0][0] == 1
    assert sweep.steps()[0][1] > 7


def test_several_engines_and_a_shard_use_one_folder(tmp_path: Path) -> None:
    plan = "seed=range(0,6)"
    sweep = Sweep(tmp_path, plan)
    processes = []
    for more in (RAY, SLURM, [*LOCAL, "--shard", "1/2"], ["engine.workers=1"]):
        sweep.overrides = (*THIRTY_STEPS, plan, *more)
        processes.append(sweep.start(None, slow=0.2))
    for process in processes:
        sweep.end(process)
    assert sweep.steps() == [[1]] * 6
    sweep.check()
