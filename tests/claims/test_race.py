"""Races with made-up runs and a made-up clock."""

import shutil
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from checks_made import ENGINE, in_folder
from races_made import ERRORS, RUN_SECONDS, Clock, TimedRunner
from records_made import A_RECORD

from normbench.claims import race, trial
from normbench.claims.check import prepare
from normbench.claims.comparison import comparison
from normbench.claims.trial import Request
from normbench.config.composer import Composer
from normbench.config.schema import Engine
from normbench.errors import NormbenchError, RequestError
from normbench.report.text.ranking import ranking_text
from normbench.sweeps import round
from normbench.sweeps.engines.base import Work
from normbench.verdicts.ranking import Ranking
from normbench.verdicts.seeds import FULL_TUNING_SEEDS

LOOKS = (6, 8, 10, 12, 16)
COMPOSER = cache(Composer)
"""All races share one composer, which remembers what it has composed."""
ARMS = ("norm=batch", "norm=group", "norm=instance", "norm=none")
NAMES = ("BatchNorm", "GroupNorm", "InstanceNorm", "no norm")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(race, "time", made)
    monkeypatch.setattr(round, "time", made)
    return made


@pytest.fixture
def runner(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> TimedRunner:
    made = TimedRunner(clock)
    monkeypatch.setattr(round, "run_all", made)
    monkeypatch.setattr(trial, "Composer", COMPOSER)
    return made


def raced(
    folder: Path,
    minutes: float = 60.0,
    arms: tuple[str, ...] = ARMS,
    overrides: tuple[str, ...] = (),
    **changes: Any,
) -> Ranking:
    given: dict[str, Any] = {
        "metric": "test/error",
        "margin": 0.01,
        "rates": [0.1, 0.2, 0.4],
        "seeds": LOOKS,
        "gate": 0.9,
    }
    claim = comparison(arms, overrides, **(given | changes))
    rounds = in_folder(folder / "runs")
    prepared = prepare(claim, Request(rounds, "full", ENGINE, "compare"))
    command = "normbench compare .."
    return race.race(claim, prepared, rounds, minutes=minutes, command=command)


def places(ranking: Ranking) -> dict[str, str]:
    return {arm.arm: arm.place for arm in ranking.arms}


def test_the_best_arm_is_found_and_the_others_stop_early(
    runner: TimedRunner, tmp_path: Path
) -> None:
    ranking = raced(tmp_path)
    assert ranking.ended == "settled"
    assert places(ranking)["BatchNorm"] == "best"
    assert set(places(ranking).values()) == {"best", "worse"}
    assert ranking.not_distinguishable == ["BatchNorm"]
    (dropped,) = ranking.left_out
    assert dropped.arm == "no norm" and "tuning seeds" in dropped.reason
    assert {arm.lr for arm in ranking.tuning} == {0.2}
    seeds = runner.test_seeds
    assert "none" not in seeds and seeds["instance"] == 6 < seeds["group"]
    assert seeds["group"] == seeds["batch"] == ranking.seen[-1]
    answer = "\nBatchNorm is the best of 3 arms: 10."
    assert answer in ranking_text(ranking)
    assert all(len(line) <= 80 for line in ranking_text(ranking).splitlines())


def test_the_phases_have_their_shares_of_the_time(
    runner: TimedRunner, tmp_path: Path
) -> None:
    ranking = raced(tmp_path, minutes=10)
    first, *others = runner.deadlines
    assert first == 50 + 600.0  # the first round may take the whole time
    assert set(others) == {50 + 200.0, 50 + 600.0}
    tuning, test = ranking.spent
    assert tuning.minutes <= 10 / 3
    assert tuning.runs + test.runs == sum(map(len, runner.rounds))
    assert tuning.core_seconds == pytest.approx(RUN_SECONDS * tuning.runs)
    assert test.minutes == pytest.approx(RUN_SECONDS * test.runs / 60)


def test_a_continued_race_is_judged_as_one_without_interruption(
    runner: TimedRunner, tmp_path: Path
) -> None:
    runner.means = ERRORS | {"group": 0.108}
    parts = [raced(tmp_path, minutes=3) for _ in range(4)]
    assert parts[0].ended == "time" and parts[0].further is not None
    for before, after in pairwise(parts):
        assert after.seen[: len(before.seen)] == before.seen
        worse = {arm for arm, place in places(before).items() if place == "worse"}
        assert worse <= {a for a, place in places(after).items() if place == "worse"}
    with_looks = [part for part in parts if part.seen]
    assert 1 < len(with_looks) and len(with_looks[-1].seen) > 1
    # The first test run fixes the rates.
    assert all(part.tuning == parts[-1].tuning for part in with_looks)
    assert all(part.spent[0].runs == 0 for part in with_looks[1:])
    # Without an interruption, the same rates lead to the same ranking.
    (kept,) = tmp_path.glob("runs/races/*.json")
    elsewhere = tmp_path / "elsewhere" / "runs" / "races"
    elsewhere.mkdir(parents=True)
    shutil.copy(kept, elsewhere)
    whole = raced(tmp_path / "elsewhere", minutes=600)
    again = raced(tmp_path, minutes=600)
    assert (whole.arms, whole.seen, whole.ended) == (
        again.arms,
        again.seen,
        again.ended,
    )
    assert again.left_out == whole.left_out


def test_rates_on_few_seeds_may_be_tuned_again(
    runner: TimedRunner, tmp_path: Path
) -> None:
    ranking = raced(tmp_path, minutes=3)
    (kept,) = tmp_path.glob("runs/races/*.json")
    (caveat,) = (text for text in ranking.caveats if "tuning seeds" in text)
    assert "to tune again, give more --minutes and other --rates or" in caveat
    kept.unlink()
    again = raced(tmp_path, minutes=60)
    assert min(arm.seeds[f"{arm.lr:g}"] for arm in again.tuning) == 4
    others = kept.read_text().replace("GroupNorm", "RMSNorm")
    for damage, message in (("{", "remove it"), (others, "other arms")):
        kept.write_text(damage)
        with pytest.raises(RequestError, match=message):
            raced(tmp_path, minutes=60)


def test_a_look_that_the_time_does_not_suffice_for_is_not_begun(
    runner: TimedRunner, tmp_path: Path
) -> None:
    # The first tuning seed of two rates takes 28 s, which is within a third of the
    # time. Then 62 s are left, and six test seeds would take 84 s.
    ranking = raced(tmp_path, minutes=1.5, rates=[0.1, 0.2])
    assert ranking.arms == [] and ranking.ended == "time"
    assert runner.test_seeds == {}
    assert ranking.further is not None and ranking.further.seeds == 6
    needed = 4 * 6 * RUN_SECONDS / 60
    assert ranking.further.minutes == pytest.approx(needed)
    text = ranking_text(ranking)
    assert "\nThere is no ranking yet: the time was too short" in text
    assert "val/error by lr" in text
    assert "the first look needs 6 test seeds of 4 arms" in " ".join(text.split())
    assert any("1 of 4 tuning seeds" in caveat for caveat in ranking.caveats)


def test_a_look_that_takes_longer_than_a_command_gets_done_by_several(
    runner: TimedRunner, tmp_path: Path
) -> None:
    # 24 runs take 84 s.
    first, *_, last = [raced(tmp_path, 0.5, rates=[0.2]) for _ in range(4)]
    assert first.seen == [] and 6 in last.seen
    assert first.arms == last.provisional == []


def test_too_little_time_for_the_first_look_shows_provisional_means(
    runner: TimedRunner, tmp_path: Path
) -> None:
    """The first test run fixes the rates, so a repeated command only adds runs."""
    runner.means = ERRORS | {"none": 0.2}
    first, second = (raced(tmp_path, minutes=1.2, seeds=(20, 24)) for _ in range(2))
    assert first.seen == second.seen == []
    (n,) = {arm.n for arm in first.provisional}
    assert 0 < n < second.provisional[0].n
    names = [arm.arm for arm in second.provisional]
    assert names == ["BatchNorm", "GroupNorm", "InstanceNorm", names[-1]]
    assert second.tuning == first.tuning and second.spent[0].runs == 0
    for arm in second.provisional:
        assert arm.peak_lr == arm.lr and arm.mean is not None
        norm = {"BatchNorm": "batch", "GroupNorm": "group"}.get(arm.arm)
        if norm:
            assert arm.mean == pytest.approx(runner.means[norm], abs=0.02)
    assert any("test seeds use them" in caveat for caveat in first.caveats)
    text = " ".join(ranking_text(first).split())
    assert text.endswith("Repeat the command to continue at the same rates.")
    assert first.further is not None and first.further.seeds == 20 - n


def test_the_first_tuning_seed_may_take_more_than_a_third(
    runner: TimedRunner, tmp_path: Path
) -> None:
    ranking = raced(tmp_path, minutes=1)  # 12 runs take 42 s
    assert len(ranking.tuning) == 4 and ranking.further is not None
    assert ranking.spent[0].runs == 12
    assert {seeds for arm in ranking.tuning for seeds in arm.seeds.values()} == {1}


def test_too_little_time_for_the_first_tuning_seed_ranks_nothing(
    runner: TimedRunner, tmp_path: Path
) -> None:
    ranking = raced(tmp_path, minutes=0.2)
    assert (ranking.arms, ranking.ended) == ([], "time")
    assert [arm.arm for arm in ranking.tuning] == ["BatchNorm"]
    assert [spent.phase for spent in ranking.spent] == ["tuning"]
    assert ranking.further is not None and len(ranking.further.arms) == 4
    assert "no ranking" in ranking_text(ranking)
    assert not (tmp_path / "runs" / "races").exists()


def test_equal_arms_are_named_as_not_distinguishable(
    runner: TimedRunner, tmp_path: Path
) -> None:
    runner.means = dict.fromkeys(ERRORS, 0.1)
    ranking = raced(tmp_path, minutes=600, margin=0.0001)
    assert (ranking.ended, ranking.seen) == ("last look", list(LOOKS))
    assert sorted(ranking.not_distinguishable) == sorted(NAMES)
    assert "\nNot decided which of " in ranking_text(ranking)
    wide = raced(tmp_path, minutes=600, margin=0.05)
    assert wide.ended == "settled"
    assert list(places(wide).values()) == ["best", "equal", "equal", "equal"]
    text = " ".join(ranking_text(wide).split())
    assert "As good within the margin of 5 points" in text


def test_one_rate_is_not_tuned_and_drops_no_arm(
    runner: TimedRunner, tmp_path: Path
) -> None:
    ranking = raced(tmp_path, rates=[0.2], overrides=("batch_size=8",))
    assert (ranking.tuning, ranking.left_out) == ([], [])
    assert {(arm.lr, arm.peak_lr) for arm in ranking.arms} == {(0.2, 0.05)}
    assert set(runner.test_seeds) == {"batch", "group", "instance", "none"}
    assert places(ranking)["no norm"] == "worse"
    assert ranking.gate == "train/error" and ranking.budget is not None
    assert all(arm.gate_mean is not None for arm in ranking.arms)


def test_failed_and_untrained_arms_come_last_with_the_reason(
    runner: TimedRunner, tmp_path: Path
) -> None:
    runner.means = ERRORS | {"none": 0.3}
    runner.status = lambda c: (
        "failed" if (c.norm.name, c.seed) == ("group", 3) else "ok"
    )
    ranking = raced(tmp_path, gate=0.25)
    reasons = {left.arm: left.reason for left in ranking.left_out}
    assert reasons["GroupNorm"] == "no finite metric on test seed 3"
    assert "no norm" in reasons
    assert set(places(ranking)) == {"BatchNorm", "InstanceNorm"}
    assert any("1 of" in caveat and "failed" in caveat for caveat in ranking.caveats)
    skipped = raced(
        tmp_path, arms=("norm=batch", "norm=instance", "norm=group norm.num_groups=3")
    )
    (left_out,) = skipped.left_out
    assert left_out.arm == "GroupNorm with 3 groups"
    assert left_out.reason.startswith("skipped, ")


def test_higher_is_better_if_the_task_maximizes_the_metric(
    runner: TimedRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("normbench.claims.comparison._is_maximized", lambda *_: True)
    ranking = raced(tmp_path, gate=0.05)
    assert ranking.maximized and ranking.arms[0].arm == "no norm"
    first, second = ranking.arms[:2]
    assert first.mean > second.mean
    assert second.from_best is not None and second.from_best.difference < 0


def test_a_run_without_a_record_ends_the_race_before_the_deadline(
    runner: TimedRunner, tmp_path: Path
) -> None:
    runner.status = lambda config: None if config.seed == 3 else "ok"
    with pytest.raises(NormbenchError, match="left no record"):
        raced(tmp_path)


def test_a_wrong_request_is_refused_before_the_first_run(
    runner: TimedRunner, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match="at one level, not at 2"):
        raced(tmp_path, overrides=("batch_size=8,32",))
    with pytest.raises(RequestError, match="fewer than two arms fit"):
        raced(tmp_path, arms=("norm=batch", "norm=group norm.num_groups=3"))
    assert runner.rounds == []
    with pytest.raises(RequestError, match="did you mean 'val/error'"):
        raced(tmp_path, metric="test/eror")


def test_the_ranking_is_written_whole(runner: TimedRunner, tmp_path: Path) -> None:
    ranking = raced(tmp_path)
    assert Ranking.model_validate_json(ranking.model_dump_json()) == ranking
    assert A_RECORD.seconds.setup + A_RECORD.seconds.train == RUN_SECONDS - 0.5
    assert FULL_TUNING_SEEDS == max(max(arm.seeds.values()) for arm in ranking.tuning)


def test_an_interrupt_after_the_first_look_does_not_lose_the_rates(
    runner: TimedRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.means = ERRORS | {"group": 0.108}

    def interrupt(work: Work, engine: Engine) -> None:
        if any(6 <= config.seed < 1000 for config in work.runs.values()):
            raise KeyboardInterrupt
        runner(work, engine)

    monkeypatch.setattr(round, "run_all", interrupt)
    with pytest.raises(KeyboardInterrupt):
        raced(tmp_path, minutes=3.5)
    monkeypatch.setattr(round, "run_all", runner)
    ranking = raced(tmp_path, minutes=60)
    assert ranking.spent[0].runs == 0 and len(ranking.seen) > 1
