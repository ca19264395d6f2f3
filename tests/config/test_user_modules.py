"""The user's modules: which files enter their hashes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL, Command

FILES = {
    "mine.py": """
import json
import helper
from constants import EPS

def later():
    import lazy.inner
""",
    "helper.py": "import importlib\nimportlib.import_module('named')\n",
    "constants.py": "EPS = 1e-5\n",
    "named.py": "import below\n",
    "below.py": "",
    "lazy/__init__.py": "",
    "lazy/inner.py": "from . import sibling\n",
    "lazy/sibling.py": "",
    "unrelated.py": "",
}
PRINT_HASHES = """
import json
from normbench.config.user_modules import hashes
from normbench.system.imports import import_modules
import_modules(["mine"])
print(json.dumps(hashes(("mine",))))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def hashes_in(folder: Path, first_line: str = "") -> dict[str, str]:
    """Return the hashes of the module "mine" in `folder`, from another process."""
    done = subprocess.run(
        [sys.executable, "-c", first_line + PRINT_HASHES],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    hashes: dict[str, str] = json.loads(done.stdout)
    return hashes


def test_every_file_that_a_module_imports_changes_its_hash(folder: Path) -> None:
    first = hashes_in(folder)
    assert hashes_in(folder, "import constants, timeit\n") == first
    known = {first["mine"]}
    for name in FILES:
        path = folder / name
        path.write_text(path.read_text() + "# changed\n")
        changed = hashes_in(folder)["mine"]
        assert (changed in known) == (name == "unrelated.py"), name
        known.add(changed)


def test_the_hash_of_a_single_file_is_the_same_in_all_versions(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import json\nimport torch.nn\nX = 1\n")
    assert hashes_in(tmp_path) == {"mine": "e00a747534504137"}


@pytest.mark.slow
def test_a_run_with_a_changed_helper_module_comes_from_other_code(
    folder: Path, command: Command
) -> None:
    tiny = [*SMALL["cnn"], "budget.max_steps=1", "tracker=none", "--module", "mine"]
    assert command("train", *tiny).returncode == 0
    again = command("train", *tiny)
    assert "finished already" in again.stderr
    assert "other code" not in again.stderr
    (folder / "helper.py").write_text("X = 2")
    again = command("train", *tiny)
    assert "it comes from other code than this" in again.stderr
