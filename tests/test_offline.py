"""No command contacts the internet unless the user names a server.

Counts the connections and messages that a process and its children try, including the
look-up of a name, whether or not there is a network. Needs strace: `./scripts/install`
or the system's package of that name.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import SMALL
from wandb_server import API_KEY, serving

TINY = [*SMALL["cnn"], "budget.max_steps=2", "evaluations=1"]
MESSAGES = "trace=connect,sendto,sendmsg,sendmmsg"
ADDRESS = re.compile(r'sa_family=AF_INET.*|sun_path="[^"]*resolve.*')
SEVERAL = """
import json, sys
from normbench.cli import app
from normbench.report.page import document
document.verdict_figures = lambda *_: {}  # drawing all of them takes long
for command in json.loads(sys.argv[1]):
    code = app(command, standalone_mode=False)
    assert not code, (command, code)
"""


def attempts(
    command: Sequence[str], folder: Path, **environment: str
) -> tuple[list[str], str]:
    """Return the addresses that a command and its children contact, and its stderr.

    Skips the test where processes cannot be traced.
    """
    trace = folder / "trace"
    strace = ["strace", *"-f --seccomp-bpf -qq -s 300 -e".split(), MESSAGES]
    strace += ["-o", str(trace)]
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    if subprocess.run([*strace, "true"], capture_output=True).returncode:
        pytest.skip("strace may not trace processes here")
    done = subprocess.run(
        [*strace, *command],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return ADDRESS.findall(trace.read_text(errors="replace")), done.stderr


def test_name_lookups_and_connections_are_detected(tmp_path: Path) -> None:
    look_up = (
        "import socket\ntry: socket.getaddrinfo('host.invalid', 80)\nexcept OSError: 0"
    )
    assert attempts([sys.executable, "-c", look_up], tmp_path)[0]
    connect = "import socket; socket.socket().connect_ex(('127.0.0.1', 9))"
    assert attempts([sys.executable, "-c", connect], tmp_path)[0]


def test_an_offline_run_contacts_nothing(tmp_path: Path) -> None:
    """This also holds with an API key and with the variable for error reports."""
    found, _ = attempts(
        [sys.executable, "-m", "normbench", "train", *TINY],
        tmp_path,
        WANDB_API_KEY=API_KEY,
        WANDB_ERROR_REPORTING="true",
    )
    assert found == []
    assert list(tmp_path.glob("results/runs/wandb/offline-run-*/*.wandb"))


@pytest.mark.slow
def test_commands_over_runs_contact_nothing(tmp_path: Path) -> None:
    commands = [
        ["sweep", *TINY, "seed=0,1", "engine.workers=2"],
        ["train", *TINY, "seed=2", "tracker=none"],
        ["train", *SMALL["style"], "budget.max_steps=1", "tracker=none"],
        ["train", *SMALL["transformer"], "budget.max_steps=1", "tracker=none"],
        ["results"],
        ["watch"],
        ["doctor", *TINY],
        ["dashboard"],
        ["sync", "--dry-run"],
        ["report", "--output", "report.html"],
    ]
    command = [sys.executable, "-c", SEVERAL, json.dumps(commands)]
    assert attempts(command, tmp_path)[0] == []


@pytest.mark.slow
def test_online_runs_and_sync_contact_only_the_server(tmp_path: Path) -> None:
    normbench = [sys.executable, "-m", "normbench"]
    with serving() as server:
        where = server.environment
        online, _ = attempts(
            [*normbench, "train", *TINY, "tracker.mode=online"], tmp_path, **where
        )
        assert set(server.runs)
        attempts([*normbench, "train", *TINY, "seed=1"], tmp_path, **where)
        synced, _ = attempts([*normbench, "sync"], tmp_path, **where)
        assert len(server.runs) == 2
    for addresses in (online, synced):
        assert addresses
        assert all(f"htons({server.server_port})" in line for line in addresses)


@pytest.mark.slow
def test_ray_sends_no_usage_statistics(tmp_path: Path) -> None:
    """Ray only looks for the metadata of a cloud machine, at a link-local address."""
    pytest.importorskip("ray")
    normbench = [sys.executable, "-m", "normbench"]
    asked = ["sweep", *TINY, "tracker=none", "engine=ray", "engine.workers=1"]
    attempts([*normbench, *asked], tmp_path)
    assert "usage-stats" not in (tmp_path / "trace").read_text(errors="replace")
