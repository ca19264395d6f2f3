"""Verdicts come from the user's folder, claim by claim, or else from the package."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import Command
from verdicts_made import CLAIMS

from normbench.config.choices import choices, config_root
from normbench.errors import RequestError
from normbench.report.figures import drawing
from normbench.system import package_data
from normbench.verdicts import folders
from normbench.verdicts.files import read_verdict

ROOT = Path(__file__).parents[2]
OWN, OTHER = "rms-layer", "padding-tokens"


def put(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def test_each_claim_is_read_from_the_folder_or_else_from_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = put(tmp_path / "package", "both/verdict.json", "packaged/verdict.json")
    put(package, "nowhere/census.json", "archive-1/packaged/verdict.json")
    monkeypatch.setattr(folders, "package_claims", lambda: package)
    own = put(tmp_path / "own", "both/verdict.json", "mine/verdict.json")
    put(own, "packaged/verdict.quick.json", "quick/verdict.quick.json")
    put(own, "packaged/records.jsonl.gz", "nowhere/remarks.yaml")
    for name, folder, origin in (
        ("both", own, "folder"),
        ("mine", own, "folder"),
        ("packaged", package, "package"),
        ("quick", own, None),
        ("nowhere", own, None),
        ("unheard-of", own, None),
    ):
        assert folders.claim_folder(own, name) == folder / name
        assert folders.origin(own, name) == origin, name
    assert folders.judged_claims(own) == ["both", "mine", "packaged"]
    quick = folders.judged_claims(own, "verdict*.json")
    assert quick == ["both", "mine", "packaged", "quick"]
    missing = tmp_path / "missing"
    assert folders.origin(missing, "both") == "package"
    assert folders.judged_claims(missing) == ["both", "packaged"]
    # What cannot be read is an error, and not a reason to show another verdict.
    (own / "packaged" / "verdict.json").symlink_to("nothing")
    assert folders.origin(own, "packaged") == "folder"
    file = put(tmp_path, "file") / "file"
    with pytest.raises(RequestError, match="is not a verdict"):
        read_verdict(folders.claim_folder(file, "both") / "verdict.json")


def test_data_folders_are_in_the_package_or_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert folders.package_claims() == CLAIMS
    assert config_root() == ROOT / "configs"
    monkeypatch.setattr(package_data, "PACKAGE", tmp_path / "normbench")
    put(tmp_path / "normbench", "configs/norm/rms.yaml")
    assert config_root() == tmp_path / "normbench" / "configs"
    assert folders.package_claims() == tmp_path / "results" / "claims"


def test_the_commands_say_where_a_verdict_comes_from(
    invoke: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "save", lambda figure, stem, formats: [stem])

    def words(*arguments: str) -> str:
        done = invoke(*arguments)
        assert done.returncode == 0, done.stderr
        return " ".join(done.stdout.split())

    def origins() -> dict[str, str | None]:
        listed = json.loads(invoke("claim", "list", "--json").stdout)
        return {row["name"]: row["verdict_from"] for row in listed}

    judged = set(folders.judged_claims(CLAIMS)) & choices("claim").keys()
    assert {name for name, where in origins().items() if where == "package"} == judged
    assert "These verdicts are those of the package." in words("claim", "list")
    line = f"verdict of the package; yours would be in results/claims/{OWN}/verdict"
    assert line in words("claim", "show", OWN)
    stem = invoke("plot", OWN, "--json").stdout
    assert f"results/claims/{OWN}/figures/" in stem and str(CLAIMS) not in stem
    verdict = tmp_path / "results" / "claims" / OWN / "verdict.json"
    verdict.parent.mkdir(parents=True)
    shutil.copy(CLAIMS / OWN / "verdict.json", verdict)
    assert origins()[OWN] == "folder" and origins()[OTHER] == "package"
    listed = words("claim", "list")
    assert f"results/claims has the verdict of {OWN}; the other verdicts" in listed
    assert "of the package" not in words("claim", "show", OWN)
    shown = json.loads(invoke("claim", "show", OTHER, "--json").stdout)
    assert shown["verdict_from"] == "package"
    unjudged = sorted(choices("claim").keys() - judged)
    for name in unjudged[:1]:
        message = f"neither results/claims/{name}/verdict.json nor the package"
        assert message in words("claim", "show", name)
        done = invoke("plot", name)
        assert done.returncode == 2 and message in done.stderr
    verdict.write_text("{}")
    assert invoke("claim", "show", OWN).returncode == 2
