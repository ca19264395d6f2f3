"""The features that `claim check` and `compare` share with `sweep` by `Rounds`."""

import copy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from claims_made import TINY, put
from sweeps_made import PATIENCE, THIRTY_STEPS, wait_until

from normbench.records.store import RunWriter, is_running
from normbench.sweeps.manifest import folders, read_manifest

RUNS = 12  # 2 cells with 6 seeds each
COMMON = [word for word in THIRTY_STEPS if not word.startswith("tracker=")]
COMMANDS = {
    "tiny: seeds": "claim check tiny --config-dir mine --workers 1",
    "compare: seeds": "compare --arm norm=affine --arm norm=none --rates 0.1 "
    f"--seeds 6 --gate 0.99 --workers 1 {' '.join(COMMON)}",
}


def start(command: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "normbench", *command.split()],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("title", COMMANDS)
def test_a_command_is_watched_stopped_and_resumed_without_a_reader(
    title: str, tmp_path: Path
) -> None:
    claim = copy.deepcopy(TINY)
    claim["outcomes"]["digits"]["common"] = " ".join(COMMON)
    put(claim, tmp_path / "mine")
    results = tmp_path / "results" / "runs"

    def records() -> list[Path]:
        return sorted(results.glob("??/*/result.json"))

    process = start(COMMANDS[title], tmp_path)
    wait_until(
        lambda: bool(folders(results)) or process.poll() is not None, "a manifest"
    )
    (announced,) = folders(results)
    manifest = read_manifest(announced)
    assert (manifest.title, len(manifest.todo)) == (title, RUNS)
    # The command cannot end while this process has the lock of its last run.
    with RunWriter(results, manifest.todo[-1]):
        wait_until(lambda: bool(records()), "the first run is finished")
        assert is_running(announced)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, output
    assert output.splitlines()[-1].startswith("interrupted; "), output
    assert f"{RUNS} runs to do" in output and "Traceback" not in output
    assert 0 < len(records()) < RUNS
    assert not is_running(announced)

    process = start(COMMANDS[title], tmp_path)
    assert process.stdout is not None
    assert f"{title}, " in process.stdout.readline()
    process.stdout.close()
    process.wait(PATIENCE)
    assert len(records()) == RUNS
    if title.startswith("tiny"):
        assert (tmp_path / "results/claims/tiny/verdict.quick.json").is_file()
