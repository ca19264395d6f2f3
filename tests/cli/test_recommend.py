"""`normbench recommend` prints what the verdicts and the user's own runs say."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from claims_made import TINY, put
from records_made import a_record, with_errors, written
from typer.testing import CliRunner, Result
from verdicts_made import CLAIMS

from normbench.cli import app
from normbench.config.schema import RunRecord
from normbench.verdicts.conditions import asked_condition
from normbench.verdicts.own_runs import own_runs
from normbench.verdicts.recommendation import Recommendation


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NORMBENCH_RESULTS", raising=False)


def recommend(*arguments: str, width: int = 80) -> Result:
    environment = {"COLUMNS": str(width), "FORCE_COLOR": "1"}
    return CliRunner().invoke(app, ["recommend", *arguments], env=environment)


def as_json(*arguments: str) -> list[dict[str, Any]]:
    done = recommend("--json", *arguments)
    assert done.exit_code == 0, done.output
    made: list[dict[str, Any]] = json.loads(done.stdout)
    return made


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "image"], "--task image is unknown; did you mean 'images'?"),
        (["--results", "absent"], "--results absent is not a folder"),
        (["--claims", "absent"], "'--claims': absent is not a folder"),
        (["--task", "audio"], "--task audio is unknown; known: images, style, text"),
        (["--input", "8,3,8,8"], "--model-options and --input need --model"),
        (["--batch-size", "0"], "'--batch-size': Input should be greater"),
        (["--samples-per-statistic", "-1"], "should be greater than or equal to 1"),
        (
            ["--batch-size", "4", "--samples-per-statistic", "8"],
            "--samples-per-statistic 8 does not divide the batch size of 4 (images); "
            "give one of 1, 2, 4, or another --batch-size",
        ),
    ],
)
def test_a_wrong_request_says_what_would_be_right(
    arguments: list[str], message: str
) -> None:
    done = recommend(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr


@pytest.mark.usefixtures("no_package_verdicts")
def test_without_verdicts_there_is_no_order_and_a_command() -> None:
    done = recommend(width=200)
    assert done.exit_code == 0
    assert done.stdout.count("There is no evidence: no claim on this task") == 3
    assert done.stdout.count("normbench compare task=") == 3
    assert "better" not in done.stdout
    assert "Text, batch size 32 (the default of task=transformer)" in done.stdout


def test_the_committed_verdicts_are_json() -> None:
    (images,) = as_json("--task", "images", "--claims", str(CLAIMS))
    made = Recommendation.model_validate(images)
    assert made.asked == asked_condition("images", 32, 32)
    evidence = [e for pair in made.pairs for e in pair.evidence]
    assert {"group-compromise"} <= {each.claim for each in evidence}
    for each in evidence:
        assert each.norm != each.other and each.n
        assert {each.norm, each.other} <= made.names.keys()
    assert len(as_json("--claims", str(CLAIMS))) == 3


@pytest.mark.parametrize("width", [80, 120])
def test_all_lines_but_the_command_fit(width: int) -> None:
    for details in ([], ["--details"]):
        done = recommend("--claims", str(CLAIMS), *details, width=width)
        shown = re.sub(r"\x1b\[[\d;]*m", "", done.stdout)
        lines = shown.splitlines()
        commands = [each for each in lines if each.startswith("  normbench compare ")]
        assert len(commands) == 3
        assert max(len(each) for each in lines if each not in commands) <= width
        # Without --details, only pairs that are not decided have intervals.
        decided = re.sub(r"^Not known:\n(?:  .*\n)*", "", shown, flags=re.MULTILINE)
        assert len(decided) < len(shown)
        assert ("[" in " ".join({*decided.splitlines()} - {*commands})) == bool(details)


def test_a_claim_of_the_user_counts(tmp_path: Path) -> None:
    put(TINY | {"name": "mine"}, tmp_path, "mine")
    (images,) = as_json("--task", "images", "--config-dir", str(tmp_path))
    (gap,) = (gap for gap in images["gaps"] if gap["kind"] == "no verdict")
    assert "mine" in gap["text"].split(", ")
    assert gap["command"] == "normbench claim check NAME --budget full"


def test_a_damaged_verdict_is_an_error(tmp_path: Path) -> None:
    shutil.copytree(CLAIMS, tmp_path / "claims")
    (tmp_path / "claims" / "group-compromise" / "verdict.json").write_text("{}")
    done = recommend("--claims", "claims")
    assert done.exit_code == 2
    assert "group-compromise/verdict.json" in done.stderr


def rated(lr: float, errors: list[float], val: float) -> list[RunRecord]:
    return [
        a_record(
            f"seed={seed}", f"lr={lr}", "tracker=none",
            metrics={"test/error": error, "val/error": val},
        )
        for seed, error in enumerate(errors)
    ]  # fmt: skip


def test_own_runs_are_means_by_norm_at_the_best_rate() -> None:
    asked = asked_condition("images", 32, None)
    records = [
        *rated(0.1, [0.2, 0.3], val=0.1),
        *rated(0.2, [0.1, 0.1], val=0.2),
        *with_errors("group", [0.4]),
        a_record("norm=batch", "batch_size=8"),
        a_record("norm=batch", "norm_batch=8"),
        a_record("norm=batch", "seed=1000"),
        a_record("task=transformer"),
    ]
    batch, group = own_runs(records, "images", asked)
    assert (batch.norm, batch.mean, batch.n) == ("norm=batch", 0.25, 2)
    assert (batch.lr, batch.rates, batch.tuned) == (0.1, [0.1, 0.2], True)
    assert batch.low is not None and batch.high is not None
    assert (group.norm, group.mean, group.n, group.tuned) == (
        "norm=group",
        0.4,
        1,
        False,
    )
    assert own_runs(records, "style", asked_condition("style", None, None)) == []
    (other,) = own_runs(records, "images", asked_condition("images", 8, None))
    assert other.norm == "norm=batch"


def test_own_runs_with_other_settings_have_a_mean_of_their_own() -> None:
    asked = asked_condition("images", 32, None)
    records = [
        a_record(f"norm={norm}", f"seed={seed}", f"budget.epochs={epochs}")
        for norm, epochs, seeds in (("batch", 2, 2), ("group", 2, 1), ("group", 9, 3))
        for seed in range(seeds)
    ]
    made = own_runs(records, "images", asked)
    assert [(own.settings, own.norm, own.n) for own in made] == [
        (("budget.epochs=2",), "norm=batch", 2),
        (("budget.epochs=2",), "norm=group", 1),
        (("budget.epochs=9",), "norm=group", 3),
    ]
    (one,) = own_runs(records[:1], "images", asked)
    assert one.settings == ()


def test_own_runs_without_a_validation_metric_are_not_tuned() -> None:
    asked = asked_condition("images", 32, None)
    records = [a_record(f"lr={lr}", metrics={"test/error": 0.2}) for lr in (0.1, 0.2)]
    made = own_runs(records, "images", asked)
    assert [(own.lr, own.tuned) for own in made] == [(0.1, False), (0.2, False)]


@pytest.mark.usefixtures("no_package_verdicts")
def test_own_runs_have_no_part_in_the_order(tmp_path: Path) -> None:
    for record in rated(0.1, [0.2, 0.3], val=0.1):
        written(tmp_path / "runs", record)
    damaged = tmp_path / "runs" / "ab" / "abcdef0123456789"
    damaged.mkdir(parents=True)
    (damaged / "result.json").write_text("{")
    where = ("--results", "runs", "--task", "images")
    done = recommend(*where, width=200)
    assert done.exit_code == 0, done.output
    assert "Your runs (no part in the order):" in done.stdout
    assert "mnist5k, BatchNorm: test/error 0.2500 [" in done.stdout
    assert "n 2, lr 0.1, the only rate of these runs" in done.stdout
    assert "left out: " in done.stderr
    (images,) = as_json(*where)
    assert images["runs"][0]["norm"] == "norm=batch" and not images["standings"]


def test_a_network_gets_what_the_verdicts_say_of_its_norms(tmp_path: Path) -> None:
    (tmp_path / "own_net.py").write_text(
        "from torch import nn\n"
        "def build(width):\n"
        "    norm, strange = nn.BatchNorm2d(width), type('ANorm', (nn.Module,), {})\n"
        "    return nn.Sequential(norm, nn.GroupNorm(4, width), strange(),\n"
        "                         nn.InstanceNorm2d(width))\n"
    )
    words = ["--model", "own_net:build", "--model-options", "width=8"]
    words += ["--claims", str(CLAIMS), "--samples-per-statistic", "2"]
    done = recommend(*words, "--input", "32,3,8,8", width=300)
    assert done.exit_code == 0, done.output
    assert "Images, batch size 32, 2 samples per statistic:" in done.stdout
    assert "BatchNorm, 1 layer: no verdict says" in done.stdout
    assert "GroupNorm with 4 groups, 1 layer: no verdict says" in done.stdout
    assert "InstanceNorm, 1 layer: replace it by GroupNorm with 4" in done.stdout
    assert "unknown norms, 1 layer: no verdict is about them" in done.stdout
    assert "--model-options width=8 --input 32,3,8,8 --swap norm=group" in done.stdout
    assert "task.model=own_net:build +task.model_options.width=8" in done.stdout
    assert "batch_size=32 norm_batch=2 data=NAME --arm norm=keep" in done.stdout
    (made,) = as_json(*words)
    assert made["network"]["norms"]["norm=batch"] == {"layers": 1, "better": []}
    missing = recommend("--model", "own_net:missing")
    assert missing.exit_code == 2 and "own_net has no missing" in missing.stderr
