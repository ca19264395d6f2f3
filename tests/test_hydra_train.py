"""scripts/hydra_train.py: the configs, checks and records of `normbench train`."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SMALL, Run
from norms_made import ODD

from normbench.config.composition import compose, resolve
from normbench.config.identity import run_id
from normbench.config.schema import RunRecord
from normbench.records import store
from normbench.records.store import Results
from normbench.training.experiment import run_one

SCRIPT = Path(__file__).parents[1] / "scripts" / "hydra_train.py"
SMOKE = [*SMALL["cnn"], "tracker=none", "budget=smoke"]

Door = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def script() -> Any:
    """Import scripts/hydra_train.py as a module."""
    spec = importlib.util.spec_from_file_location("hydra_train", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def door(tmp_path: Path) -> Door:
    """Run scripts/hydra_train.py ARGUMENTS in an empty folder."""
    (tmp_path / "odd_norm.py").write_text(ODD)
    (tmp_path / "mine" / "norm").mkdir(parents=True)
    (tmp_path / "mine" / "norm" / "odd.yaml").write_text("name: odd\ndoes: works\n")

    def door(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(SCRIPT), *arguments],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
        )

    return door


def records(folder: Path) -> dict[str, RunRecord]:
    found, damaged = store.all_records(folder / "results" / "runs")
    assert not damaged
    return {each.run_id: each for each in found}


def test_it_composes_the_same_config_as_train(
    script: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = [*SMOKE, "norm=group", "norm.num_groups=4", "batch_size=8"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *asked, "--cfg", "job"])
    script.main()
    values = yaml.safe_load(capsys.readouterr().out)
    assert values.pop("modules") == []
    assert values.pop("objective") is None
    assert resolve(values) == compose(asked)
    assert not (tmp_path / "results").exists()


def test_a_sweeper_gets_the_worst_objective_for_a_diverged_run(
    script: Any, run: Run
) -> None:
    diverged = run(*SMALL["cnn"], "lr=1e30", "warmup=0.0", "budget.max_steps=4")
    assert diverged.status == "diverged"
    for objective in ("val/error", diverged.primary_metric):
        assert script.objective_value(diverged, objective) == math.inf
        upwards = diverged.model_copy(update={"direction": "maximize"})
        assert script.objective_value(upwards, objective) == -math.inf


@pytest.mark.slow
@pytest.mark.parametrize("task", SMALL)
def test_the_objective_is_checked_before_the_run(
    task: str, script: Any, run: Run
) -> None:
    for norm in ("batch", "layer"):
        done = run(*SMALL[task], f"norm={norm}")
        assert done.status == "ok", done.error
        assert script.metric_names(done.config) == sorted(done.metrics)
        assert script.objective_value(done, "val/loss") == done.metrics["val/loss"]


@pytest.mark.slow
def test_a_diverged_run_is_not_a_failed_trial(door: Door, tmp_path: Path) -> None:
    study = [
        "hydra/sweeper=optuna",
        "hydra/sweeper/sampler=grid",
        "objective=val/error",
    ]
    study += ["hydra.sweeper.n_jobs=1", "hydra.sweeper.max_failure_rate=0.0"]
    done = door("-m", *study, *SMOKE, "warmup=0.0", "lr=choice(1e30,0.1)")
    assert done.returncode == 0, done.stderr
    found = records(tmp_path).values()
    assert sorted(each.status for each in found) == ["diverged", "ok"]


@pytest.mark.slow
def test_a_wrong_request_is_refused_before_the_run(door: Door, tmp_path: Path) -> None:
    # The second run would diverge and have no metrics to name.
    for wrong, message in (
        (["batch_size=8", "norm_batch=3"], "norm_batch=3 does not divide"),
        (["objective=val/eror", "lr=1e30"], "val/accuracy, val/error, val/loss"),
    ):
        refused = door(*SMOKE, "warmup=0.0", *wrong)
        assert refused.returncode == 1
        assert message in refused.stderr
        assert not (tmp_path / "results").exists()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_multirun_writes_the_same_records_as_a_sweep(
    launcher: str, door: Door, tmp_path: Path
) -> None:
    done = door("-m", *SMOKE, "norm=affine,group", f"hydra/launcher={launcher}")
    assert done.returncode == 0, done.stderr
    found = records(tmp_path)
    configs = [compose([*SMOKE, f"norm={norm}"]) for norm in ("affine", "group")]
    assert found.keys() == {run_id(config) for config in configs}
    for config in configs:
        expected = run_one(config, Results(tmp_path / "calm"))
        assert found[expected.run_id].metrics == expected.metrics


@pytest.mark.slow
def test_a_failed_run_is_recorded_and_the_others_continue(
    door: Door, tmp_path: Path
) -> None:
    odd = ["--config-dir", "mine", "modules=[odd_norm]", "norm=odd"]
    done = door("-m", *odd, *SMOKE, "norm.does=raises,works")
    assert done.returncode == 1
    assert "odd on purpose" in done.stderr
    statuses = {
        r.config.norm.options["does"]: r.status for r in records(tmp_path).values()
    }
    assert statuses == {"raises": "failed", "works": "ok"}


@pytest.mark.slow
def test_a_failed_trial_does_not_end_a_study(door: Door, tmp_path: Path) -> None:
    # Optuna's grid sampler cannot end with a failed trial; this seed meets all four.
    study = ["hydra/sweeper=optuna", "hydra/sweeper/sampler=random"]
    study += ["hydra.sweeper.sampler.seed=0", "hydra.sweeper.n_trials=8"]
    study += ["hydra.sweeper.max_failure_rate=1.0", "hydra.sweeper.n_jobs=1"]
    study += ["objective=val/error"]
    odd = ["--config-dir", "mine", "modules=[odd_norm]", "norm=odd"]
    # At 1e30 the loss is not finite: that run diverges.
    space = ["norm.does=choice(raises,works)", "lr=choice(0.1,1e30)"]
    done = door("-m", *odd, *study, *SMOKE, "warmup=0.0", *space)
    assert done.returncode == 0, done.stderr
    found = records(tmp_path).values()
    statuses = sorted(each.status for each in found)
    assert statuses == ["diverged", "failed", "failed", "ok"]
    (best,) = [each for each in found if each.status == "ok"]
    (results,) = tmp_path.glob("multirun/*/optimization_results.yaml")
    results_of_study = yaml.safe_load(results.read_text())
    assert results_of_study["best_value"] == pytest.approx(best.metrics["val/error"])
    assert results_of_study["best_params"] == {"norm.does": "works", "lr": 0.1}
    assert math.isfinite(results_of_study["best_value"])


@pytest.mark.slow
def test_a_finished_run_is_not_executed_again(door: Door, tmp_path: Path) -> None:
    asked = [*SMOKE, "norm=affine"]
    before = run_one(compose(asked), Results(tmp_path / "results" / "runs"))
    assert door(*asked).returncode == 0
    assert json.loads(records(tmp_path)[before.run_id].model_dump_json()) == json.loads(
        before.model_dump_json()
    )
