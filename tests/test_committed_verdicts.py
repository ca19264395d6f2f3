"""Each committed verdict follows from the records beside it, and is of its yaml."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from normbench.check import RECORDS, check, prepare, restore_records
from normbench.choices import choices
from normbench.progress import SweepObserver
from normbench.record import read_compact
from normbench.registration import read_claim, registration_hash
from normbench.report.verdicts import decisions
from normbench.schema import LocalEngine
from normbench.trial import Request
from normbench.verdict import DesignVerdict, Verdict, read_verdict

FOLDER = Path(__file__).parents[1] / "results" / "claims"
README = (Path(__file__).parents[1] / "README.md").read_text()
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/verdict.json"))


def committed(name: str) -> Verdict:
    found = read_verdict(FOLDER / name / "verdict.json")
    assert found is not None
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_verdict_is_of_the_registration_as_it_stands(name: str) -> None:
    verdict = committed(name)
    assert verdict.registration == registration_hash(read_claim(name))
    assert verdict.budget == "full"
    records = read_compact(FOLDER / name / RECORDS)
    assert [each.run_id for each in records] == sorted(verdict.run_ids)


@pytest.mark.parametrize("name", choices("claim"))
def test_the_readme_has_the_verdict(name: str) -> None:
    (row,) = re.findall(rf"^.*\(docs/claims/{name}\.md\) \|.*$", README, re.MULTILINE)
    told = ["", "", ""]
    if name in NAMES:
        verdict = committed(name)
        mechanism, outcome = decisions(verdict.mechanisms), decisions(verdict.outcomes)
        told = [verdict.theorem, mechanism, outcome]
    assert [cell.strip() for cell in row.split("|")[2:5]] == told
    assert f"[{read_claim(name).statement}]" in row


def nothing_is_done(part: str) -> SweepObserver:
    raise AssertionError(f"{part}: a run was missing")


def told(designs: Sequence[DesignVerdict]) -> list[object]:
    return [
        (contrast.name, contrast.decision, contrast.n, pytest.approx(contrast.effect))
        for design in designs
        for contrast in design.contrasts
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_verdict_follows_from_its_records(name: str, tmp_path: Path) -> None:
    restore_records(FOLDER / name, tmp_path)
    # What the model zoos are built with changes with their versions.
    claim = read_claim(name).model_copy(update={"census": False})
    old = committed(name)
    request = Request(
        results=tmp_path,
        budget="full",
        engine=LocalEngine(name="local", workers=1, timeout=None),
        observe=nothing_is_done,
    )
    new = check(claim, prepare(claim, request), old.command)
    decisions = (old.theorem, old.mechanism, old.outcome)
    assert (new.theorem, new.mechanism, new.outcome) == decisions
    assert told(new.mechanisms) == told(old.mechanisms)
    assert told(new.outcomes) == told(old.outcomes)
