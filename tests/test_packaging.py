"""The wheel: it holds the configs, and works from anywhere."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_wheel_composes_a_config_from_another_folder(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheels, site, elsewhere = tmp_path / "wheels", tmp_path / "site", tmp_path / "else"
    elsewhere.mkdir()
    no_index = ["--no-deps", "--no-index"]
    subprocess.run(
        [*pip, "wheel", *no_index, "--no-build-isolation", "-w", wheels, ROOT],
        check=True,
    )
    (wheel,) = wheels.glob("normbench-*.whl")
    subprocess.run([*pip, "install", *no_index, "--target", site, wheel], check=True)
    code = (
        "import normbench; from normbench.config import compose, run_id;"
        "print(normbench.__file__); print(run_id(compose(['norm=group'])))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    module, identity = printed.stdout.split()
    assert Path(module).is_relative_to(site)
    from normbench.config import compose, run_id

    assert identity == run_id(compose(["norm=group"]))
