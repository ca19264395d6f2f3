"""What follows batches of runs on machines that share a folder, and hands them out.

The cluster here is this process: it does a batch when it is asked how it ended.
"""

import os
import re
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sweeps_made import ONE_STEP, Heard

from normbench.cli.trials import compose_engine as chosen_engine
from normbench.config.composition import compose_engine
from normbench.config.identity import run_id
from normbench.config.schema import RayEngine, RunConfig, RunRecord, SlurmEngine
from normbench.errors import Busy, NormbenchError, RequestError, Stopped
from normbench.records import store
from normbench.records.store import Results
from normbench.sweeps.engines import Work, batches, ledger, ray, run_all, worker
from normbench.sweeps.engines.batches import Batch, Died, Report, do_batch, follow
from normbench.sweeps.forecast import Forecast
from normbench.sweeps.plan import Plan, Shard, make_plan
from normbench.training.experiment import run_one


class Here:
    """A cluster whose batches this process does, one when it is asked about it."""

    def __init__(self, results: Path, slots: int = 2, batch_size: int = 3) -> None:
        self.results, self.slots, self.batch_size = results, slots, batch_size
        self.submitted: list[list[str]] = []
        self.flying = 0

    def submit(self, given: Sequence[Batch]) -> list[Batch]:
        self.submitted += [list(batch) for batch in given]
        self.flying += len(given)
        assert self.flying <= self.slots
        return list(given)

    def wait(self, jobs: Sequence[Batch], seconds: float) -> None:
        pass

    def outcome(self, job: Batch) -> Report | Died | None:
        self.flying -= 1
        return self.do(job)

    def do(self, job: Batch) -> Report | Died:
        return do_batch(job, Results(self.results))

    def stop(self, job: Batch) -> None:
        pass


class Killed(BaseException):
    """Stands for the death of a process."""


def kill(more: Any) -> None:
    raise Killed


class Fragile(Here):
    """A cluster whose processes die."""

    def do(self, job: Batch) -> Report | Died:
        try:
            return super().do(job)
        except Killed:
            return Died("was killed")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan([*ONE_STEP, "seed=range(0,7)"])


@pytest.fixture(scope="module")
def template(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    config = next(iter(plan.runs.values()))
    return run_one(config, Results(tmp_path_factory.mktemp("template")))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, template: RunRecord) -> dict[str, Any]:
    """Runs that only write their records; what is under "do" is done first."""
    faults: dict[str, Any] = {}

    def run(config: RunConfig, results: Results, **more: Any) -> RunRecord:
        key = run_id(config)
        with results.writer(config) as writer:
            writer.begin(config)
            if key in faults:
                faults[key](more)
            ended = template.model_copy(update={"run_id": key, "config": config})
            writer.finish(ended)
        return ended

    monkeypatch.setattr(worker, "run_one", run)
    monkeypatch.setattr(ledger, "RETRY", 0.0)
    monkeypatch.setattr(batches, "UNSEEN", 0.0)
    monkeypatch.setattr(batches, "LOOK", 0.0)
    return faults


def do(cluster: Here, plan: Plan) -> Heard:
    heard = Heard()
    forecast = Forecast([], plan.runs, 1)
    follow(cluster, Work(plan.runs, Results(cluster.results), forecast, heard))
    assert heard.said == ["start", "close"]
    assert forecast.workers == cluster.slots
    return heard


def test_every_run_is_done_once(plan: Plan, tmp_path: Path) -> None:
    cluster = Here(tmp_path)
    heard = do(cluster, plan)
    assert heard.records.keys() == plan.runs.keys()
    assert sorted(heard.begun) == sorted(plan.runs)
    assert sorted(map(len, cluster.submitted)) == [2, 2, 3]


def test_what_others_have_finished_is_taken(plan: Plan, tmp_path: Path) -> None:
    do(Here(tmp_path), plan)
    assert do(Here(tmp_path), plan).records.keys() == plan.runs.keys()


def test_a_run_that_kills_its_process_is_given_up_and_the_rest_is_done(
    plan: Plan, tmp_path: Path, quick: dict[str, Any]
) -> None:
    culprit = list(plan.runs)[3]

    quick[culprit] = kill
    heard = do(Fragile(tmp_path), plan)
    assert heard.records.keys() == plan.runs.keys()
    failed = heard.records.pop(culprit)
    assert (failed.status, failed.error) == ("failed", "its worker was killed, 2 times")
    assert {each.status for each in heard.records.values()} == {"ok"}
    assert heard.warnings == [
        f"the worker of run {culprit} was killed; it begins once more"
    ]


def test_workers_that_never_begin_end_the_sweep(plan: Plan, tmp_path: Path) -> None:
    class Dead(Here):
        def do(self, job: Batch) -> Report | Died:
            return Died("was killed")

    with pytest.raises(NormbenchError, match="3 workers one after another died"):
        do(Dead(tmp_path, slots=1), plan)
    assert not store.all_records(tmp_path)[0]


def test_a_batch_that_was_told_to_stop_is_handed_out_again(
    plan: Plan, tmp_path: Path, quick: dict[str, Any]
) -> None:
    told = list(plan.runs)[1]

    def stop(more: Any) -> None:
        del quick[told]
        os.kill(os.getpid(), signal.SIGTERM)
        assert more["stop"]()
        raise Stopped("told to")

    quick[told] = stop
    before = signal.getsignal(signal.SIGTERM)
    heard = do(Here(tmp_path), plan)
    assert signal.getsignal(signal.SIGTERM) == before
    assert heard.records.keys() == plan.runs.keys()
    assert not heard.warnings


def test_a_run_that_another_does_is_waited_for(
    plan: Plan, tmp_path: Path, quick: dict[str, Any]
) -> None:
    key = list(plan.runs)[2]

    def busy(more: Any) -> None:
        del quick[key]
        raise Busy("by another")

    quick[key] = busy
    heard = do(Here(tmp_path), plan)
    assert heard.waited == [key]
    assert heard.records.keys() == plan.runs.keys()


def test_no_job_is_submitted_for_a_run_that_another_is_doing(
    plan: Plan, tmp_path: Path
) -> None:
    key = list(plan.runs)[2]
    config = plan.runs[key]
    others = store.RunWriter(tmp_path, key).__enter__()

    class Patient(Here):
        looks = 0

        def wait(self, jobs: Sequence[Batch], seconds: float) -> None:
            self.looks += not jobs
            if self.looks == 10:
                others.__exit__(None, None, None)

    cluster = Patient(tmp_path)
    assert do(cluster, plan).records[key].config == config
    assert sum(key in batch for batch in cluster.submitted) == 2


def test_a_run_that_is_given_up_while_another_does_it_is_not_begun_for_ever(
    plan: Plan,
    tmp_path: Path,
    quick: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    culprit = list(plan.runs)[3]
    recorded = ledger.record_failure
    refusals = [Busy("by another")]

    def record_failure(*args: Any, **more: Any) -> RunRecord:
        if refusals:
            raise refusals.pop()
        return recorded(*args, **more)

    monkeypatch.setattr(ledger, "record_failure", record_failure)
    quick[culprit] = kill
    cluster = Fragile(tmp_path)
    heard = do(cluster, plan)
    assert heard.waited == [culprit]
    assert heard.records[culprit].status == "failed"
    assert sum(culprit in batch for batch in cluster.submitted) == 3


def test_what_cannot_be_recorded_is_told(
    plan: Plan, tmp_path: Path, quick: dict[str, Any]
) -> None:
    first, second, *_ = plan.runs

    def full(more: Any) -> None:
        more["observer"].warn("little room")
        raise NormbenchError("the disk is full")

    def broken(more: Any) -> None:
        raise KeyError("odd")

    quick[first], quick[second] = full, broken
    heard = do(Here(tmp_path), plan)
    assert heard.lost[first] == "the disk is full"
    assert "KeyError: 'odd'" in heard.lost[second]
    assert heard.warnings == ["little room"]
    assert len(heard.records) == len(plan.runs) - 2


def test_a_folder_that_is_not_shared_is_told(plan: Plan, tmp_path: Path) -> None:
    class Elsewhere(Here):
        def do(self, job: Batch) -> Report | Died:
            return do_batch(job, Results(self.results / "there"))

    heard = do(Elsewhere(tmp_path), plan)
    assert heard.lost.keys() == plan.runs.keys()
    assert all("a folder of all machines?" in reason for reason in heard.lost.values())


def test_modules_that_a_worker_has_not_end_the_sweep(
    plan: Plan, tmp_path: Path
) -> None:
    class Bare(Here):
        def do(self, job: Batch) -> Report | Died:
            return do_batch(job, Results(self.results, ("no_such_module",)))

    with pytest.raises(RequestError, match="a worker cannot start: --module no_such"):
        do(Bare(tmp_path), plan)


def test_an_interrupt_stops_what_is_going_on(plan: Plan, tmp_path: Path) -> None:
    stopped: list[Batch] = []

    class Interrupted(Here):
        def wait(self, jobs: Sequence[Batch], seconds: float) -> None:
            if not stopped:
                raise KeyboardInterrupt

        def stop(self, job: Batch) -> None:
            stopped.append(job)

    heard = Heard()
    cluster = Interrupted(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        forecast = Forecast([], plan.runs, 1)
        follow(cluster, Work(plan.runs, Results(tmp_path), forecast, heard))
    assert heard.said == ["start", "stopping", "close"]
    assert len(stopped) == 2


def test_shares_are_disjoint_and_make_the_whole(plan: Plan) -> None:
    parts = [Shard.parse(f"{index}/3").of(plan).runs for index in range(3)]
    assert sorted(key for part in parts for key in part) == sorted(plan.runs)
    for index, part in enumerate(parts):
        assert all(int(key, 16) % 3 == index for key in part)
    assert Shard.parse("0/1").of(plan) == plan


@pytest.mark.parametrize("text", ["3/3", "1", "a/b", "-1/3", "0/0", "1/2/3", ""])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match=r"--shard .* is none; write I/N"):
        Shard.parse(text)


def test_an_engine_is_composed_and_checked() -> None:
    account = "+engine.options.slurm_account=me"
    slurm = compose_engine(["engine=slurm", "engine.workers=20", account])
    assert isinstance(slurm, SlurmEngine)
    assert (slurm.workers, slurm.options) == (20, {"slurm_account": "me"})
    assert compose_engine([]).name == "local"
    assert chosen_engine("engine=ray", 3, None).workers == 3
    assert chosen_engine("engine=ray engine.workers=2", None, None).workers == 2


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["engine=spark"], "engine=spark is unknown"),
        (["engine=ray", "engine.workers=two"], "engine.workers='two': input should be"),
        (["engine=ray", "engine.runs_per_task=0"], "engine.runs_per_task=0: input"),
        (["engine=slurm", "engine.cluster=pbs"], "engine.cluster='pbs': input should"),
        (["engine=local", "engine.cpus=2"], "engine.cpus is not a key"),
        (["engine=ray,local"], "must name exactly one engine"),
        (["lr=0.1"], "must name exactly one engine"),
    ],
)
def test_an_engine_that_is_wrong_is_refused(overrides: list[str], words: str) -> None:
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


def refused(engine: RayEngine | SlurmEngine, plan: Plan, folder: Path) -> None:
    """What is refused is not announced, and leaves nothing."""
    announced: list[int] = []
    forecast = Forecast([], {}, 1)
    try:
        run_all(
            Work(plan.runs, Results(folder), forecast, Heard(), announced.append),
            engine,
        )
    finally:
        assert not announced
        assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("engine", "package", "extra"),
    [(RAY, "ray", "normbench[ray]"), (SLURM, "submitit", "normbench[slurm]")],
)
def test_an_engine_that_is_not_installed_is_named(
    engine: RayEngine | SlurmEngine,
    package: str,
    extra: str,
    plan: Plan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RequestError, match=f"not installed; pip install '{extra[:9]}"):
        refused(engine, plan, tmp_path)


def test_slurm_that_is_not_here_is_named(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RequestError, match=r"engine.cluster=slurm: Could not detect"):
        refused(SLURM, plan, tmp_path)


@pytest.mark.slow
def test_a_ray_address_that_does_not_answer_is_given_up(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "ANSWER", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        nobody = RAY.model_copy(update={"address": address})
        with pytest.raises(RequestError, match="gave no answer in 3 s; `ray status"):
            refused(nobody, plan, tmp_path)


def test_a_ray_address_where_nobody_listens_is_named(
    plan: Plan, tmp_path: Path
) -> None:
    nobody = RAY.model_copy(update={"address": "127.0.0.1:9"})
    with pytest.raises(RequestError, match=r"engine.address=127.0.0.1:9 is not reach"):
        refused(nobody, plan, tmp_path)
