"""The deadline of a round, with a made-up clock and made-up runs."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from records_made import a_record, written
from sweeps_made import RecordingObserver

from normbench.config.identity import run_id
from normbench.config.schema import LocalEngine, RunRecord
from normbench.records.store import Results
from normbench.sweeps import round
from normbench.sweeps.engines import follower
from normbench.sweeps.engines.base import Batch, Event, Work
from normbench.sweeps.forecast import Forecast
from normbench.sweeps.plan import Plan
from normbench.sweeps.round import Rounds

RECORDS = {
    record.run_id: record
    for seed in range(4)
    for record in [a_record("task=cnn", f"seed={seed}", "tracker=none")]
}
RUNS = {key: record.config for key, record in RECORDS.items()}
ENGINE = LocalEngine(name="local", workers=1, timeout=None)


class Clock:
    """A clock that only `wait` moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Slow:
    """A backend of one slot whose runs take ten seconds of `clock`."""

    slots, batch_size, patience = 1, 1, 5.0

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.ends: dict[str, float] = {}
        self.stopped: list[str] = []

    def submit(self, batches: Sequence[Batch]) -> list[str]:
        (key,) = (key for batch in batches for key in batch)
        self.ends[key] = self.clock.now + 10
        return [key]

    def wait(self, jobs: Sequence[str], seconds: float | None) -> None:
        if self.stopped:  # a stopped job ends at once
            return
        (end,) = (self.ends[key] for key in jobs)
        limit = end if seconds is None else self.clock.now + seconds
        self.clock.now = min(end, limit)

    def events(self, job: str) -> Iterator[Event]:
        if job in self.stopped:
            yield Event("died", text="ended with exit code 143")
        elif self.clock.now >= self.ends[job]:
            yield Event("ended", job, record=RECORDS[job])
            yield Event("returned")

    def stop(self, job: str) -> None:
        self.stopped.append(job)


def followed(
    deadline: float | None, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> tuple[Slow, RecordingObserver]:
    monkeypatch.setattr(follower, "time", clock)
    backend, observer = Slow(clock), RecordingObserver()
    work = Work(RUNS, Results(Path("x")), Forecast([], RUNS, 1), observer)
    if deadline is not None:
        work = Work(**{**vars(work), "deadline": deadline})
    follower.follow(backend, work)
    return backend, observer


def test_at_the_deadline_running_runs_stop_and_no_other_run_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second, *_ = RUNS
    backend, observer = followed(115.0, clock := Clock(), monkeypatch)
    assert clock.now == 115.0
    assert list(observer.records) == [first]
    assert backend.stopped == [second] == list(backend.ends)[1:]
    assert observer.calls == ["start", "stopping", "close"]


def test_an_interrupt_ends_the_wait_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stops = []

    def interrupted(backend: Slow, job: str) -> None:
        stops.append(job)
        raise KeyboardInterrupt

    monkeypatch.setattr(Slow, "stop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        followed(115.0, Clock(), monkeypatch)
    assert len(stops) == 1


def test_no_wait_is_longer_than_the_system_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float | None] = []
    wait = Slow.wait

    def recorded(backend: Slow, jobs: Sequence[str], seconds: float | None) -> None:
        waits.append(seconds)
        wait(backend, jobs, seconds)

    monkeypatch.setattr(Slow, "wait", recorded)
    followed(1e300, Clock(), monkeypatch)
    assert waits and all(s is not None and s <= follower.LONGEST_WAIT for s in waits)


@pytest.mark.parametrize("deadline", [None, 140.5])
def test_a_deadline_after_the_last_run_has_no_effect(
    deadline: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, observer = followed(deadline, clock := Clock(), monkeypatch)
    assert (clock.now, backend.stopped) == (140.0, [])
    assert observer.records.keys() == RUNS.keys()
    assert observer.calls == ["start", "close"]


def test_a_round_returns_the_records_that_exist(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock, (first, second, third, _) = Clock(), RUNS
    received: list[float | None] = []

    def run_all(work: Work, engine: LocalEngine) -> None:
        received.append(work.deadline)
        written(tmp_path, finished(second))

    def finished(key: str) -> RunRecord:
        assert run_id(RUNS[key]) == key
        return RECORDS[key]

    monkeypatch.setattr(round, "run_all", run_all)
    monkeypatch.setattr(round, "time", clock)
    written(tmp_path, finished(first))
    rounds = Rounds(Results(tmp_path), lambda *_: RecordingObserver())
    plan = Plan({key: RUNS[key] for key in (first, second, third)}, {}, ENGINE)
    rounds.deadline = 101.0
    assert rounds.run(plan, "title").keys() == {first, second}
    assert (received, rounds.trained) == ([101.0], {second})
    clock.now = 101.0  # over: nothing is trained, and finished runs are returned
    assert rounds.run(plan, "title").keys() == {first, second}
    assert len(received) == 1
