"""Sweeps whose results folder is removed, full or not writable."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from faults_made import Sweep

from normbench.records.store import Results
from normbench.training.experiment import run_one

pytestmark = pytest.mark.slow


def test_the_results_folder_may_be_removed_meanwhile(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "seed=0,1", "engine.workers=2")
    process = sweep.start(slow=0.1)
    sweep.wait_for_rows(sweep.ids[0], 7)
    sweep.results.rename(sweep.folder / "removed")
    sweep.end(process, code=None)
    assert process.returncode in {0, 1}
    sweep.complete()


def without_root() -> list[str]:
    """Return a prefix for a command so that file permissions apply to root, too."""
    if os.geteuid() != 0:
        return []
    drop = "ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)"  # CAP_DAC_OVERRIDE, for good
    program = f"import ctypes, os, sys; {drop}; os.execv(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", program]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "seed=0,1", "engine.workers=2")
    first, second = sweep.ids
    run_one(sweep.plan.runs[first], Results(sweep.results))
    sweep.look()
    shutil.copytree(sweep.run_folder(first), sweep.run_folder(second))
    folders = [path for path in sweep.results.rglob("*") if path.is_dir()]
    for path in [*sweep.results.rglob("*"), sweep.results]:
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        output = sweep.end(sweep.start(before=without_root()), code=2)  # before any run
        assert "cannot be written: Permission denied" in output
        assert "1 of 2 runs are finished already" in output
        status = [sys.executable, "-m", "normbench", "status", "--json"]
        done = subprocess.run(
            [*without_root(), *status],
            cwd=sweep.folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["ok"] == 1
    finally:
        for path in [sweep.results, *folders]:
            path.chmod(0o755)
        for path in sweep.results.rglob("*"):
            path.chmod(path.stat().st_mode | 0o200)
    sweep.complete()


def test_files_that_cannot_grow_fail_a_run_for_now(tmp_path: Path) -> None:
    """A limit on file sizes acts like a full disk; small files can be written."""
    sweep = Sweep(tmp_path, "seed=0,1,2", "engine.workers=2")
    limited = ["bash", "-c", 'ulimit -f 3 && exec "$@"', "bash"]
    # Python would write compiled modules that are cut off at the limit.
    limited = ["env", "PYTHONDONTWRITEBYTECODE=1", *limited]
    output = sweep.end(sweep.start(before=limited), code=1)
    assert "no checkpoint can be written" in output
    assert "File too large" in output
    assert not sweep.finished
    sweep.complete()
    assert sweep.steps() == [[1, 1]] * 3


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB at `results` in the working folder."""
    folder = tmp_path / "results"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("only root can mount; another test limits the size of files")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize(("left", "ends"), [(0, 2), (16, 1)])
def test_a_disk_may_be_full(left: int, ends: int, disk: Path, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "seed=0,1,2", "engine.workers=2")
    run_one(sweep.plan.runs[sweep.ids[0]], Results(sweep.results))
    ballast = disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(ballast, ballast.stat().st_size - left * 1024)
    output = sweep.run(code=ends)
    assert "No space left on device" in output
    ballast.unlink()
    sweep.complete()
