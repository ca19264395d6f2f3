"""Engines: how they are composed, and what is refused before a run starts."""

import re
import socket
import sys
from pathlib import Path

import pytest
from sweeps_made import ONE_STEP, RecordingObserver

from normbench.cli.trials import compose_engine as chosen_engine
from normbench.config.composition import compose_engine
from normbench.config.schema import RayEngine, SlurmEngine
from normbench.errors import RequestError
from normbench.records.store import Results
from normbench.sweeps.engines import ray
from normbench.sweeps.engines.base import Work
from normbench.sweeps.forecast import Forecast
from normbench.sweeps.plan import Plan, make_plan
from normbench.sweeps.round import run_all


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan([*ONE_STEP, "seed=0,1"])


def test_an_engine_is_composed_and_checked() -> None:
    account = "+engine.options.slurm_account=me"
    slurm = compose_engine(["engine=slurm", "engine.workers=20", account])
    assert isinstance(slurm, SlurmEngine)
    assert (slurm.workers, slurm.options) == (20, {"slurm_account": "me"})
    assert compose_engine([]).name == "local"
    assert chosen_engine("engine=ray", 3, None).workers == 3
    assert chosen_engine("engine=ray engine.workers=2", None, None).workers == 2
    for overrides, words in (
        (["engine=spark"], "engine=spark is unknown"),
        (["engine=ray", "engine.workers=two"], "engine.workers='two': input should be"),
        (["engine=ray", "engine.runs_per_task=0"], "engine.runs_per_task=0: input"),
        (["engine=slurm", "engine.cluster=pbs"], "engine.cluster='pbs': input should"),
        (["engine=local", "engine.cpus=2"], "engine.cpus is not a key"),
        (["engine=ray,local"], "must name exactly one engine"),
        (["lr=0.1"], "must name exactly one engine"),
    ):
        with pytest.raises(RequestError, match=re.escape(words)):
            compose_engine(overrides)


RAY = RayEngine(name="ray", address=None, workers=1, runs_per_task=1, cpus=1, gpus=0.0)
SLURM = SlurmEngine(
    name="slurm",
    cluster="slurm",
    workers=1,
    minutes=1,
    cpus=1,
    gpus=0,
    partition=None,
    options={},
)


def refused(engine: RayEngine | SlurmEngine, plan: Plan, folder: Path) -> str:
    """Why `engine` is refused; nothing is announced, and nothing written."""
    announced: list[int] = []
    forecast, observer = Forecast([], {}, 1), RecordingObserver()
    work = Work(plan.runs, Results(folder), forecast, observer, announced.append)
    with pytest.raises(RequestError) as error:
        run_all(work, engine)
    assert not announced and not list(folder.iterdir())
    return str(error.value)


def test_an_engine_that_is_not_installed_is_named(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = RAY.model_copy(update={"address": "127.0.0.1:9"})
    assert "engine.address=127.0.0.1:9 is not reach" in refused(nobody, plan, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    why = refused(SLURM, plan, tmp_path)
    assert why.startswith("engine.cluster=slurm: Could not detect")
    for engine, package in ((RAY, "ray"), (SLURM, "submitit")):
        monkeypatch.setitem(sys.modules, package, None)
        words = f"not installed; pip install 'normbench[{engine.name}]'"
        assert words in refused(engine, plan, tmp_path)


@pytest.mark.slow
def test_a_ray_address_that_does_not_answer_is_given_up(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "ANSWER_TIMEOUT", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        nobody = RAY.model_copy(update={"address": address})
        why = refused(nobody, plan, tmp_path)
    assert "gave no answer in 3 s; `ray status" in why
