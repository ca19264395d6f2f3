"""The wheel and the sdist contain configs and data and work from any folder."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
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
        "import normbench; from normbench.config.composition import compose;"
        "from normbench.config.identity import run_id;"
        "print(normbench.__file__); print(run_id(compose(['norm=group'])));"
        "from normbench.data.display_names import distinct_names;"
        "print(len(distinct_names()))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    module, identity, names = printed.stdout.split()
    assert names == "9769"
    (about,) = site.glob("normbench-*.dist-info")
    assert "License-Expression: MIT AND Unicode-3.0" in (about / "METADATA").read_text()
    licences = {path.name for path in (about / "licenses").rglob("LICENSE*")}
    assert licences == {"LICENSE", "LICENSE.unicode"}
    assert Path(module).is_relative_to(site)
    from normbench.config.composition import compose
    from normbench.config.identity import run_id

    assert identity == run_id(compose(["norm=group"]))


def test_an_sdist_contains_the_data_and_their_script(
    tmp_path: Path,
) -> None:
    code = (
        "from hatchling.builders.sdist import SdistBuilder;"
        f"print(*SdistBuilder({str(ROOT)!r}).build(directory={str(tmp_path)!r}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    data = {"display_names.tsv.gz", "LICENSE.unicode"}
    assert {f"normbench/data/{name}" for name in data} <= names
    assert "scripts/make_display_names" in names
