"""Small sweeps, sweeps whose processes are killed, and an observer for tests."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from conftest import SMALL
from faults_made import FAULTS

from normbench.config.schema import RunConfig, RunRecord
from normbench.records import store
from normbench.records.store import Results
from normbench.sweeps.plan import make_plan
from normbench.training.experiment import run_one

THIRTY_STEPS = [*SMALL["cnn"], "tracker=none", "budget=smoke", "budget.max_steps=30"]
THIRTY_STEPS += ["log_every=1", "evaluations=1", "checkpoint.every=5"]
ONE_STEP = [*SMALL["cnn"], "norm=affine", "tracker=none", "budget=smoke"]
ONE_STEP += ["budget.max_steps=1"]
PATIENCE = 600
"""Seconds after which a process counts as hanging, on any machine."""


Process = subprocess.Popen[str]


def wait_until(condition: Callable[[], bool], description: str) -> None:
    """Wait until `condition` is true; fail after PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"timeout: {description}"
        time.sleep(0.02)


def alive(group: int) -> bool:
    """Return whether a process group has a member, which may be a zombie."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def undisturbed(config: RunConfig) -> Path:
    """Return the folder of the same run without any fault, executed only once."""
    # keep_weights does not enter the run id.
    name = f"undisturbed-{os.getpid()}-{config.keep_weights}"
    folder = Path(os.environ["NORMBENCH_CACHE"]).with_name(name)
    return store.run_folder(folder, run_one(config, Results(folder)).run_id)


class Begun(NamedTuple):
    """A line of DONE/begun: a process starts or resumes a run."""

    run_id: str
    first_step: int
    pid: int


class Sweep:
    """A sweep with the module FAULTS, and checks of its results."""

    def __init__(
        self, folder: Path, *overrides: str, recipe: Sequence[str] = THIRTY_STEPS
    ) -> None:
        self.folder, self.overrides = folder, (*recipe, *overrides)
        self.results, self.done = folder / "results" / "runs", folder / "done"
        self.done.mkdir()
        (folder / "faults.py").write_text(FAULTS)
        self.plan = make_plan(self.overrides)
        self.ids = list(self.plan.runs)
        self.finished: dict[str, bytes] = {}  # result.json of every finished run

    def start(
        self,
        at: Mapping[str, Sequence[str]] | None = None,
        *options: str,
        slow: float = 0,
        before: Sequence[str] = (),
    ) -> Process:
        """Start the command in a new session and process group."""
        program = [sys.executable, "-m", "normbench", "sweep", *self.overrides]
        environment = {
            "OMP_NUM_THREADS": "1",
            "DONE": str(self.done),
            "AT": json.dumps(at or {}),
            "SLOW": str(slow),
        }
        return subprocess.Popen(
            [*before, *program, "--module", "faults", *options],
            cwd=self.folder,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def end(self, process: Process, *, code: int | None = 0) -> str:
        """Wait until all processes of the sweep have ended; return their output.

        `code` is the expected exit code; None allows any.
        """
        try:
            # Workers inherit the output, so this also waits for orphaned workers.
            output, _ = process.communicate(timeout=PATIENCE)
            wait_until(lambda: not alive(process.pid), "its processes are gone")
        finally:
            if alive(process.pid):
                os.killpg(process.pid, signal.SIGKILL)
        self.look()
        assert "Traceback" not in output
        assert code in {None, process.returncode}, output
        return output

    def run(
        self,
        at: Mapping[str, Sequence[str]] | None = None,
        *options: str,
        code: int = 0,
    ) -> str:
        return self.end(self.start(at, *options), code=code)

    def complete(self) -> None:
        """Run the same command without faults, and check that all runs are finished."""
        self.run()
        self.check()

    def look(self) -> None:
        """Check that finished runs have not changed and that none is half-written."""
        for key, content in self.finished.items():
            assert (self.run_folder(key) / store.RESULT).read_bytes() == content
        for key in self.ids:
            record = store.read(self.run_folder(key))
            if record is not None and record.status != "failed":
                result = self.run_folder(key) / store.RESULT
                self.finished[key] = result.read_bytes()
                self.check_one(key, record)

    def check(self) -> None:
        """Check that all runs, and no others, are finished."""
        self.look()
        assert self.finished.keys() == set(self.ids)
        assert store.run_ids(self.results) == sorted(self.ids)

    def check_one(self, key: str, record: RunRecord) -> None:
        """Check that a finished run equals the same run without faults."""
        folder, reference = self.run_folder(key), undisturbed(self.plan.runs[key])
        expected = store.read(reference)
        assert expected is not None
        assert (record.status, record.steps) == ("ok", expected.steps)
        assert record.metrics == expected.metrics
        assert store.read_history(folder) == store.read_history(reference)
        files = {file.name: file.read_bytes() for file in reference.iterdir()}
        del files[store.RESULT]
        for name, content in files.items():
            assert (folder / name).read_bytes() == content
        others = {file.name for file in folder.iterdir()} - files.keys()
        # A kill after the result was written may leave a checkpoint.
        assert others - {store.CHECKPOINT} == {store.RESULT}

    def run_folder(self, key: str) -> Path:
        return store.run_folder(self.results, key)

    def begun(self) -> dict[str, list[Begun]]:
        """Return the starts of every run, in the order of time."""
        path = self.done / "begun"
        begun: dict[str, list[Begun]] = {key: [] for key in self.ids}
        for line in path.read_text().splitlines() if path.exists() else ():
            key, step, pid = line.split()
            begun[key].append(Begun(key, int(step), int(pid)))
        return begun

    def steps(self) -> list[list[int]]:
        """Return the first step of every start, by run in the order of the plan."""
        return [
            [begun.first_step for begun in tries] for tries in self.begun().values()
        ]

    def wait_for_rows(self, key: str, rows: int) -> None:
        history = self.run_folder(key) / store.HISTORY

        def has_rows() -> bool:
            return history.exists() and history.read_bytes().count(b"\n") >= rows

        wait_until(has_rows, f"{rows} rows in {history}")


class RecordingObserver:
    """An observer of a sweep that stores all calls."""

    def __init__(self) -> None:
        self.records: dict[str, RunRecord] = {}
        self.lost: dict[str, str] = {}
        self.begun: list[str] = []
        self.waited: list[str] = []
        self.warnings: list[str] = []
        self.calls: list[str] = []

    def start(self, missing: int, left: float | None) -> None:
        self.calls.append("start")

    def began(self, run_id: str, config: RunConfig) -> None:
        self.begun.append(run_id)

    def ended(self, record: RunRecord, left: float | None) -> None:
        assert record.run_id not in self.records
        self.records[record.run_id] = record

    def unrecorded(self, run_id: str, reason: str) -> None:
        self.lost[run_id] = reason

    def waiting(self, run_id: str) -> None:
        self.waited.append(run_id)

    def stopping(self) -> None:
        self.calls.append("stopping")

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def close(self) -> None:
        self.calls.append("close")
