"""The import rule: a package may import only the packages below it."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from records_made import a_record, written

import normbench
from normbench.sweeps.manifest import Announcement, Manifest

PACKAGE = Path(normbench.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# Each package, and those directly below it; it may import all that can be reached.
BELOW = {
    "cli": {"api"},
    "api": {"claims", "report"},
    "claims": {"sweeps", "verdicts"},
    "sweeps": {"training"},
    "training": {"probes", "records"},
    "probes": {"tasks"},
    "tasks": {"models", "data"},
    "testing": {"models"},
    "models": {"norms"},
    "norms": {"registry"},
    "data": {"registry"},
    "report": {"verdicts"},
    "verdicts": {"records"},
    "records": {"config", "stats"},
    "config": {"registry"},
    "registry": {"system"},
    "system": {"errors"},
}
# Libraries that only these packages and modules may import.
ONLY_IN = {
    "torch": {
        *("claims", "sweeps", "training", "probes", "tasks", "models"),
        *("norms", "data", "testing"),
    },
    "torchvision": {"claims", "tasks", "models", "data"},
    "scipy": {"stats", "verdicts"},
    "hydra": {"config"},
    "omegaconf": {"config"},
    "wandb": {"records", "report.dashboard"},
    "wandb_workspaces": {"report.dashboard"},
    "datasets": {"data.hf"},
    "typer": {"cli"},
    "rich": {"cli"},
    "matplotlib": {"report"},
    "pandas": {"api"},
    "pyarrow": {"records"},
    "ray": {"sweeps.engines"},
    "submitit": {"sweeps.engines"},
}


def reachable(package: str) -> set[str]:
    """Return `package` and all packages below it."""
    return {package}.union(*(reachable(name) for name in BELOW.get(package, ())))


def imports(path: Path) -> Iterator[str]:
    """Return all imported modules of a file, also in functions and for type checks."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None and node.level == 0, "a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_module_imports_only_packages_below_its_package(path: Path) -> None:
    module = module_name(path)
    package = module.split(".")[0]
    for name in imports(path):
        library, _, inner = name.partition(".")
        if library == "normbench" and package not in {"__main__", "__init__"}:
            assert inner.split(".")[0] in reachable(package) | {"__version__"}, name
        only = ONLY_IN.get(library, {module})
        assert any(f"{module}.".startswith(f"{place}.") for place in only), name


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import normbench.cli", {"torch", "hydra", "numpy", "rich", "pydantic"}),
        ("import normbench.records.store", {"torch", "hydra", "numpy"}),
        ("import normbench.records.query", {"torch", "hydra", "numpy"}),
        (
            "import normbench.verdicts.judging",
            {"torch", "hydra", "scipy.stats", "matplotlib"},
        ),
        (
            "import normbench.report.text.verdict",
            {"torch", "hydra", "numpy", "matplotlib"},
        ),
        ("import normbench.report.page.document", {"torch", "hydra", "rich", "wandb"}),
        ("import normbench.stats", {"torch", "hydra", "pydantic", "scipy.stats"}),
        ("import normbench.records.sync", {"torch", "hydra", "numpy", "wandb"}),
        ("import normbench.sweeps.watch", {"torch", "hydra", "numpy"}),
        (
            "import normbench.config.composition",
            {"wandb", "timm", "torchvision", "mlxtend"},
        ),
        (
            "import normbench.training.experiment",
            {"wandb", "timm", "torchvision", "mlxtend"},
        ),
    ],
)
def test_importing_a_module_does_not_import_slow_packages(
    statement: str, absent: set[str]
) -> None:
    code = f"{statement}; import sys; print(sorted({absent!r} & sys.modules.keys()))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.slow
def test_commands_that_only_read_do_not_import_torch(tmp_path: Path) -> None:
    results = tmp_path / "runs"
    finished = a_record("task=cnn", "tracker=none")
    written(results, finished)
    run = {finished.run_id: finished.config}
    with Announcement(results) as announcement:
        announcement.publish(
            Manifest(title="sweep", workers=1, runs=run, skipped={}, todo=[])
        )
    commands = [
        ["status"],
        ["results"],
        ["results", "--csv"],
        ["show", finished.run_id],
        ["watch", "--once"],
        ["claim", "list"],
        ["recommend"],
        ["report", "--output", str(tmp_path / "page")],
        ["plot", "--by", "norm", "--output", str(tmp_path / "picture")],
        *(["list", f"{group}s"] for group in ("task", "budget", "engine", "tracker")),
        ["list", "data"],
    ]
    code = """
import sys, json
from normbench.cli import app
from normbench.cli.options import complete_overrides
from normbench.report.page import document
document.verdict_figures = lambda *_: {}  # drawing all of them takes long
complete_overrides("norm=b")
for command in json.loads(sys.argv[1]):
    code = app(command, standalone_mode=False) or 0
    assert code == 0, command
    assert not {"torch", "hydra", "omegaconf"} & sys.modules.keys(), command
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)],
        capture_output=True,
        text=True,
        env=os.environ | {"NORMBENCH_RESULTS": str(results)},
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr


def test_the_architecture_page_names_the_existing_packages() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in re.findall(r"`([a-z_/]+\.py)`", page):
        places = (PACKAGE / path, PACKAGE.parent / path)
        assert any(place.is_file() for place in places), path
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages == set(re.findall(r"^\| `(\w+)` \|", page, re.M))
    assert packages | {"stats", "registry", "errors", "testing"} == {
        *BELOW,
        *(name for below in BELOW.values() for name in below),
    }
