"""Sweeps whose processes are killed on purpose."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sweeps_made import PATIENCE, THIRTY_STEPS, wait_until

from normbench.config.schema import RunConfig, RunRecord
from normbench.records import store
from normbench.records.store import Results
from normbench.sweeps.plan import make_plan
from normbench.training.experiment import run_one

FAULTS = '''
"""Kills processes at chosen writes. The environment variables are:

AT      JSON, {run id: ["what file n whom", ...]}; each entry acts once. `what` is the
        moment of the n-th (from 1) write of `file` of that run in a process: "half"
        (half of it is written), "before" or "after" (before or after the rename of the
        temporary file to `file`), "unlink" (before `file` is removed). `whom` is the
        process that is killed: "me", "parent" or "both".
DONE    A folder with a file for each entry that has acted, and the file `begun` with a
        line "run_id first_step pid" for each attempt of a run.
SLOW    Seconds to wait after each row of a history, until DONE has the file `hurry`.
"""

import builtins
import io
import json
import multiprocessing
import os
import pathlib
import re
import signal
import time
from collections import Counter

from normbench.records import store
from normbench.training import loop

DONE = pathlib.Path(os.environ["DONE"])
AT = json.loads(os.environ.get("AT", "{}"))
SLOW = float(os.environ.get("SLOW", "0"))
IN_A_WORKER = multiprocessing.parent_process() is not None
(DONE / ("worker" if IN_A_WORKER else "planning")).touch()
seen = Counter()
current_run = None  # the id of the run that this process trains


def due(what, path):
    """Return whom to kill as `what` happens to `path`, or None."""
    path = pathlib.Path(path)
    # A temporary file counts as the file that it will be renamed to.
    name = re.sub(r"^\\.(.*)\\.\\d+$", r"\\1", path.name)
    for point in AT.get(path.parent.name, ()) if IN_A_WORKER else ():
        wanted, file, n, whom = point.split()
        if (wanted, file) != (what, name):
            continue
        key = f"{path.parent.name} {point}"
        seen[key] += 1
        if seen[key] == int(n):
            try:
                os.close(os.open(DONE / key, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            return whom
    return None


def kill(whom):
    if whom in ("parent", "both"):
        parent = os.getppid()
        os.kill(parent, signal.SIGKILL)
        while os.getppid() == parent:
            time.sleep(0.001)
    if whom in ("me", "both"):
        os.kill(os.getpid(), signal.SIGKILL)


class HalfWritten:
    """A file whose next write writes half of the data and then kills."""

    def __init__(self, file, whom):
        self.file, self.whom = file, whom

    def write(self, data):
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        kill(self.whom)
        return self.file.write(data[len(data) // 2 :]) and len(data)

    def fileno(self):
        raise io.UnsupportedOperation("Pillow would not call write")

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        self.file.close()


def opener(plain):
    def open(path, mode="r", *args, **kwargs):
        file = plain(path, mode, *args, **kwargs)
        writes = mode in ("a", "w", "wb", "w+b") and not isinstance(path, int)
        whom = due("half", path) if writes else None
        return HalfWritten(file, whom) if whom else file

    return open


def replace(path, target, plain=pathlib.Path.replace):
    kill(due("before", target))
    plain(path, target)
    kill(due("after", target))


def unlink(path, missing_ok=False, plain=pathlib.Path.unlink):
    if not path.name.startswith("."):
        kill(due("unlink", path))
    plain(path, missing_ok)


def begin(writer, *args, plain=store.RunWriter.begin, **kwargs):
    global current_run
    current_run = writer.folder.name
    plain(writer, *args, **kwargs)


def log(writer, row, plain=store.RunWriter.log):
    plain(writer, row)
    if not (DONE / "hurry").exists():
        time.sleep(SLOW)


def fit(*args, plain=loop.fit, **kwargs):
    line = f"{current_run} {kwargs['start'] + 1} {os.getpid()}\\n"
    begun = os.open(DONE / "begun", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(begun, line.encode())
    os.close(begun)
    return plain(*args, **kwargs)


builtins.open = opener(builtins.open)
pathlib.Path.open = opener(pathlib.Path.open)
pathlib.Path.replace, pathlib.Path.unlink = replace, unlink
store.RunWriter.begin, store.RunWriter.log = begin, log
loop.fit = fit
'''


Process = subprocess.Popen[str]


def alive(group: int) -> bool:
    """Return whether a process group has a member, even if it is a zombie."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def undisturbed(config: RunConfig) -> Path:
    """Train the run in this process without faults, once, and return its folder."""
    # keep_weights is not part of the run id.
    name = f"undisturbed-{os.getpid()}-{config.keep_weights}"
    folder = Path(os.environ["NORMBENCH_CACHE"]).with_name(name)
    return store.run_folder(folder, run_one(config, Results(folder)).run_id)


class Begun(NamedTuple):
    """One line of DONE/begun: a process starts or resumes a run."""

    run_id: str
    first_step: int
    pid: int


class Sweep:
    """A sweep command with the user module FAULTS, and checks of its results."""

    def __init__(
        self, folder: Path, *overrides: str, recipe: Sequence[str] = THIRTY_STEPS
    ) -> None:
        self.folder, self.overrides = folder, (*recipe, *overrides)
        self.results, self.done = folder / "results" / "runs", folder / "done"
        self.done.mkdir()
        (folder / "faults.py").write_text(FAULTS)
        self.plan = make_plan(self.overrides)
        self.ids = list(self.plan.runs)
        self.finished: dict[str, bytes] = {}  # result.json of those that were finished

    def start(
        self,
        at: Mapping[str, Sequence[str]] | None = None,
        *options: str,
        slow: float = 0,
        before: Sequence[str] = (),
    ) -> Process:
        """Start the command in its own session and process group."""
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
        """Wait for all processes of the command and return its output.

        The exit code must be `code`, unless that is None.
        """
        try:
            # Workers have its output too: this waits for them, orphaned or not.
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

    def hurry(self) -> None:
        """Wait no longer after the rows of histories."""
        (self.done / "hurry").touch()

    def complete(self) -> None:
        """Run the same command without faults, and check that it completes the plan."""
        self.run()
        self.check()

    def look(self) -> None:
        """Check that finished records are unchanged and new ones are correct."""
        for key, content in self.finished.items():
            assert (self.run_folder(key) / store.RESULT).read_bytes() == content
        for key in self.ids:
            record = store.read(self.run_folder(key))
            if record is not None and record.status != "failed":
                result = self.run_folder(key) / store.RESULT
                self.finished[key] = result.read_bytes()
                self.check_one(key, record)

    def check(self) -> None:
        """Check that all runs are finished and no other run exists."""
        self.look()
        assert self.finished.keys() == set(self.ids)
        assert store.run_ids(self.results) == sorted(self.ids)

    def check_one(self, key: str, record: RunRecord) -> None:
        """Check that a finished run equals an undisturbed run."""
        folder = self.run_folder(key)
        expected_folder = undisturbed(self.plan.runs[key])
        expected = store.read(expected_folder)
        assert expected is not None
        assert (record.status, record.steps) == ("ok", expected.steps)
        assert record.metrics == expected.metrics
        assert store.read_history(folder) == store.read_history(expected_folder)
        files = {file.name: file.read_bytes() for file in expected_folder.iterdir()}
        del files[store.RESULT]
        for name, content in files.items():
            assert (folder / name).read_bytes() == content
        more = {file.name for file in folder.iterdir()} - files.keys()
        # A process that dies after it wrote the record leaves its checkpoint.
        more -= {store.CHECKPOINT}
        assert more == {store.RESULT}

    def run_folder(self, key: str) -> Path:
        return store.run_folder(self.results, key)

    def begun(self) -> dict[str, list[Begun]]:
        """Return the attempts of each run by its id, in the order of time."""
        path = self.done / "begun"
        begun: dict[str, list[Begun]] = {key: [] for key in self.ids}
        for line in path.read_text().splitlines() if path.exists() else ():
            key, step, pid = line.split()
            begun[key].append(Begun(key, int(step), int(pid)))
        return begun

    def steps(self) -> list[list[int]]:
        """Return the first steps of each run's attempts, in the order of the plan."""
        return [
            [begun.first_step for begun in tries] for tries in self.begun().values()
        ]

    def wait_for_rows(self, key: str, rows: int) -> None:
        history = self.run_folder(key) / store.HISTORY

        def there() -> bool:
            return history.exists() and history.read_bytes().count(b"\n") >= rows

        wait_until(there, f"{rows} rows in {history}")
