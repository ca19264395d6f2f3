"""Uploads offline W&B runs by the command `wandb sync` in a separate process.

wandb marks an uploaded folder by the file `run-<id>.wandb.synced`. If the server
refuses the history or summary of a run, wandb prints an error, but still marks the
folder. This module then removes the mark, so that the next sync tries again.
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
BATCH_SIZE = 500
"""Number of folders for one client process."""

RETRY_LIMITS = {
    f"WANDB_X_{client}_RETRY_{limit}": value
    for client in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER")
    for limit, value in {"MAX": "3", "WAIT_MAX_SECONDS": "5"}.items()
}
"""Environment variables that limit wandb's retries, which otherwise take days."""


@dataclass
class Folders:
    """The offline W&B folders under a results folder; each list has the oldest first.

    The runs of the folders in `running` are not finished. wandb would mark the
    incomplete upload of such a folder as complete, so these folders must wait.
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
    """Return the folders in which W&B folders can be: the default and WANDB_DIR.

    Raises RequestError as `wandb_folder` does.
    """
    default, chosen = results / "wandb", wandb_folder(results)
    return [default] if default.absolute() == chosen.absolute() else [default, chosen]


def offline_runs(results: Path) -> Folders:
    """Return the W&B folders of runs that normbench logged offline, in all `places`.

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
        # A link could lead to private files, which must not be uploaded.
        if not OFFLINE.fullmatch(folder.name) or folder.is_symlink():
            continue
        record_folder = run_folder(results, _run_id(folder))
        if log.is_symlink() or not log.is_file() or not record_folder.is_dir():
            continue
        if _mark(folder).exists():
            folders.synced.append(folder)
        elif is_running(record_folder):
            folders.running.append(folder)
        else:
            folders.waiting.append(folder)
    return folders


def upload(folders: Sequence[Path], results: Path, patience: float) -> Upload:
    """Upload `folders`; the folders of one run must be sorted, oldest first.

    Gives up if nothing was uploaded for `patience` seconds. Raises NormbenchError if
    wandb has no API key.
    """
    reasons: list[str] = []
    for start in range(0, len(folders), BATCH_SIZE):
        batch = folders[start : start + BATCH_SIZE]
        output, ended = _run_wandb_sync(batch, results, patience)
        if "API key" in output and not any(_mark(folder).exists() for folder in batch):
            line = next(line for line in output.splitlines() if "API key" in line)
            raise NormbenchError(
                f"not logged in to W&B ({line.removeprefix('Error: ').strip()}); "
                "run `wandb login`, or set WANDB_API_KEY; nothing was uploaded"
            )
        refused = {error["run_id"] for error in RUN_ERROR.finditer(output)}
        for folder in batch:
            if _run_id(folder) in refused:
                _mark(folder).unlink(missing_ok=True)
        # If no line has the word ERROR, the last line is the reason.
        reasons += re.findall(r"ERROR (.*)", output) or output.splitlines()[-1:]
        if not ended:
            reasons.insert(0, f"nothing was uploaded for {patience:g} seconds")
            break
    uploaded = [folder for folder in folders if _mark(folder).exists()]
    failed = [folder for folder in folders if folder not in set(uploaded)]
    return Upload(uploaded, failed, reasons[0] if failed else None)


def _run_wandb_sync(
    folders: Sequence[Path], results: Path, patience: float
) -> tuple[str, bool]:
    """Run `wandb sync`; return its output, and whether it ended within `patience`."""
    command = [sys.executable, "-m", "wandb", "sync", "-n", "4"]
    clean(offline=False)
    find_folders(wandb_folder(results))
    required = {
        "WANDB_DIR": str(wandb_folder(results).parent.resolve()),
        "WANDB_MODE": "online",
        "WANDB_SILENT": "false",  # errors must be in the output
    }
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            [*command, *(str(folder.resolve()) for folder in folders)],
            env=RETRY_LIMITS | os.environ | required,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            ended = _wait(process, folders, patience)
        finally:
            process.kill()  # its child process wandb-core then ends, too
            process.wait()
        output.seek(0)
        return output.read(), ended


def _wait(
    process: subprocess.Popen[bytes], folders: Sequence[Path], patience: float
) -> bool:
    """Wait for the process; return False after `patience` seconds without an upload."""
    uploaded, last_upload = 0, time.monotonic()
    while time.monotonic() - last_upload < patience:
        try:
            process.wait(timeout=0.2)
            return True
        except subprocess.TimeoutExpired:
            count = sum(_mark(folder).exists() for folder in folders)
            if count > uploaded:
                uploaded, last_upload = count, time.monotonic()
    return False


def _run_id(folder: Path) -> str:
    return folder.name.rpartition("-")[2]


def _log(folder: Path) -> Path:
    return folder / f"run-{_run_id(folder)}.wandb"


def _mark(folder: Path) -> Path:
    return folder / f"run-{_run_id(folder)}.wandb.synced"
