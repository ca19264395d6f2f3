"""A user's own modules: which files are part of a run's code."""

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
ASK = """
import json
from normbench.config.user_modules import hashes, import_modules
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


def asked(folder: Path, before: str = "") -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", before + ASK],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_every_file_that_a_module_brings_in_counts(folder: Path) -> None:
    first = asked(folder)
    assert asked(folder, "import constants, timeit\n") == first
    seen = {first["mine"]}
    for name in FILES:
        path = folder / name
        path.write_text(path.read_text() + "# changed\n")
        now = asked(folder)["mine"]
        assert (now in seen) == (name == "unrelated.py"), name
        seen.add(now)


def test_a_module_alone_has_the_hash_that_it_always_had(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import json\nimport torch.nn\nX = 1\n")
    assert asked(tmp_path) == {"mine": "e00a747534504137"}


@pytest.mark.slow
def test_a_run_of_another_helper_comes_from_other_code(
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
