"""Verdicts from saved records, of made-up runs."""

import shutil
from pathlib import Path

import pytest
from census_made import a_census, a_rule
from checks_made import Runner, a_claim, checked

from normbench.claims import census
from normbench.claims.check import write_verdict
from normbench.claims.saved import judge_again
from normbench.errors import RequestError
from normbench.records.store import read_compact, write_compact
from normbench.sweeps import round
from normbench.verdicts.counting import ModelCensus, judge_census
from normbench.verdicts.registration import Claim
from normbench.verdicts.verdict import Verdict


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Runner:
    made = Runner()
    monkeypatch.setattr(round, "run_all", made)
    return made


@pytest.fixture
def claim() -> Claim:
    return a_claim(extend=1)


@pytest.fixture
def saved(runner: Runner, claim: Claim, tmp_path: Path) -> Verdict:
    """Save the verdict of a full check, without the folders of its runs."""
    verdict = checked(claim, tmp_path)
    write_verdict(verdict, tmp_path / "runs", tmp_path)
    shutil.rmtree(tmp_path / "runs")
    runner.rounds.clear()
    return verdict


def test_the_verdict_of_the_same_records_is_the_same(
    saved: Verdict, runner: Runner, claim: Claim, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    new, differences = judge_again(claim, tmp_path, "again")
    assert differences == []
    assert new.model_copy(update={"started": "", "command": ""}) == saved.model_copy(
        update={"started": "", "command": ""}
    )
    assert new.command == "again"
    assert runner.rounds == []
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_failed_runs_are_judged_as_they_are_and_not_repeated(
    runner: Runner, claim: Claim, tmp_path: Path
) -> None:
    runner.status = lambda config: "failed" if config.seed == 3 else "ok"
    write_verdict(checked(claim, tmp_path), tmp_path / "runs", tmp_path)
    new, differences = judge_again(claim, tmp_path, "again")
    assert differences == []
    assert "failed" in new.caveats[-1]


def test_another_record_gives_differences(
    saved: Verdict, claim: Claim, tmp_path: Path
) -> None:
    records = read_compact(tmp_path / "records.jsonl.gz")
    worse = [
        record.model_copy(update={"metrics": record.metrics | {"test/error": 0.5}})
        if record.config.norm.name == "batch"
        else record
        for record in records
    ]
    write_compact(tmp_path / "records.jsonl.gz", worse)
    new, differences = judge_again(claim, tmp_path, "again")
    changed = {each.where: (each.old, each.new) for each in differences}
    assert changed["parts / better / headline"] == ("holds", "does not hold")
    where = "outcomes / digits / contrasts / a against b / effect"
    old_effect = saved.outcomes[0].contrasts[0].effect
    assert changed[where] == (old_effect, new.outcomes[0].contrasts[0].effect)


def test_rules_judge_the_models_beside_the_verdict_and_count_none(
    runner: Runner, claim: Claim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(names: object) -> ModelCensus:
        raise AssertionError("no model is built")

    rules = [a_rule(than=0.2, part="better", bears="for"), a_rule(name="most")]
    claim = claim.model_copy(update={"census": rules})
    counted = a_census()
    first = checked(claim, tmp_path, counted=counted)
    write_verdict(first, tmp_path / "runs", tmp_path, counted)
    monkeypatch.setattr(census, "model_census", count)
    new, differences = judge_again(claim, tmp_path, "again")
    assert differences == []
    assert new.census == first.census == [judge_census(r, counted) for r in rules]
    assert [each.decision for each in new.census] == ["confirmed", "contradicted"]
    assert new.parts[0].bearings[0].kind == "census"
    # Other models give other numbers, and another headline.
    census.write(tmp_path / census.FILE, a_census({"vit": {"layer": 1}}))
    new, differences = judge_again(claim, tmp_path, "again")
    changed = {each.where: (each.old, each.new) for each in differences}
    assert changed["census / BatchNorm is the default / total"] == (3, 1)
    assert changed["parts / better / headline"] == ("holds", "holds in part")
    (tmp_path / census.FILE).unlink()
    with pytest.raises(RequestError, match=r"census\.json is not there"):
        judge_again(claim, tmp_path, "again")


def test_a_missing_record_is_an_error_and_not_a_run(
    saved: Verdict, runner: Runner, claim: Claim, tmp_path: Path
) -> None:
    file = tmp_path / "records.jsonl.gz"
    records = read_compact(file)
    gone = next(record for record in records if record.config.seed == 5)
    write_compact(file, [record for record in records if record != gone])
    with pytest.raises(RequestError, match=f"lacks 1 of 32 runs .*{gone.run_id}"):
        judge_again(claim, tmp_path, "again")
    without_metrics = gone.config.evaluation.model_copy(update={"at_end": ["val"]})
    config = gone.config.model_copy(update={"evaluation": without_metrics})
    less = gone.model_copy(update={"config": config})
    write_compact(file, [less if record == gone else record for record in records])
    with pytest.raises(RequestError, match=f"lacks 1 of 32 runs .*{gone.run_id}"):
        judge_again(claim, tmp_path, "again")
    assert runner.rounds == []


def test_a_missing_file_is_an_error(
    saved: Verdict, claim: Claim, tmp_path: Path
) -> None:
    for name in ("verdict.json", "records.jsonl.gz"):
        (tmp_path / name).unlink()
        with pytest.raises(RequestError, match=f"{name} is not there"):
            judge_again(claim, tmp_path, "again")
