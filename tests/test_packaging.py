"""The wheel and the sdist contain configs, data and verdicts; they work anywhere."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.records.store import read_compact
from normbench.verdicts.files import read_verdict

ROOT = Path(__file__).parents[1]


CLAIM = "rms-layer"
TRAVEL = ("verdict.json", "remarks.yaml", "census.json", "records.jsonl.gz")
"""The files of a claim's folder in results/claims that are part of the wheel."""
COMMANDS = [
    ["claim", "list", "--json"],
    ["claim", "show", CLAIM, "--json"],
    ["claim", "check", CLAIM, "--from-records", "--json"],
    ["recommend", "--json"],
    ["plot", CLAIM, "--format", "svg", "--json"],
    ["report", "--json"],
    ["dashboard"],
]
IN_A_WHEEL = """
import json, sys
import normbench
from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.data.display_names import distinct_names
from typer.testing import CliRunner
from normbench.cli import app
from normbench.report.page import document
document.verdict_figures = lambda *_: {}  # drawing all of them takes a minute
done = [CliRunner().invoke(app, words) for words in json.loads(sys.argv[1])]
print(json.dumps({
    "module": normbench.__file__,
    "run_id": run_id(compose(["norm=group"])),
    "names": len(distinct_names()),
    "commands": [[each.exit_code, each.stdout, each.stderr] for each in done],
}))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the wheel of this checkout is installed."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheels, site = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    no_index = ["--no-deps", "--no-index"]
    subprocess.run(
        [*pip, "wheel", *no_index, "--no-build-isolation", "-w", wheels, ROOT],
        check=True,
    )
    (wheel,) = wheels.glob("normbench-*.whl")
    subprocess.run([*pip, "install", *no_index, "--target", site, wheel], check=True)
    return site


def printed_in(folder: Path, site: Path) -> dict[str, Any]:
    """Return what IN_A_WHEEL prints in `folder`, with the package in `site`."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_WHEEL, json.dumps(COMMANDS)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


@pytest.mark.slow
def test_a_wheel_has_configs_data_and_verdicts_in_another_folder(
    site: Path, tmp_path: Path
) -> None:
    claims = ROOT / "results" / "claims"
    files = {file for name in TRAVEL for file in claims.glob(f"*/{name}")}
    files |= {*claims.glob("*/figures/*.svg")}
    installed = site / "normbench" / "results" / "claims"
    in_wheel = {f.relative_to(installed) for f in installed.rglob("*") if f.is_file()}
    assert in_wheel == {file.relative_to(claims) for file in files}
    before = {file: file.stat().st_mtime_ns for file in installed.rglob("*")}
    printed = printed_in(tmp_path, site)
    assert Path(printed["module"]).is_relative_to(site)
    assert printed["run_id"] == run_id(compose(["norm=group"]))
    assert printed["names"] == 9769
    for words, (code, _, errors) in zip(COMMANDS, printed["commands"], strict=True):
        assert code == 0, (words, errors)
    listed, shown, (judged,), recommended, drawn, reported = (
        json.loads(output) for _, output, _ in printed["commands"][:-1]
    )
    names = {row["name"] for row in listed if row["verdict_from"] == "package"}
    assert names == {file.parent.name for file in claims.glob("*/verdict.json")}
    assert (site / "normbench" / "py.typed").is_file()
    committed = read_verdict(claims / CLAIM / "verdict.json")
    assert committed is not None
    assert shown["verdict"] == committed.model_dump(mode="json")
    assert judged["same"], judged["differences"]
    effects = [contrast.effect for contrast in committed.outcomes[0].contrasts]
    again = judged["verdict"]["outcomes"][0]["contrasts"]
    assert [contrast["effect"] for contrast in again] == pytest.approx(effects)
    (text,) = (each for each in recommended if each["task"] == "text")
    evidence = [each for pair in text["pairs"] for each in pair["evidence"]]
    assert {CLAIM} <= {each["claim"] for each in evidence}
    figures = {file.name for file in (claims / CLAIM / "figures").iterdir()}
    assert {Path(made["file"]).name for made in drawn} == figures
    runs = {
        r.run_id for f in claims.glob("*/records.jsonl.gz") for r in read_compact(f)
    }
    assert (reported["verdicts_from_package"], reported["runs"]) == (
        len(names),
        len(runs),
    )
    assert CLAIM in printed["commands"][-1][1]
    assert {file: file.stat().st_mtime_ns for file in installed.rglob("*")} == before
    made = {file.relative_to(tmp_path).parts[0] for file in tmp_path.rglob("*")}
    assert made == {"report.html", "results"}
    assert [*(tmp_path / "results").glob("*")] == [tmp_path / "results" / "claims"]


@pytest.mark.slow
def test_a_wheel_has_the_licences_of_all_its_files(site: Path) -> None:
    (about,) = site.glob("normbench-*.dist-info")
    assert "License-Expression: MIT AND Unicode-3.0" in (about / "METADATA").read_text()
    licences = {path.name for path in (about / "licenses").rglob("LICENSE*")}
    assert licences == {"LICENSE", "LICENSE.unicode"}


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
    assert f"results/claims/{CLAIM}/verdict.json" in names  # for a wheel made of it
