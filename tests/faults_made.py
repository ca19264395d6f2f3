"""A module that kills processes of a sweep at chosen writes of files."""

FAULTS = '''
"""Kills processes at chosen writes. Environment variables:

AT      JSON: {run id: ["EVENT FILE N TARGET", ...]}. At the N-th EVENT (from 1) of FILE
        of this run in one process, TARGET is killed, only once per entry. Events: half
        of the file is written (half), a temporary file is about to be renamed to FILE
        (before) or has been renamed (after), the file is about to be removed (unlink).
        Targets: this process (me), its parent (parent), or both (both).
DONE    a folder with a file for every kill, and the file `begun`, with a line "run_id
        first_step pid" for every start of a run.
SLOW    seconds by which each row of a history is delayed.
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
counts = Counter()
current_run = None  # the run id of this process


def target_of(event, path):
    """Return the target to kill at this event of `path`, or None."""
    path = pathlib.Path(path)
    # A temporary file has the name of its final file in the middle.
    name = re.sub(r"^\\.(.*)\\.\\d+$", r"\\1", path.name)
    for fault in AT.get(path.parent.name, ()) if IN_A_WORKER else ():
        fault_event, file, n, target = fault.split()
        if (fault_event, file) != (event, name):
            continue
        key = f"{path.parent.name} {fault}"
        counts[key] += 1
        if counts[key] == int(n):
            try:
                os.close(os.open(DONE / key, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            return target
    return None


def kill(target):
    if target in ("parent", "both"):
        parent = os.getppid()
        os.kill(parent, signal.SIGKILL)
        while os.getppid() == parent:
            time.sleep(0.001)
    if target in ("me", "both"):
        os.kill(os.getpid(), signal.SIGKILL)


class HalfWritten:
    """A file whose first write kills the target after half of the data."""

    def __init__(self, file, target):
        self.file, self.target = file, target

    def write(self, data):
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        kill(self.target)
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
        target = target_of("half", path) if writes else None
        return HalfWritten(file, target) if target else file

    return open


def replace(path, target, plain=pathlib.Path.replace):
    kill(target_of("before", target))
    plain(path, target)
    kill(target_of("after", target))


def unlink(path, missing_ok=False, plain=pathlib.Path.unlink):
    if not path.name.startswith("."):
        kill(target_of("unlink", path))
    plain(path, missing_ok)


def begin(writer, *args, plain=store.RunWriter.begin, **kwargs):
    global current_run
    current_run = writer.folder.name
    plain(writer, *args, **kwargs)


def log(writer, row, plain=store.RunWriter.log):
    plain(writer, row)
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
