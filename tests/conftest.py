"""Fixtures and settings of all tests: cache, environment, and ways to run commands."""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, settings
from typer.testing import CliRunner

from normbench.cli import app
from normbench.config.composition import compose
from normbench.config.schema import RunRecord
from normbench.records.store import Results
from normbench.training.experiment import run_one

if TYPE_CHECKING:
    from browser_made import OpenPage
    from playwright.sync_api import Browser

# Variables that tests must not depend on: they choose other folders, servers or git
# repositories, or they change the output.
PREFIXES = ("NORMBENCH_", "WANDB_", "HF_", "HYDRA_", "SLURM_", "SUBMITIT_", "GIT_")
OUTPUT_VARIABLES = {"COLUMNS", "FORCE_COLOR", "PYTHONIOENCODING", "PYTHONWARNINGS"}
OUTPUT_VARIABLES |= {"TORCHELASTIC_RUN_ID", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
PROXIES = {"all_proxy", "http_proxy", "https_proxy"}


def remove_variables(environment: MutableMapping[str, str]) -> None:
    """Remove variables from `environment` that tests must not depend on."""
    for name in set(environment) - {"NORMBENCH_BROWSER"}:
        if (
            name.startswith(PREFIXES)
            or name in OUTPUT_VARIABLES
            or name.lower() in PROXIES
        ):
            del environment[name]
    environment["GIT_CONFIG_GLOBAL"] = os.devnull


# Hypothesis uses the same examples in every run, so that results are repeatable.
# `--hypothesis-profile=default` draws new examples. A busy machine makes them slowly.
settings.register_profile(
    "fixed", derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fixed")
remove_variables(os.environ)
torch.set_num_threads(1)
# A test suite in the background ignores Ctrl-C, and its child processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The modules of all tests have a million objects, which stay. It takes half a second to
# look for garbage among them, so this is never done.
gc.disable()


def pytest_collection_finish() -> None:
    """Leave everything that exists before the first test out of garbage collection."""
    gc.freeze()
    gc.enable()


Run = Callable[..., RunRecord]
Command = Callable[..., subprocess.CompletedProcess[str]]

SMALL = {
    "cnn": ["task=cnn", "data.size=14", "task.stem_stride=2", "task.width=8"],
    "transformer": ["task=transformer", "task.width=16", "task.depth=1"],
    "style": [
        *("task=style", "task.width=8", "task.blocks=1", "data.crop=32"),
        *("data.train_crops=10", "data.val_crops=8", "data.test_crops=8"),
    ],
    "module": [
        *("task=module", "task.model=timm:test_resnet", "data=mnist5k", "data.size=14"),
        "task.model_options.output_stride=8",
    ],
}
"""Overrides for a small network of every task, with steps of a few milliseconds."""


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Set one cache folder for all tests, so that every data set is parsed once."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "normbench-cache"
    os.environ["NORMBENCH_CACHE"] = str(folder)
    return folder


@pytest.fixture(autouse=True)
def restored_environment() -> Iterator[None]:
    """Start each test without variables of W&B, and restore all variables after it.

    W&B's client sets WANDB_SERVICE, for example, also in fixtures of modules. A process
    of a later test would use the service and the folder of the earlier test.
    """
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        del os.environ[name]
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def no_package_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make commands in this process read verdicts only from the user's folder."""
    missing = tmp_path / "no package"
    monkeypatch.setattr("normbench.verdicts.folders.package_claims", lambda: missing)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Execute a run in this process, by default with ten steps and no tracker."""

    def run(*overrides: str, results: Path = tmp_path / "runs") -> RunRecord:
        defaults = ["budget=smoke", "tracker=none"]
        return run_one(compose([*defaults, *overrides]), Results(results))

    return run


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `normbench ARGUMENTS` in this process in an empty folder.

    This is much faster than `command`, which starts a new process.
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
    """Run `normbench ARGUMENTS` as a new process in an empty folder."""

    def command(
        *arguments: str, timeout: float = 120, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        inherited = dict(os.environ)
        # A W&B service that another test started uses the folder of that test.
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


# Fixtures of the tests of the report in a browser. Their modules take long to import.


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from browser_made import launched

    with launched() as browser:
        yield browser


@pytest.fixture
def open_page(browser: "Browser") -> Iterator["OpenPage"]:
    from browser_made import opening

    with opening(browser) as open_page:
        yield open_page


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of sixteen runs, two of them with pictures, and a verdict."""
    from browser_made import write_report
    from pages_made import write_remarks, write_small, write_style, write_verdict

    folder = tmp_path_factory.mktemp("small")
    write_small(folder / "runs")
    write_style(folder / "runs", 80, "group", "red")
    write_style(folder / "runs", 81, "rms", "blue")
    claims = folder / "claims"
    verdict = write_verdict(claims)
    write_remarks(claims, verdict)
    # Its run would be in the page too.
    (claims / verdict.claim / "records.jsonl.gz").unlink()
    return write_report(folder, claims)
