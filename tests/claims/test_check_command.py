"""`claim check` with tiny real runs, in a folder that is a git repository."""

import copy
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from claims_made import TINY, Plain, put
from conftest import Command
from typer.testing import CliRunner, Result

from normbench.cli import app
from normbench.records import items
from normbench.records.store import read_compact
from normbench.verdicts.files import read_verdict
from normbench.verdicts.verdict import Verdict


def real(**changes: Any) -> Plain:
    """Return the yaml of a claim whose runs take ten steps."""
    plain = copy.deepcopy(TINY)
    plain["outcomes"]["digits"] |= {
        "common": "task=cnn data.size=14 task.stem_stride=2 task.width=8 "
        "budget.max_steps=10 evaluation.train_samples=100",
        "arms": {"a": "norm=batch", "b": "norm=affine"},
        "cells": ["a@2", "b@32"],
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


def normbench(folder: Path, *arguments: str) -> Result:
    """Run a command in `folder`, in this process; runs are in processes of workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return CliRunner().invoke(app, arguments)


MINE = ["--config-dir", "mine"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a user's folder with a claim and its full check."""
    made = tmp_path_factory.mktemp("user")
    put(real(), made / "mine")
    git(made, "init", "-q")
    full = ["claim", "check", "tiny", *MINE, "--budget", "full", "--items"]
    refused = normbench(made, *full)
    assert refused.exit_code == 2
    assert "is not committed as it stands" in refused.stderr
    assert not (made / "results").exists()
    git(made, "add", "mine")
    git(made, "commit", "-qm", "registered")
    done = normbench(made, *full)
    assert done.exit_code == 0, done.stderr
    assert "tiny: seeds, 0 of 24 are done" in done.stderr
    assert ": a is better than b." in done.stdout
    assert "OUTCOME" not in done.stdout
    assert "wrote results/claims/tiny/verdict.json" in done.stdout
    return made


def verdict_of(folder: Path, name: str = "verdict.json") -> Verdict:
    verdict = read_verdict(folder / "results" / "claims" / "tiny" / name)
    assert verdict is not None
    return verdict


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def runs_in(folder: Path) -> int:
    return len(list(folder.glob("results/runs/??/*/result.json")))


@pytest.mark.slow
def test_a_full_check_leaves_its_verdict_and_its_records(folder: Path) -> None:
    verdict = verdict_of(folder)
    (design,) = verdict.outcomes
    assert verdict.theorems[0].decision == "confirmed"
    assert verdict.registered is not None
    assert design.contrasts[0].n == 6
    assert design.contrasts[0].effect is not None
    records = read_compact(folder / "results" / "claims" / "tiny" / "records.jsonl.gz")
    assert len(records) == len(verdict.run_ids) == 24
    saved = items.read_all(folder / "results" / "claims" / "tiny" / items.ITEMS)
    assert sorted(saved) == verdict.run_ids
    assert {len(run.index) for run in saved.values()} == {1500}
    assert {key: len(v) for key, v in verdict.environment.items()} == {
        "code": 1,
        "device": 1,
        "torch": 1,
        "mlxtend": 1,
    }
    # A sweep uses the same runs.
    (cell,) = (c for c in design.cells if c.cell == "b@32")
    common = real()["outcomes"]["digits"]["common"].split()
    words = [*common, "norm=affine", "norm_batch=32", f"lr={cell.usual_rate}"]
    words += ["seed=range(0,6)", "tracker=none", "evaluation.at_end=[val,train]"]
    words += ["--dry-run", "--json"]
    planned = json.loads(normbench(folder, "sweep", *words).stdout)
    assert (planned["finished"], planned["missing"]) == (6, 0)


@pytest.mark.slow
def test_a_quick_check_uses_rates_and_runs_of_the_full_check(folder: Path) -> None:
    before = runs_in(folder)
    done = normbench(folder, "claim", "check", "tiny", *MINE, "--json")
    assert done.exit_code == 0, done.stderr
    assert "runs to do" not in done.stderr
    assert runs_in(folder) == before
    (plain,) = json.loads(done.stdout)
    assert plain["budget"] == "quick"
    assert all(c["frozen"] for c in plain["outcomes"][0]["cells"])
    quick = verdict_of(folder, "verdict.quick.json").outcomes[0].cells
    full = verdict_of(folder).outcomes[0].cells
    for one, all_rates in zip(quick, full, strict=True):
        assert [rate.lr for rate in one.rates] == [all_rates.usual_rate]


@pytest.mark.slow
def test_saved_records_are_judged_again_without_runs_and_files(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "results" / "runs")
    again = ["claim", "check", "tiny", *MINE, "--budget", "full", "--from-records"]
    before = contents(tmp_path)
    done = normbench(tmp_path, *again)
    assert done.exit_code == 0, done.stderr
    assert "same verdict as results/claims/tiny/verdict.json" in done.stdout
    assert contents(tmp_path) == before
    verdict = tmp_path / "results" / "claims" / "tiny" / "verdict.json"
    verdict.write_text(verdict.read_text().replace('"alpha": 0.05', '"alpha": 0.1'))
    before = contents(tmp_path)
    done = normbench(tmp_path, *again)
    assert done.exit_code == 1
    assert "another verdict than results/claims/tiny/verdict.json" in done.stdout
    assert "\n  alpha: 0.1 -> 0.05\n" in done.stdout
    done = normbench(tmp_path, *again, "--json")
    assert done.exit_code == 1
    (plain,) = json.loads(done.stdout)
    assert plain["differences"] == [{"where": "alpha", "old": 0.1, "new": 0.05}]
    assert plain["same"] is False
    assert plain["verdict"]["alpha"] == 0.05
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_an_interrupted_check_continues(tmp_path: Path) -> None:
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
    assert again.exit_code == 0, again.stderr
    assert f"seeds, {len(before)} of 12 are done" in again.stderr
    assert runs_in(tmp_path) == 12
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())


@pytest.mark.slow
def test_list_and_show_have_the_verdict_and_note_a_changed_yaml(
    folder: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(folder, copied)

    def listed() -> Plain:
        done = normbench(copied, "claim", "list", *MINE, "--json")
        (tiny,) = (row for row in json.loads(done.stdout) if row["name"] == "tiny")
        return dict(tiny)

    assert [p["headline"] for p in listed()["parts"]] == [
        part.headline for part in verdict_of(copied).parts
    ]
    assert listed()["changed"] is False
    shown = json.loads(
        normbench(copied, "claim", "show", "tiny", *MINE, "--json").stdout
    )
    assert shown["verdict"] == verdict_of(copied).model_dump(mode="json")
    assert shown["cost"]["full"]["runs"] == 24
    put(real(extend=1), copied / "mine")
    assert listed()["changed"] is True
    done = normbench(copied, "claim", "show", "tiny", *MINE)
    assert "the yaml has changed since this verdict" in done.stdout
    done = normbench(copied, "claim", "list", *MINE)
    assert "changed since" in " ".join(done.stdout.split())
    git(copied, "add", "mine")
    refused = normbench(copied, "claim", "check", "tiny", *MINE, "--budget", "full")
    assert refused.exit_code == 2


@pytest.mark.slow
def test_a_check_with_an_extra_arm_is_not_written(folder: Path) -> None:
    files = sorted(folder.glob("results/claims/**/*"))
    arm = ["--arm", "norm=group norm.num_groups=2", "--details"]
    done = normbench(folder, "claim", "check", "tiny", *MINE, *arm)
    assert done.exit_code == 0, done.stderr
    assert "(exploratory)" in done.stdout
    assert sorted(folder.glob("results/claims/**/*")) == files


@pytest.mark.slow
def test_compare_judges_its_arms_by_the_same_rules(folder: Path) -> None:
    words = [*real()["outcomes"]["digits"]["common"].split()]
    arms = ["--arm", "norm=affine", "--arm", "norm=batch"]
    options = ["--rates", "0.1,0.2", "--seeds", "6", "--gate", "0.99", "--json"]
    done = normbench(folder, "compare", *words, *arms, *options)
    assert done.exit_code == 0, done.stderr
    plain = json.loads(done.stdout)
    (contrast,) = plain["outcomes"][0]["contrasts"]
    assert contrast["exploratory"] is True
    assert contrast["n"] == 6
    assert plain["budget"] == "full"


def looking(looks: list[int]) -> Plain:
    """Return the yaml of the claim with looks; affine learns nothing in ten steps."""
    plain = real(looks=looks, spending="kim_demets")
    del plain["outcomes"]["digits"]["seeds"]
    return plain


@pytest.mark.slow
def test_a_full_check_with_looks_is_made_again_from_its_records(
    tmp_path: Path,
) -> None:
    put(looking([6, 8]), tmp_path / "mine")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "mine")
    git(tmp_path, "commit", "-qm", "registered")
    full = ["claim", "check", "tiny", *MINE, "--budget", "full", "--details"]
    done = normbench(tmp_path, *full)
    assert done.exit_code == 0, done.stderr
    assert "tiny: seeds, look 1 of 2, 0 of 24 are done" in done.stderr
    assert "test/error" not in done.stderr  # no metric before the verdict
    (contrast,) = verdict_of(tmp_path).outcomes[0].contrasts
    assert (contrast.looks, contrast.planned) in (([6], 8), ([6, 8], 8))
    assert ("look 2 of 2" in done.stderr) is (contrast.looks == [6, 8])
    assert f"settled at {contrast.n} of at most 8 seeds" in " ".join(
        done.stdout.split()
    )
    assert 24 <= runs_in(tmp_path) <= 4 * contrast.n
    watched = json.loads(normbench(tmp_path, "watch", "--json").stdout)
    assert watched["blind"] and watched["extremes"] == {}
    shown = normbench(tmp_path, "claim", "show", "tiny", *MINE, "--details").stdout
    assert "looks at 6 and 8 seeds (Kim-DeMets spending)" in " ".join(shown.split())
    assert "full   from 24 to 32 runs" in shown
    # Records of later seeds in the folder have no influence.
    old = verdict_of(tmp_path)
    (cell,) = (c for c in old.outcomes[0].cells if c.cell == "a@2")
    common = real()["outcomes"]["digits"]["common"].split()
    more = [*common, "norm=batch", "norm_batch=2", f"lr={cell.usual_rate}"]
    swept = normbench(tmp_path, "sweep", *more, "seed=6,7,8", "tracker=none")
    assert swept.exit_code == 0, swept.stderr
    check = ["claim", "check", "tiny", *MINE]
    saved = normbench(tmp_path, *check, "--from-records")
    assert saved.exit_code == 0, saved.stdout
    again = normbench(tmp_path, *check, "--budget", "full")
    assert again.exit_code == 0, again.stderr
    unlike = {"started": "", "command": ""}
    assert verdict_of(tmp_path).model_copy(update=unlike) == old.model_copy(
        update=unlike
    )


@pytest.mark.slow
def test_compare_looks_until_it_is_settled(folder: Path) -> None:
    words = [*real()["outcomes"]["digits"]["common"].split()]
    arms = ["--arm", "norm=affine", "--arm", "norm=batch"]
    options = ["--rates", "0.1,0.2", "--gate", "0.99", "--json"]
    looks = ["--seeds", "6,7", "--spending", "obrien_fleming"]
    done = normbench(folder, "compare", *words, *arms, *options, *looks)
    assert done.exit_code == 0, done.stderr
    (contrast,) = json.loads(done.stdout)["outcomes"][0]["contrasts"]
    assert contrast["planned"] == 7
    assert contrast["n"] == contrast["looks"][-1]
    assert "look 1 of 2" in done.stderr or "runs to do" not in done.stderr


def test_a_wrong_request_ends_with_exit_code_2_and_leaves_nothing(
    invoke: Command, tmp_path: Path
) -> None:
    put(real(), tmp_path / "mine")
    for arguments, message in (
        (["claim", "check"], "name a claim"),
        (["claim", "check", "tinny"], "is unknown"),
        (["claim", "check", "tiny", "--all"], "not both"),
        (["claim", "check", "tiny", "--arm", "norm=batch lr=1"], "lr=1 cannot"),
        (["claim", "check", "tiny", "--items"], "--budget quick saves no records"),
        (["compare", "--arm", "norm=batch"], "two arms"),
        (["compare", "--rates", "a,b"], "not a list of numbers"),
        (["compare", "--seeds", "8,b"], "--seeds '8,b' is not a list of numbers"),
        (
            ["claim", "check", "tiny", "--from-records"],
            "neither results/claims/tiny/verdict.json nor the package has a verdict",
        ),
        *(
            (
                ["claim", "check", "tiny", "--from-records", *words],
                f"leave out {words[0]}",
            )
            for words in (
                ["--arm", "norm=rms"],
                ["--items"],
                ["--engine", "engine=local"],
                ["--workers", "2"],
                ["--first-seed", "1000"],
                ["--redo-stale"],
                ["--budget", "smoke"],
            )
        ),
    ):
        done = invoke(*arguments, *MINE)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr, arguments
        assert not (tmp_path / "results").exists(), arguments
