"""Checks of claims with census rules, with made-up runs and models."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from census_made import a_census, a_rule
from checks_made import Runner, a_claim, checked
from claims_made import put
from typer.testing import CliRunner, Result

from normbench.claims import census, lock
from normbench.claims.check import counted_models, write_verdict
from normbench.cli import app
from normbench.sweeps import round
from normbench.verdicts.counting import ModelCensus
from normbench.verdicts.files import read_verdict


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Runner:
    made = Runner()
    monkeypatch.setattr(round, "run_all", made)
    return made


def test_only_a_full_check_counts_models_and_a_caveat_says_so(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(names: Iterable[str]) -> ModelCensus:
        asked.append(list(names))
        return a_census()

    asked: list[list[str]] = []
    monkeypatch.setattr(census, "model_census", count)
    rules = [a_rule(than=0.2, part="better", bears="for"), a_rule(name="most")]
    claim = a_claim().model_copy(update={"census": rules})
    caveat = "only a full check counts models, for the census rules: "
    for budget in ("smoke", "quick"):
        assert counted_models(claim, budget) is None
        verdict = checked(claim, tmp_path, budget)
        assert verdict.census == []
        assert f"{caveat}{rules[0].name}; most" in verdict.caveats
        path = write_verdict(verdict, tmp_path / "runs", tmp_path / "tiny")
        assert not path.with_name(census.FILE).exists()
    assert counted_models(a_claim(), "full") is None
    assert asked == []
    counted = counted_models(claim, "full")
    assert asked == [["default_norms"]]
    verdict = checked(claim, tmp_path, counted=counted)
    assert not any(each.startswith(caveat) for each in verdict.caveats)
    assert [rule.decision for rule in verdict.census] == ["confirmed", "contradicted"]
    path = write_verdict(verdict, tmp_path / "runs", tmp_path / "tiny", counted)
    assert census.read(path.with_name(census.FILE)) == counted
    assert read_verdict(path) == verdict


def test_the_command_writes_the_models_and_judges_them_again(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(*options: str) -> Result:
        folders = ["--config-dir", str(tmp_path), "--claims", str(tmp_path / "claims")]
        return CliRunner().invoke(app, ["claim", "check", "tiny", *folders, *options])

    rule = a_rule(than=0.2, part="better", bears="for").model_dump(exclude_unset=True)
    put(a_claim().model_dump(exclude_unset=True) | {"census": [rule]}, tmp_path)
    monkeypatch.setattr(lock, "require_committed", lambda *_: None)
    monkeypatch.setattr(census, "model_census", lambda names: a_census())
    full = command("--budget", "full", "--results", str(tmp_path / "runs"))
    assert full.exit_code == 0, full.output
    line = "census, confirmed: more than 20 % of the models of torchvision have"
    assert line in " ".join(full.stdout.split())
    written = census.read(tmp_path / "claims" / "tiny" / census.FILE)
    assert written == a_census()
    monkeypatch.delattr(census, "model_census")
    again = command("--from-records")
    assert again.exit_code == 0, again.output
    assert "same verdict as" in again.stdout and line in " ".join(again.stdout.split())
