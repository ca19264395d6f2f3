"""Upload of offline W&B runs, by wandb's own `sync` in a separate process.

wandb marks what it has uploaded (`run-<id>.wandb.synced`). It also marks a run whose
history or summary the server refused, after one line with the error: this module
removes that mark, so that the next sync tries again.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from normbench.config.wandb_variables import clean, find_folders, wandb_folder
from normbench.errors import NormbenchError, RequestError
from normbench.records.store import is_running, run_folder

OFFLINE = re.compile(r"offline-run-\d{8}_\d{6}-[0-9a-f]{16}")
RUN_ERROR = re.compile(r"ERROR \[\S*/(?P<run_id>[0-9a-f]+)\]")
AT_ONCE = 500
"""Folders for one client process."""

PATIENCE = {
    f"WANDB_X_{client}_RETRY_{limit}": value
    for client in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER")
    for limit, value in {"MAX": "3", "WAIT_MAX_SECONDS": "5"}.items()
}
"""wandb itself would retry for days."""


@dataclass
class Folders:
    """The offline W&B folders under a results folder, each list oldest first.

    `running` are of runs that a process does now: a part of them would pass for all.
    """

    waiting: list[Path] = field(default_factory=list)
    synced: list[Path] = field(default_factory=list)
    running: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Upload:
    """The folders that were uploaded, those that failed, and the first error."""

    uploaded: list[Path]
    failed: list[Path]
    reason: str | None


def places(results: Path) -> list[Path]:
    """The folders that have W&B folders. Raises RequestError as `wandb_folder`."""
    usual, chosen = results / "wandb", wandb_folder(results)
    return [usual] if usual.absolute() == chosen.absolute() else [usual, chosen]


def offline_runs(results: Path) -> Folders:
    """The runs that normbench logged offline, in all `places`.

    Raises RequestError if `results` is not a folder.
    """
    if not results.is_dir():
        raise RequestError(f"--results {results} is not a folder")
    folders = Folders()
    offline = (
        path for place in places(results) for path in place.glob("offline-run-*")
    )
    for folder in sorted(offline, key=lambda path: path.name):
        log = _log(folder)
        # A link could lead to what another program keeps, which is not ours to send.
        if not OFFLINE.fullmatch(folder.name) or folder.is_symlink():
            continue
        run = run_folder(results, _run_id(folder))
        if log.is_symlink() or not log.is_file() or not run.is_dir():
            continue
        if _mark(folder).exists():
            folders.synced.append(folder)
        elif is_running(run):
            folders.running.append(folder)
        else:
            folders.waiting.append(folder)
    return folders


def upload(folders: Sequence[Path], results: Path, patience: float) -> Upload:
    """Upload `folders`, oldest first if they are of one run.

    Gives up when nothing has been uploaded for `patience` seconds. Raises
    NormbenchError if wandb has no key to log in with.
    """
    reasons: list[str] = []
    for start in range(0, len(folders), AT_ONCE):
        some = folders[start : start + AT_ONCE]
        output, ended = _client(some, results, patience)
        if "API key" in output and not any(_mark(folder).exists() for folder in some):
            line = next(line for line in output.splitlines() if "API key" in line)
            raise NormbenchError(
                f"not logged in to W&B ({line.removeprefix('Error: ').strip()}); "
                "run `wandb login`, or set WANDB_API_KEY; nothing was uploaded"
            )
        refused = {error["run_id"] for error in RUN_ERROR.finditer(output)}
        for folder in some:
            if _run_id(folder) in refused:
                _mark(folder).unlink(missing_ok=True)
        reasons += re.findall(r"ERROR (.*)", output) or output.splitlines()[-1:]
        if not ended:
            reasons.insert(0, f"nothing was uploaded for {patience:g} seconds")
            break
    uploaded = [folder for folder in folders if _mark(folder).exists()]
    failed = [folder for folder in folders if folder not in set(uploaded)]
    return Upload(uploaded, failed, reasons[0] if failed else None)


def _client(
    folders: Sequence[Path], results: Path, patience: float
) -> tuple[str, bool]:
    """The output of `wandb sync`, and whether it ended by itself."""
    command = [sys.executable, "-m", "wandb", "sync", "-n", "4"]
    clean(offline=False)
    find_folders(wandb_folder(results))
    ours = {
        "WANDB_DIR": str(wandb_folder(results).parent.resolve()),
        "WANDB_MODE": "online",
        "WANDB_SILENT": "false",  # its output has the errors
    }
    with tempfile.TemporaryFile("w+", errors="replace") as printed:
        process = subprocess.Popen(
            [*command, *(str(folder.resolve()) for folder in folders)],
            env=PATIENCE | os.environ | ours,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
        try:
            ended = _wait(process, folders, patience)
        finally:
            process.kill()  # wandb-core ends with the process that started it
            process.wait()
        printed.seek(0)
        return printed.read(), ended


def _wait(
    process: subprocess.Popen[bytes], folders: Sequence[Path], patience: float
) -> bool:
    done, since = 0, time.monotonic()
    while time.monotonic() - since < patience:
        try:
            process.wait(timeout=0.2)
            return True
        except subprocess.TimeoutExpired:
            marked = sum(_mark(folder).exists() for folder in folders)
            if marked > done:
                done, since = marked, time.monotonic()
    return False


def _run_id(folder: Path) -> str:
    return folder.name.rpartition("-")[2]


def _log(folder: Path) -> Path:
    return folder / f"run-{_run_id(folder)}.wandb"


def _mark(folder: Path) -> Path:
    return folder / f"run-{_run_id(folder)}.wandb.synced"
