"""Checks of claims: with made-up runs, and by the command with tiny real ones."""

import copy
import gzip
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from claims_made import TINY, put
from conftest import Command
from records_made import A_RECORD
from sweeps_made import RecordingObserver

from normbench.claims.check import check, prepare, write_verdict
from normbench.claims.comparison import comparison
from normbench.claims.trial import Request
from normbench.config.schema import Engine, LocalEngine, RunConfig
from normbench.errors import NormbenchError, RequestError
from normbench.records.store import Results, RunWriter, read_compact
from normbench.sweeps import round
from normbench.sweeps.engines.base import Work
from normbench.sweeps.round import Rounds
from normbench.tasks.base import REGISTRY as TASKS
from normbench.training.environment import environment
from normbench.verdicts.files import read_verdict
from normbench.verdicts.registration import BudgetName, Claim, read_claim
from normbench.verdicts.verdict import Verdict

ENGINE = LocalEngine(name="local", workers=1, timeout=None)
Plain = dict[str, Any]


def an_error(config: RunConfig) -> dict[str, float | None]:
    """batch is better than group, and best at a rate of .8."""
    error = 0.1 if config.norm.name == "batch" else 0.2
    error += 0.01 * abs(config.lr - 0.8) + 0.0001 * (config.seed % 7)
    return {f"{split}/error": error for split in ("train", "val", "test")}


class Runner:
    """Stands for `run_all`: records what it was asked for, and makes up the rest."""

    def __init__(self) -> None:
        self.metrics = an_error
        self.changes: Plain = {}
        self.status: Callable[[RunConfig], str | None] = lambda config: "ok"
        self.rounds: list[list[RunConfig]] = []

    def __call__(self, work: Work, engine: Engine) -> None:
        self.rounds.append(list(work.runs.values()))
        for key, config in work.runs.items():
            status = self.status(config)
            if status is None:
                continue
            ok = status == "ok"
            made_up = {
                "run_id": key,
                "config": config,
                "environment": environment("cpu", (), config),
                "status": status,
                "metrics": self.metrics(config) if ok else {"test/error": None},
                "probes": {f"{probe}/x": 1.0 for probe in config.probes},
            }
            with RunWriter(work.results.folder, key) as writer:
                writer.begin(config)
                writer.finish(A_RECORD.model_copy(update=made_up | self.changes))

    def seeds(self, norm: str) -> Iterator[tuple[float, int]]:
        for config in (config for each in self.rounds for config in each):
            if config.norm.name == norm:
                yield config.lr, config.seed


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Runner:
    made = Runner()
    monkeypatch.setattr(round, "run_all", made)
    return made


def a_claim(**design: Any) -> Claim:
    plain = copy.deepcopy(TINY)
    plain["outcomes"]["digits"] |= {"cells": ["a@2", "b@32"], **design}
    return Claim(**plain)


def in_folder(folder: Path) -> Rounds:
    return Rounds(Results(folder), lambda *_: RecordingObserver())


def checked(
    claim: Claim, folder: Path, budget: BudgetName = "full", arm: str | None = None
) -> Verdict:
    request = Request(in_folder(folder / "runs"), budget, ENGINE)
    return check(claim, prepare(claim, request, arm), "normbench claim check tiny")


def test_rates_are_chosen_on_other_seeds_and_further_ones_tried_at_an_edge(
    runner: Runner, tmp_path: Path
) -> None:
    verdict = checked(a_claim(extend=5), tmp_path)
    for cell in verdict.outcomes[0].cells:
        assert cell.rate.lr == 0.8
        assert list(cell.rate.validation) == ["0.1", "0.2", "0.4", "0.8", "1.6"]
        assert not cell.rate.at_edge
    asked = set(runner.seeds("batch"))
    assert {seed for lr, seed in asked if lr != 0.8} == {1000, 1001}
    assert {seed for lr, seed in asked if lr == 0.8} == {*range(8), 1000, 1001}
    assert (verdict.outcome, verdict.outcomes[0].contrasts[0].n) == ("supported", 8)


def test_an_edge_that_is_not_left_is_said(runner: Runner, tmp_path: Path) -> None:
    verdict = checked(a_claim(extend=1), tmp_path)
    assert {cell.rate.lr for cell in verdict.outcomes[0].cells} == {0.4}
    # The good rates are within the margin of the best one.
    assert verdict.outcomes[0].cells[0].rate.good == [0.1, 0.2, 0.4]
    assert any("edge" in caveat and "a@2" in caveat for caveat in verdict.caveats)


def test_rates_go_down_where_all_diverge(runner: Runner, tmp_path: Path) -> None:
    runner.status = lambda config: "ok" if config.lr < 0.06 else "diverged"
    plain = a_claim(extend=3).model_dump(exclude_defaults=True)
    plain["outcomes"]["digits"]["validation"] = "val/loss"
    runner.metrics = lambda config: {**an_error(config), "val/loss": config.lr}
    verdict = checked(Claim(**plain), tmp_path)
    tried = verdict.outcomes[0].cells[0].rate
    assert tried.validation == {
        "0.0125": 0.0125,
        "0.025": 0.025,
        "0.05": 0.05,
        "0.1": None,
        "0.2": None,
    }
    assert (tried.lr, tried.at_edge) == (0.0125, True)


def test_one_rate_is_not_tuned(runner: Runner, tmp_path: Path) -> None:
    verdict = checked(a_claim(rates=[0.1]), tmp_path)
    assert len(runner.rounds) == 1
    assert {seed for _, seed in runner.seeds("batch")} == set(range(8))
    assert verdict.caveats == []


def test_the_best_rate_is_the_highest_of_a_metric_that_its_task_maximizes(
    runner: Runner, tmp_path: Path
) -> None:
    runner.changes = {"direction": "maximize", "primary_metric": "test/error"}
    verdict = checked(a_claim(rates=[0.1, 0.8, 1.4], extend=0), tmp_path)
    (outcome,) = verdict.outcomes
    for cell in outcome.cells:
        assert (cell.rate.lr, cell.rate.at_edge) == (0.1, True)
        assert cell.rate.good == [0.1, 0.8, 1.4]
    assert outcome.gate == {"a": False, "b": False}  # neither is above .9
    # Of other metrics less is better.
    runner.changes["primary_metric"] = "test/accuracy"
    again = checked(a_claim(rates=[0.1, 0.8, 1.4], extend=0), tmp_path / "other")
    assert [cell.rate.lr for cell in again.outcomes[0].cells] == [0.8, 0.8]
    assert again.outcomes[0].gate == {"a": True, "b": True}


def test_quick_has_six_seeds_and_the_rates_it_is_given(
    runner: Runner, tmp_path: Path
) -> None:
    claim = a_claim()
    frozen = {"digits": {"a@2": 0.7}}
    request = Request(in_folder(tmp_path / "runs"), "quick", ENGINE, frozen=frozen)
    verdict = check(claim, prepare(claim, request), "")
    assert set(runner.seeds("batch")) == {(0.7, seed) for seed in range(6)}
    assert set(runner.seeds("group")) == {(0.2, seed) for seed in range(6)}
    assert [cell.rate.frozen for cell in verdict.outcomes[0].cells] == [True, False]
    assert "for 1 of 2 cells" in verdict.caveats[0]


def test_smoke_tests_nothing(runner: Runner, tmp_path: Path) -> None:
    verdict = checked(a_claim(), tmp_path, "smoke")
    assert verdict.outcome == "not tested"
    assert [len(each) for each in runner.rounds] == [2]
    assert {config.budget.max_steps for config in runner.rounds[0]} == {10}


def test_what_is_done_is_not_done_again_and_an_interrupted_check_goes_on(
    runner: Runner, tmp_path: Path
) -> None:
    def interrupted(config: RunConfig) -> str:
        if config.norm.name == "group" and config.seed == 5:
            raise KeyboardInterrupt
        return "ok"

    runner.status = interrupted
    with pytest.raises(KeyboardInterrupt):
        checked(a_claim(), tmp_path)
    runner.status = lambda config: "ok"
    done = sum(map(len, runner.rounds))
    runner.rounds.clear()
    verdict = checked(a_claim(), tmp_path)
    assert [c.seed for each in runner.rounds for c in each] == [5, 6, 7]
    runner.rounds.clear()
    assert checked(a_claim(), tmp_path).outcomes == verdict.outcomes
    assert runner.rounds == []
    assert done > 3


def test_designs_that_share_a_run_measure_what_either_asks(
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
    assert [len(each) for each in runner.rounds] == [16]
    assert verdict.outcomes[0].contrasts[0].effect == 0.0
    assert verdict.outcomes[1].decision == "supported"


def test_a_run_that_failed_is_counted_and_said(runner: Runner, tmp_path: Path) -> None:
    runner.status = lambda c: "failed" if (c.seed, c.lr) == (3, 0.1) else "ok"
    verdict = checked(a_claim(rates=[0.1]), tmp_path)
    assert verdict.outcome == "inconclusive"
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
def test_an_extra_arm_is_apart_from_the_registered_verdict(
    budget: BudgetName, runner: Runner, tmp_path: Path
) -> None:
    without = checked(a_claim(), tmp_path, budget)
    arm = "norm=instance"
    verdict = checked(a_claim(), tmp_path, budget, arm)
    registered, extra = verdict.outcomes[0].contrasts
    assert registered == without.outcomes[0].contrasts[0]
    assert verdict.registration == without.registration
    assert verdict.outcome == without.outcome == "supported"
    assert (extra.exploratory, extra.primary) == (True, False)
    assert extra.p_adjusted is None
    assert extra.effect == pytest.approx(0, abs=1e-9)
    assert verdict.outcomes[0].cells[-1].cell == "extra@2"
    skipped = checked(a_claim(), tmp_path, budget, "norm=group norm.num_groups=3")
    assert skipped.outcomes[0].contrasts[0] == registered
    assert skipped.outcomes[0].contrasts[1].decision == "not tested"


def test_an_extra_arm_takes_one_place_in_a_difference_of_differences() -> None:
    from normbench.claims.check import with_arm

    design = read_claim("instance-style-transfer").outcomes["raw"]
    *_, last = with_arm(design, "norm=mine").contrasts
    assert last.weights == {
        "extra@raw": 1,
        "instance@raw": -1,
        "extra@style": -1,
        "instance@style": 1,
    }


def test_a_full_verdict_is_written_with_the_records_it_rests_on(
    runner: Runner, tmp_path: Path
) -> None:
    verdict = checked(a_claim(), tmp_path)
    path = write_verdict(verdict, tmp_path / "runs", tmp_path / "tiny")
    assert read_verdict(path) == verdict
    compact = path.with_name("records.jsonl.gz")
    records = read_compact(compact)
    assert [each.run_id for each in records] == verdict.run_ids
    assert {each.config.seed for each in records} == {*range(8), 1000, 1001}
    before = compact.read_bytes()
    write_verdict(verdict, tmp_path / "runs", tmp_path / "tiny")
    assert compact.read_bytes() == before
    assert b"NaN" not in gzip.decompress(before)
    quick = checked(a_claim(), tmp_path, "quick")
    path = write_verdict(quick, tmp_path / "runs", tmp_path / "tiny")
    assert path.name == "verdict.quick.json"


ARMS = ["norm=batch", "norm=group norm.num_groups=2,4"]


def compared(arms: Sequence[str] = ARMS, **changes: Any) -> Claim:
    given: Plain = {
        "metric": "test/error",
        "margin": 0.01,
        "rates": [0.1],
        "seeds": 8,
        "gate": 0.5,
    }
    return comparison(arms, ["batch_size=8,32"], **(given | changes))


def test_a_comparison_is_of_all_arms_with_the_first_at_every_level() -> None:
    claim = compared()
    (design,) = claim.outcomes.values()
    assert len(design.arms) == 3
    assert len(design.all_cells()) == 6
    assert len(design.contrasts) == 4
    assert all(c.exploratory and c.says == "less" for c in design.contrasts)
    assert design.validation == "val/error"
    precise = compared(metric="test_recomputed/loss").outcomes["comparison"]
    assert (precise.validation, precise.gate.metric) == (
        "val_recomputed/loss",
        "train/loss",
    )
    assert compared(metric="train/error").outcomes["comparison"].validation == (
        "val/error"
    )


def test_a_better_arm_has_more_of_a_metric_that_the_task_maximizes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(TASKS.get("style"), "direction", "maximize")
    primary = TASKS.get("style").primary_metric
    arms = ["task=style norm=batch", "task=style norm=instance"]
    for metric, says in ((f"test/{primary}", "greater"), ("test/other", "less")):
        design = compared(arms, metric=metric).outcomes["comparison"]
        assert {contrast.says for contrast in design.contrasts} == {says}, metric


def test_a_wrong_comparison_is_refused() -> None:
    wrong: list[tuple[Plain, str]] = [
        ({"arms": ["norm=batch"]}, "two arms"),
        ({"arms": ["norm=batch", "norm=batch"]}, "two arms"),
        ({"margin": 0.0}, "margin"),
        ({"rates": [-1.0]}, "rates"),
        ({"metric": "error"}, "SPLIT/METRIC"),
    ]
    for change, message in wrong:
        with pytest.raises(RequestError, match=message):
            compared(**change)


# Real runs, by the command, in a folder that is a git repository.

Normbench = Callable[..., subprocess.CompletedProcess[str]]


def real(**changes: Any) -> Plain:
    plain = copy.deepcopy(TINY)
    plain["outcomes"]["digits"] |= {
        "common": "task=cnn data.size=14 task.stem_stride=2 task.width=8 "
        "budget.max_steps=10",
        "arms": {"a": "norm=batch", "b": "norm=affine"},
        "cells": ["a@2", "b@32"],
        "tuning_seeds": 1,
        "extend": 0,
        "seeds": 6,
        "gate": {"metric": "train/error", "below": 0.99},
        **changes,
    }
    return plain


def git(folder: Path, *arguments: str) -> None:
    settings = ("user.name=n", "user.email=n@n", "commit.gpgsign=false")
    options = [word for setting in settings for word in ("-c", setting)]
    subprocess.run(["git", *options, *arguments], cwd=folder, check=True)


def normbench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "normbench", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


MINE = ["--config-dir", "mine"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with a claim that was checked in full."""
    made = tmp_path_factory.mktemp("user")
    put(real(), made / "mine")
    git(made, "init", "-q")
    full = ["claim", "check", "tiny", *MINE, "--budget", "full"]
    refused = normbench(made, *full)
    assert refused.returncode == 2
    assert "is not committed as it stands" in refused.stderr
    assert not (made / "results").exists()
    git(made, "add", "mine")
    git(made, "commit", "-qm", "registered")
    done = normbench(made, *full)
    assert done.returncode == 0, done.stderr
    assert "tiny: rates, 0 of 4 are done" in done.stderr
    assert "tiny: test seeds, 0 of 12 are done" in done.stderr
    assert "OUTCOME    " in done.stdout
    assert "wrote results/claims/tiny/verdict.json" in done.stdout
    return made


def verdict_of(folder: Path, name: str = "verdict.json") -> Verdict:
    found = read_verdict(folder / "results" / "claims" / "tiny" / name)
    assert found is not None
    return found


def runs_in(folder: Path) -> int:
    return len(list(folder.glob("results/runs/??/*/result.json")))


@pytest.mark.slow
def test_a_full_check_leaves_its_verdict_and_its_records(folder: Path) -> None:
    verdict = verdict_of(folder)
    (design,) = verdict.outcomes
    assert verdict.theorem == "supported"
    assert design.contrasts[0].n == 6
    assert design.contrasts[0].effect is not None
    records = read_compact(folder / "results" / "claims" / "tiny" / "records.jsonl.gz")
    assert len(records) == len(verdict.run_ids) == 16
    assert {key: len(v) for key, v in verdict.environment.items()} == {
        "code": 1,
        "device": 1,
        "torch": 1,
        "mlxtend": 1,
    }
    # The runs are ordinary ones, which a sweep finds.
    (cell,) = (c for c in design.cells if c.cell == "b@32")
    common = real()["outcomes"]["digits"]["common"].split()
    words = [*common, "norm=affine", "norm_batch=32", f"lr={cell.rate.lr}"]
    words += ["seed=range(0,6)", "tracker=none", "--dry-run", "--json"]
    planned = json.loads(normbench(folder, "sweep", *words).stdout)
    assert (planned["finished"], planned["missing"]) == (6, 0)


@pytest.mark.slow
def test_a_quick_check_takes_its_rates_and_runs(folder: Path) -> None:
    before = runs_in(folder)
    done = normbench(folder, "claim", "check", "tiny", *MINE, "--json")
    assert done.returncode == 0, done.stderr
    assert "runs to do" not in done.stderr
    assert runs_in(folder) == before
    (plain,) = json.loads(done.stdout)
    assert plain["budget"] == "quick"
    assert all(c["rate"]["frozen"] for c in plain["outcomes"][0]["cells"])
    quick = verdict_of(folder, "verdict.quick.json").outcomes[0].contrasts
    full = verdict_of(folder).outcomes[0].contrasts
    assert all(contrast.at_one_rate for contrast in full)
    assert quick == [c.model_copy(update={"at_one_rate": {}}) for c in full]


@pytest.mark.slow
def test_a_verdict_is_made_again_from_the_records_beside_it(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "results" / "runs")
    again = ["claim", "check", "tiny", *MINE, "--budget", "full", "--from-records"]
    done = normbench(tmp_path, *again)
    assert done.returncode == 0, done.stderr
    assert "test seeds" not in done.stderr  # none was to be done
    old, new = verdict_of(folder), verdict_of(tmp_path)
    unlike = {"started": "", "command": ""}
    assert new.model_copy(update=unlike) == old.model_copy(update=unlike)


@pytest.mark.slow
def test_an_interrupted_check_goes_on_where_it_was(tmp_path: Path) -> None:
    put(real(), tmp_path / "mine")
    words = [sys.executable, "-m", "normbench", "claim", "check", "tiny", *MINE]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd=tmp_path, **pipes) as first:
        while runs_in(tmp_path) < 3 and first.poll() is None:
            time.sleep(0.05)
        first.send_signal(signal.SIGINT)
        _, errors = first.communicate(timeout=60)
    assert first.returncode == 130, errors
    assert not list(tmp_path.glob("results/claims/**/verdict*.json"))
    before = {
        path: path.stat().st_mtime_ns
        for path in tmp_path.glob("results/runs/??/*/result.json")
    }
    assert 3 <= len(before) < 12
    again = normbench(tmp_path, *words[3:])
    assert again.returncode == 0, again.stderr
    assert f"test seeds, {len(before)} of 12 are done" in again.stderr
    assert runs_in(tmp_path) == 12
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())


@pytest.mark.slow
def test_list_and_show_have_the_verdict_and_say_when_the_yaml_has_changed(
    folder: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(folder, copied)

    def listed() -> Plain:
        done = normbench(copied, "claim", "list", *MINE, "--json")
        (tiny,) = (row for row in json.loads(done.stdout) if row["name"] == "tiny")
        return dict(tiny)

    assert listed()["outcome"] == verdict_of(copied).outcome
    assert listed()["changed"] is False
    shown = json.loads(
        normbench(copied, "claim", "show", "tiny", *MINE, "--json").stdout
    )
    assert shown["verdict"] == verdict_of(copied).model_dump(mode="json")
    assert shown["cost"]["full"]["tuning_runs"] == 4
    put(real(extend=1), copied / "mine")
    assert listed()["changed"] is True
    done = normbench(copied, "claim", "show", "tiny", *MINE)
    assert "the yaml has changed since this verdict" in done.stdout
    done = normbench(copied, "claim", "list", *MINE)
    assert "changed since" in " ".join(done.stdout.split())
    git(copied, "add", "mine")
    refused = normbench(copied, "claim", "check", "tiny", *MINE, "--budget", "full")
    assert refused.returncode == 2


@pytest.mark.slow
def test_an_arm_of_ones_own_is_reported_and_not_written(folder: Path) -> None:
    files = sorted(folder.glob("results/claims/**/*"))
    arm = ["--arm", "norm=group norm.num_groups=2"]
    done = normbench(folder, "claim", "check", "tiny", *MINE, *arm)
    assert done.returncode == 0, done.stderr
    assert "(exploratory)" in done.stdout
    assert sorted(folder.glob("results/claims/**/*")) == files


@pytest.mark.slow
def test_compare_goes_the_same_road(folder: Path) -> None:
    words = [*real()["outcomes"]["digits"]["common"].split()]
    arms = ["--arm", "norm=affine", "--arm", "norm=batch"]
    options = ["--rates", "0.1,0.2", "--seeds", "6", "--gate", "0.99", "--json"]
    done = normbench(folder, "compare", *words, *arms, *options)
    assert done.returncode == 0, done.stderr
    plain = json.loads(done.stdout)
    (contrast,) = plain["outcomes"][0]["contrasts"]
    assert contrast["exploratory"] is True
    assert contrast["n"] == 6
    assert plain["budget"] == "full"


def test_a_wrong_request_ends_with_exit_code_2_and_leaves_nothing(
    invoke: Command, tmp_path: Path
) -> None:
    put(real(), tmp_path / "mine")
    for arguments, message in (
        (["claim", "check"], "name a claim"),
        (["claim", "check", "tinny"], "is unknown"),
        (["claim", "check", "tiny", "--all"], "not both"),
        (["claim", "check", "tiny", "--arm", "norm=batch lr=1"], "lr=1 cannot"),
        (["compare", "--arm", "norm=batch"], "two arms"),
        (["compare", "--rates", "a,b"], "not a list of numbers"),
        (
            ["claim", "check", "tiny", "--from-records"],
            "results/claims/tiny/records.jsonl.gz is not there",
        ),
    ):
        done = invoke(*arguments, *MINE)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr, arguments
        assert not (tmp_path / "results").exists(), arguments
