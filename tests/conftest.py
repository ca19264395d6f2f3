"""What every test shares: a cache folder of its own, one thread, and how to run."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from typer.testing import CliRunner

from normbench.cli import app
from normbench.config.composition import compose
from normbench.config.schema import RunRecord
from normbench.records.store import Results
from normbench.training.experiment import run_one

# What would lead a test elsewhere: to other results or servers, into the repository
# whose hook runs the tests, or to output in colour.
ELSEWHERE = ("NORMBENCH_", "WANDB_", "HF_", "HYDRA_", "SLURM_", "SUBMITIT_", "GIT_")
OTHER_OUTPUT = {"COLUMNS", "FORCE_COLOR", "PYTHONIOENCODING", "PYTHONWARNINGS"}
OTHER_OUTPUT |= {"TORCHELASTIC_RUN_ID", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
PROXIES = {"all_proxy", "http_proxy", "https_proxy"}


def forget(environment: MutableMapping[str, str]) -> None:
    """Remove from `environment` what a test must not depend on."""
    for name in set(environment) - {"NORMBENCH_BROWSER"}:
        if (
            name.startswith(ELSEWHERE)
            or name in OTHER_OUTPUT
            or name.lower() in PROXIES
        ):
            del environment[name]
    environment["GIT_CONFIG_GLOBAL"] = os.devnull


# The same examples in every run, so that a suite that passed passes again.
# `--hypothesis-profile=default` draws new ones.
settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")
forget(os.environ)
torch.set_num_threads(1)
# A suite started in the background ignores Ctrl-C, and so would what it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

Run = Callable[..., RunRecord]
Command = Callable[..., subprocess.CompletedProcess[str]]

SMALL = {
    "cnn": ["task=cnn", "data.size=14", "task.stem_stride=2", "task.width=8"],
    "transformer": ["task=transformer", "task.width=16", "task.depth=1"],
    "style": ["task=style", "task.width=8", "task.blocks=1", "data.train_crops=10"],
}
"""Overrides for a network of each task that takes milliseconds a step."""


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the session and its workers: the first test parses."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "normbench-cache"
    os.environ["NORMBENCH_CACHE"] = str(folder)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run overrides in this process, by default for ten steps, without a tracker."""

    def run(*overrides: str, results: Path = tmp_path / "runs") -> RunRecord:
        defaults = ["budget=smoke", "tracker=none"]
        return run_one(compose([*defaults, *overrides]), Results(results))

    return run


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `normbench ARGUMENTS` in this process in an empty folder.

    For what does not depend on a process of its own, whose start takes seconds.
    """

    def invoke(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(sys, "path", sys.path[:])
            done = CliRunner().invoke(app, arguments, env=environment)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return subprocess.CompletedProcess(
            arguments, done.exit_code, done.stdout, done.stderr
        )

    return invoke


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run `normbench ARGUMENTS` as a process in an empty folder."""

    def command(
        *arguments: str, timeout: float = 120, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        inherited = dict(os.environ)
        # The service of W&B that a test in this process began, in another folder.
        inherited.pop("WANDB_SERVICE", None)
        return subprocess.run(
            [sys.executable, "-m", "normbench", *arguments],
            cwd=tmp_path,
            env=inherited | {"OMP_NUM_THREADS": "1"} | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return command
