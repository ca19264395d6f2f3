"""The follower and `Cluster`, with tasks that run in this process when checked."""

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sweeps_made import ONE_STEP, RecordingObserver

from normbench.config.identity import run_id
from normbench.config.schema import RunConfig, RunRecord
from normbench.errors import Busy, NormbenchError, RequestError, Stopped
from normbench.records import store
from normbench.records.store import Results
from normbench.sweeps.engines import batches, follower, worker
from normbench.sweeps.engines.base import Batch, Event, Work
from normbench.sweeps.engines.worker import do_batch
from normbench.sweeps.forecast import Forecast
from normbench.sweeps.plan import Plan, make_plan
from normbench.training.experiment import run_one

DIED = [Event("died", text="was killed")]


class Killed(BaseException):
    """Stands for the death of a process."""


class InProcess(batches.Cluster):
    """A cluster that executes a task in this process, by `do`, when it is checked."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        do: Callable[[Batch, Results], list[Event]] = do_batch,
        slots: int = 2,
    ) -> None:
        self.observer, self.do = RecordingObserver(), do
        forecast = Forecast([], plan.runs, 1)
        self.work = Work(plan.runs, Results(folder), forecast, self.observer)
        super().__init__(self.work, slots, 3)
        self.submitted: list[list[str]] = []
        self.idle: Callable[[], None] = lambda: None
        self.running = 0

    def follow(self) -> RecordingObserver:
        """Train all runs and return the observer."""
        follower.follow(self, self.work)
        assert self.observer.calls == ["start", "close"]
        assert self.work.forecast.workers == self.slots
        return self.observer

    def start(self, batches: Sequence[Batch]) -> list[Batch]:
        self.submitted += [list(batch) for batch in batches]
        self.running += len(batches)
        assert self.running <= self.slots
        return list(batches)

    def pause(self, tasks: Sequence[Batch], seconds: float) -> None:
        if not tasks:
            self.idle()

    def task_events(self, task: Batch) -> list[Event] | None:
        self.running -= 1
        try:
            return self.do(task, self.results)
        except Killed:
            return DIED

    def cancel(self, task: Batch) -> None:
        raise NotImplementedError


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan([*ONE_STEP, "seed=range(0,7)"])


@pytest.fixture(scope="module")
def template(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    config = next(iter(plan.runs.values()))
    return run_one(config, Results(tmp_path_factory.mktemp("template")))


Faults = dict[str, Callable[[dict[str, Any]], None]]


@pytest.fixture(autouse=True)
def faults(monkeypatch: pytest.MonkeyPatch, template: RunRecord) -> Faults:
    """Replace training: a run calls its fault, if any, and then writes a record.

    The fixture is the dict of faults by run id.
    """
    faults: Faults = {}

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
    monkeypatch.setattr(follower, "RETRY_INTERVAL", 0.0)
    monkeypatch.setattr(batches, "SHARED_FOLDER_DELAY", 0.0)
    monkeypatch.setattr(batches, "POLL_INTERVAL", 0.0)
    return faults


def test_every_run_is_done_once(plan: Plan, tmp_path: Path) -> None:
    cluster = InProcess(plan, tmp_path)
    seen = cluster.follow()
    assert seen.records.keys() == plan.runs.keys()
    assert sorted(seen.begun) == sorted(plan.runs)
    assert sorted(map(len, cluster.submitted)) == [2, 2, 3]
    # Now all records exist already, as if another command had trained the runs.
    assert InProcess(plan, tmp_path).follow().records.keys() == plan.runs.keys()


@pytest.mark.parametrize("busy", [False, True])
def test_a_run_that_kills_its_process_is_given_up_and_the_rest_is_done(
    busy: bool,
    plan: Plan,
    tmp_path: Path,
    faults: Faults,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also if another command has the run's lock when the failure is recorded."""
    culprit = list(plan.runs)[3]
    refusals = [Busy("by another")] * busy
    record = follower.record_failure

    def record_failure(*arguments: Any) -> RunRecord:
        if refusals:
            raise refusals.pop()
        return record(*arguments)

    def kill(more: Any) -> None:
        raise Killed

    monkeypatch.setattr(follower, "record_failure", record_failure)
    faults[culprit] = kill
    cluster = InProcess(plan, tmp_path)
    seen = cluster.follow()
    assert seen.waited == [culprit] * busy
    assert sum(culprit in batch for batch in cluster.submitted) == 2 + busy
    assert seen.records.keys() == plan.runs.keys()
    failed = seen.records.pop(culprit)
    assert (failed.status, failed.error) == ("failed", "its worker was killed, 2 times")
    assert {record.status for record in seen.records.values()} == {"ok"}
    assert seen.warnings == [
        f"the worker of run {culprit} was killed; the run is tried once more"
    ]


@pytest.mark.parametrize("count", [1, 7])
def test_workers_that_never_begin_end_the_sweep(
    count: int, plan: Plan, tmp_path: Path
) -> None:
    runs = dict(list(plan.runs.items())[:count])
    short_plan = Plan(runs, {}, plan.engine)
    with pytest.raises(NormbenchError, match="3 workers one after another died"):
        InProcess(short_plan, tmp_path, lambda *_: DIED, slots=1).follow()
    assert not store.all_records(tmp_path)[0]


def test_a_run_that_is_finished_is_not_recorded_as_failed(
    plan: Plan, tmp_path: Path, template: RunRecord
) -> None:
    InProcess(plan, tmp_path).follow()
    results, config = Results(tmp_path), template.config
    record = follower.record_failure(config, results, "it hung after that")
    assert record.status == "ok" and record == results.finished(config)


def test_a_batch_that_was_stopped_is_submitted_again(
    plan: Plan, tmp_path: Path, faults: Faults
) -> None:
    key = list(plan.runs)[1]

    def stop(more: Any) -> None:
        del faults[key]
        os.kill(os.getpid(), signal.SIGTERM)
        assert more["stop"]()
        raise Stopped("by a signal")

    faults[key] = stop
    before = signal.getsignal(signal.SIGTERM)
    seen = InProcess(plan, tmp_path).follow()
    assert signal.getsignal(signal.SIGTERM) == before
    assert seen.records.keys() == plan.runs.keys()
    assert not seen.warnings


def test_a_run_that_another_command_does_is_waited_for(
    plan: Plan, tmp_path: Path
) -> None:
    """No job is submitted for this run before the other command has left it."""
    key = list(plan.runs)[2]
    other = store.RunWriter(tmp_path, key).__enter__()
    looks = 0

    def idle() -> None:
        nonlocal looks
        looks += 1
        if looks == 10:
            other.__exit__(None, None, None)

    cluster = InProcess(plan, tmp_path)
    cluster.idle = idle
    seen = cluster.follow()
    assert seen.waited == [key]
    assert seen.records.keys() == plan.runs.keys()
    assert sum(key in batch for batch in cluster.submitted) == 2


def test_runs_that_cannot_be_recorded_have_a_reason(
    plan: Plan, tmp_path: Path, faults: Faults
) -> None:
    first, second, *_ = plan.runs

    def full(more: Any) -> None:
        more["observer"].warn("little room")
        raise NormbenchError("the disk is full")

    def broken(more: Any) -> None:
        raise KeyError("odd")

    faults[first], faults[second] = full, broken
    seen = InProcess(plan, tmp_path).follow()
    assert seen.lost[first] == "the disk is full"
    assert "KeyError: 'odd'" in seen.lost[second]
    assert seen.warnings == ["little room"]
    assert len(seen.records) == len(plan.runs) - 2


def test_a_folder_that_is_not_shared_is_named(plan: Plan, tmp_path: Path) -> None:
    def elsewhere(batch: Batch, results: Results) -> list[Event]:
        return do_batch(batch, Results(tmp_path / "elsewhere"))

    seen = InProcess(plan, tmp_path / "here", elsewhere).follow()
    assert seen.lost.keys() == plan.runs.keys()
    assert all("machines share that folder?" in reason for reason in seen.lost.values())


def test_a_module_that_a_worker_lacks_ends_the_sweep(
    plan: Plan, tmp_path: Path
) -> None:
    def bare(batch: Batch, results: Results) -> list[Event]:
        return do_batch(batch, Results(tmp_path, ("no_such_module",)))

    cluster = InProcess(plan, tmp_path, bare)
    cluster.cancel = lambda task: None  # type: ignore[method-assign]
    with pytest.raises(RequestError, match="a worker cannot start: the module no_such"):
        cluster.follow()


def test_an_interrupt_cancels_what_is_going_on(plan: Plan, tmp_path: Path) -> None:
    cancelled: list[Batch] = []

    class Interrupted(InProcess):
        def pause(self, tasks: Sequence[Batch], seconds: float) -> None:
            if not cancelled:
                raise KeyboardInterrupt

        def cancel(self, task: Batch) -> None:
            cancelled.append(task)

    cluster = Interrupted(plan, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cluster.follow()
    assert cluster.observer.calls == ["start", "stopping", "close"]
    assert len(cancelled) == 2
