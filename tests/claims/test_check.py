"""Checks of claims, with made-up runs."""

import copy
import gzip
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from census_made import a_census, a_rule
from checks_made import ENGINE, Runner, a_claim, an_error, checked, in_folder
from claims_made import put
from typer.testing import CliRunner, Result

from normbench.claims import census, lock
from normbench.claims.check import (
    check,
    counted_models,
    prepare,
    with_arm,
    write_items,
    write_verdict,
)
from normbench.claims.trial import Request
from normbench.cli import app
from normbench.config.schema import RunConfig
from normbench.errors import NormbenchError, RequestError
from normbench.records import items
from normbench.records.store import read_compact, run_folder
from normbench.sweeps import round
from normbench.verdicts.counting import ModelCensus
from normbench.verdicts.files import read_verdict
from normbench.verdicts.registration import BudgetName, Claim, read_claim
from normbench.verdicts.verdict import Verdict


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Runner:
    made = Runner()
    monkeypatch.setattr(round, "run_all", made)
    return made


def headline(verdict: Verdict) -> str:
    (part,) = verdict.parts
    return part.headline


def test_quick_has_six_seeds_and_the_rates_it_is_given(
    runner: Runner, tmp_path: Path
) -> None:
    claim = a_claim()
    frozen = {"digits": {"a@2": 0.7}}
    request = Request(in_folder(tmp_path / "runs"), "quick", ENGINE, frozen=frozen)
    verdict = check(claim, prepare(claim, request), "")
    assert set(runner.seeds("batch")) == {(0.7, seed) for seed in range(6)}
    assert set(runner.seeds("group")) == {(0.2, seed) for seed in range(6)}
    assert [cell.frozen for cell in verdict.outcomes[0].cells] == [True, False]
    assert "for 1 of 2 cells" in verdict.caveats[0]


def test_smoke_tests_nothing(runner: Runner, tmp_path: Path) -> None:
    verdict = checked(a_claim(), tmp_path, "smoke")
    assert headline(verdict) == "not tested"
    assert [len(runs) for runs in runner.rounds] == [2]
    assert {config.budget.max_steps for config in runner.rounds[0]} == {10}


def test_a_design_is_repeated_on_each_data_set(runner: Runner, tmp_path: Path) -> None:
    data = {
        "small": {"overrides": "data.size=14"},
        "large": {"overrides": "data.size=28", "below": 0.05, "rates": [0.4]},
    }
    verdict = checked(a_claim(extend=0, data=data), tmp_path)
    small, large = verdict.outcomes
    assert (small.name, small.data) == ("digits-small", "small")
    assert (large.name, large.data) == ("digits-large", "large")
    assert [rate.lr for rate in large.cells[0].rates] == [0.4]
    assert (small.gate, large.gate) == (
        {"a": True, "b": True},
        {"a": False, "b": False},
    )
    sizes = [c.data.options["size"] for c in chain.from_iterable(runner.rounds)]
    assert (sizes.count(14), sizes.count(28)) == (32, 16)
    # One data set decides for the part, and the other does not decide.
    assert headline(verdict) == "not decided"
    smaller = a_claim(data=data).model_dump(exclude_defaults=True)
    smaller["quick"]["digits"] = {"data": ["large"]}
    quick = checked(Claim(**smaller), tmp_path, "quick")
    assert [design.name for design in quick.outcomes] == ["digits-large"]


def test_finished_runs_are_not_repeated_and_an_interrupted_check_continues(
    runner: Runner, tmp_path: Path
) -> None:
    def interrupted(config: RunConfig) -> str:
        if config.norm.name == "group" and config.seed == 5:
            raise KeyboardInterrupt
        return "ok"

    runner.status = interrupted
    with pytest.raises(KeyboardInterrupt):
        checked(a_claim(rates=[0.1]), tmp_path)
    runner.status = lambda config: "ok"
    done = sum(map(len, runner.rounds))
    runner.rounds.clear()
    verdict = checked(a_claim(rates=[0.1]), tmp_path)
    assert [config.seed for config in chain.from_iterable(runner.rounds)] == [5, 6, 7]
    runner.rounds.clear()
    assert checked(a_claim(rates=[0.1]), tmp_path).outcomes == verdict.outcomes
    assert runner.rounds == []
    assert done > 3


def test_a_shared_run_measures_the_probes_of_both_designs(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from normbench.probes.base import PROBES

    def probe(trained: Any) -> dict[str, float]:
        """Made up."""
        return {}

    monkeypatch.setitem(PROBES._functions, "one", probe)
    monkeypatch.setitem(PROBES._data, "one", object)
    plain = a_claim(rates=[0.1]).model_dump(exclude_defaults=True)
    contrast = plain["outcomes"]["digits"]["contrasts"][0]
    plain["outcomes"]["other"] = copy.deepcopy(plain["outcomes"]["digits"])
    plain["outcomes"]["digits"] |= {
        "probes": ["one"],
        "contrasts": [{**contrast, "metric": "one/x"}],
    }
    verdict = checked(Claim(**plain), tmp_path)
    assert [len(runs) for runs in runner.rounds] == [16]
    assert verdict.outcomes[0].contrasts[0].effect == 0.0
    assert verdict.outcomes[1].contrasts[0].decision == "confirmed"


def at_end(runner: Runner) -> set[tuple[str, ...]]:
    """Return what the runs evaluate at their end."""
    return {
        tuple(config.evaluation.at_end) for config in chain.from_iterable(runner.rounds)
    }


def test_runs_measure_what_a_design_needs_and_no_more(
    runner: Runner, tmp_path: Path
) -> None:
    checked(a_claim(extend=0), tmp_path / "a")
    assert at_end(runner) == {("val", "train")}
    for config in chain.from_iterable(runner.rounds):
        assert config.evaluations == 1
        assert config.evaluation.batch_size == "auto"
        assert config.evaluation.train_samples is None


def test_a_cell_without_averaged_weights_cannot_have_their_metrics(
    runner: Runner, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match="val_ema/error is of averaged weights"):
        checked(a_claim(validation="val_ema/error"), tmp_path)
    assert runner.rounds == []


def test_a_shared_run_measures_the_statistics_of_both_designs(
    runner: Runner, tmp_path: Path
) -> None:
    runner.metrics = lambda config: {
        **an_error(config),
        "val_recomputed/error": config.lr,
    }
    plain = a_claim(extend=0).model_dump(exclude_defaults=True)
    other = copy.deepcopy(plain["outcomes"]["digits"])
    plain["outcomes"]["other"] = other | {"validation": "val_recomputed/error"}
    checked(Claim(**plain), tmp_path)
    assert at_end(runner) == {("val", "train", "val_recomputed")}


def test_a_design_chooses_its_evaluation(runner: Runner, tmp_path: Path) -> None:
    claim = a_claim(extend=0, rates=[0.1])
    arm = "norm=layer evaluation=fast evaluation.batch_size=9 evaluations=3"
    checked(claim, tmp_path, arm=arm)
    (fast,) = {
        (config.evaluation.batch_size, config.evaluation.train_samples)
        for config in chain.from_iterable(runner.rounds)
        if config.norm.name == "layer_sample" and config.evaluations == 3
    }
    assert fast == (9, 1024)


def test_a_failed_run_is_counted_and_is_a_caveat(
    runner: Runner, tmp_path: Path
) -> None:
    runner.status = lambda c: "failed" if (c.seed, c.lr) == (3, 0.1) else "ok"
    verdict = checked(a_claim(rates=[0.1]), tmp_path)
    assert headline(verdict) == "not decided"
    assert [cell.failed for cell in verdict.outcomes[0].cells] == [1, 1]
    assert any("2 of 16 runs failed" in caveat for caveat in verdict.caveats)


def test_a_run_without_a_record_ends_the_check(runner: Runner, tmp_path: Path) -> None:
    runner.status = lambda config: None if config.seed == 3 else "ok"
    with pytest.raises(NormbenchError, match="2 of 16 runs left no record"):
        checked(a_claim(rates=[0.1]), tmp_path)


def test_a_metric_that_no_run_has_is_refused(runner: Runner, tmp_path: Path) -> None:
    for split in ("val", "test", "train"):
        plain = a_claim().model_dump(exclude_defaults=True)
        design = plain["outcomes"]["digits"]
        section, key = {
            "val": (design, "validation"),
            "test": (design["contrasts"][0], "metric"),
            "train": (design["gate"], "metric"),
        }[split]
        section[key] = f"{split}/eror"
        with pytest.raises(RequestError, match=f"did you mean '{split}/error'"):
            checked(Claim(**plain), tmp_path)


@pytest.mark.parametrize("budget", ["quick", "full"])
def test_an_extra_arm_does_not_change_the_registered_verdict(
    budget: BudgetName, runner: Runner, tmp_path: Path
) -> None:
    without = checked(a_claim(), tmp_path, budget)
    arm = "norm=instance"
    verdict = checked(a_claim(), tmp_path, budget, arm)
    registered, extra = verdict.outcomes[0].contrasts
    assert registered == without.outcomes[0].contrasts[0]
    assert verdict.registration == without.registration
    assert headline(verdict) == headline(without) == "holds"
    assert (extra.exploratory, extra.primary) == (True, False)
    assert extra.p_adjusted is None
    assert extra.effect == pytest.approx(0, abs=1e-9)
    assert verdict.outcomes[0].cells[-1].cell == "extra@2"
    skipped = checked(a_claim(), tmp_path, budget, "norm=group norm.num_groups=3")
    assert skipped.outcomes[0].contrasts[0] == registered
    assert skipped.outcomes[0].contrasts[1].decision == "not tested"


def test_an_extra_arm_replaces_one_arm_in_a_difference_of_differences() -> None:
    design = read_claim("instance-style-transfer").outcomes["raw"]
    *_, last = with_arm(design, "norm=mine").contrasts
    assert last.weights == {
        "extra@raw": 1,
        "instance@raw": -1,
        "extra@style": -1,
        "instance@style": 1,
    }


def test_a_full_verdict_is_written_with_its_records(
    runner: Runner, tmp_path: Path
) -> None:
    verdict = checked(a_claim(), tmp_path)
    path = write_verdict(verdict, tmp_path / "runs", tmp_path / "tiny")
    assert read_verdict(path) == verdict
    compact = path.with_name("records.jsonl.gz")
    records = read_compact(compact)
    assert [record.run_id for record in records] == verdict.run_ids
    assert {record.config.seed for record in records} == {*range(8)}
    before = compact.read_bytes()
    write_verdict(verdict, tmp_path / "runs", tmp_path / "tiny")
    assert compact.read_bytes() == before
    assert b"NaN" not in gzip.decompress(before)
    quick = checked(a_claim(), tmp_path, "quick")
    path = write_verdict(quick, tmp_path / "runs", tmp_path / "tiny")
    assert path.name == "verdict.quick.json"


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


def test_items_of_the_runs_that_have_some_are_written_beside_the_verdict(
    runner: Runner, tmp_path: Path
) -> None:
    verdict = checked(a_claim(), tmp_path)
    first, second, *_ = verdict.run_ids
    correct = {first: [True, False], second: [False, True]}
    for run_id, values in correct.items():
        run = items.Items(np.array([4, 7]), {"correct": np.array(values)})
        file = run_folder(tmp_path / "runs", run_id) / items.ITEMS
        items.write_all(file, {run_id: run})
    path, count = write_items(verdict, tmp_path / "runs", tmp_path)
    assert (path, count) == (tmp_path / items.ITEMS, 2)
    saved = items.read_all(path)
    assert {key: x.values["correct"].tolist() for key, x in saved.items()} == correct
    assert saved[first].index.tolist() == [4, 7]
    file.write_bytes(b"damaged")
    with pytest.raises(NormbenchError, match=rf"{second}/items.* is damaged"):
        write_items(verdict, tmp_path / "runs", tmp_path)


def test_the_command_writes_the_models_and_judges_them_again(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(*options: str) -> Result:
        folders = ["--config-dir", str(tmp_path), "--output", str(tmp_path / "claims")]
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
