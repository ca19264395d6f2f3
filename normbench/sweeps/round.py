"""The rounds of a command: each round executes a plan and returns its records.

`sweep` has one round; `claim check` and `compare` have one round for each set of runs
that they need.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Protocol, Self

from normbench.config.schema import Engine, LocalEngine, RayEngine, RunConfig, RunRecord
from normbench.errors import Unreadable
from normbench.records import store
from normbench.records.store import Results
from normbench.sweeps.engines import local, ray, slurm
from normbench.sweeps.engines.base import Work, parallel
from normbench.sweeps.engines.follower import follow
from normbench.sweeps.forecast import Forecast
from normbench.sweeps.manifest import Announcement, Manifest
from normbench.sweeps.observer import SweepObserver
from normbench.sweeps.plan import Plan, PlanState, plan_state
from normbench.system.signals import stop_signals_raise

Observe = Callable[[str, Plan, PlanState], SweepObserver]
"""Makes the observer of a round from its title, its plan and the state of the plan."""


class RunSource(Protocol):
    """Gives the records of plans. `Rounds` does the missing runs; others may not.

    `modules` are the names of the user's modules.
    """

    @property
    def modules(self) -> tuple[str, ...]: ...
    @property
    def is_over(self) -> bool: ...
    def run(self, plan: Plan, title: str) -> dict[str, RunRecord]: ...


class Rounds:
    """Executes plans in one results folder, one after another, in a `with` block.

    `normbench watch` shows all rounds as one sweep. In the block, Ctrl-C, SIGTERM and
    SIGHUP raise KeyboardInterrupt; the running runs then write checkpoints. `watch`
    shows no metrics of `blind` rounds.

    `deadline` is the time of `time.monotonic` at which a round ends, None for no limit.
    Then the running runs write checkpoints, and the records that exist are returned.
    `trained` has the ids of the runs whose records this process made.
    """

    def __init__(
        self, results: Results, observe: Observe, *, blind: bool = False
    ) -> None:
        self.results = results
        self.deadline: float | None = None
        self.trained: set[str] = set()
        self._observe = observe
        self._blind = blind
        self._announcement = Announcement(results.folder)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(stop_signals_raise())
        self._open.enter_context(self._announcement)
        return self

    def __exit__(self, *reason: object) -> None:
        self._open.close()

    def run(
        self, plan: Plan, title: str, *, skip_failed: bool = False
    ) -> dict[str, RunRecord]:
        """Train the missing runs of `plan` and return all its records by run id.

        Records of failed runs are included; a run without a record has no entry. With
        `skip_failed`, runs that failed before are not repeated. Raises RequestError if
        the engine is not available, and the errors of `follow`.
        """
        state = plan_state(plan, self.results, skip_failed=skip_failed)
        observer = self._observe(title, plan, state)
        records = state.finished | state.left  # `left`: failed and not repeated
        if state.missing and not self.is_over:

            def announce(workers: int) -> None:
                self._announcement.publish(
                    Manifest(
                        title=title,
                        workers=workers,
                        runs=plan.runs,
                        skipped=plan.skipped,
                        todo=list(state.missing),
                        blind=self._blind,
                    )
                )

            expected = forecast(plan, state, self.results)
            work = Work(
                state.missing, self.results, expected, observer, announce, self.deadline
            )
            run_all(work, plan.engine)
            new = self._records(state.missing)
            self.trained.update(new)
            records |= new
        return {key: records[key] for key in plan.runs if key in records}

    def seconds(self, plan: Plan) -> float | None:
        """Return the expected seconds of the missing runs; None if unknown."""
        state = plan_state(plan, self.results)
        return forecast(plan, state, self.results).seconds() if state.missing else 0.0

    @property
    def modules(self) -> tuple[str, ...]:
        """The names of the user's modules."""
        return self.results.modules

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _records(self, runs: Mapping[str, RunConfig]) -> dict[str, RunRecord]:
        """Return the records of runs that have failed or are finished now."""
        records = {}
        for key, config in runs.items():
            folder = store.run_folder(self.results.folder, key)
            with suppress(Unreadable):  # the observer has already received the error
                record = store.read(folder)
                if record is not None and (
                    record.status == "failed" or store.satisfies(folder, record, config)
                ):
                    records[key] = record
        return records


def forecast(plan: Plan, state: PlanState, results: Results) -> Forecast:
    """Forecast the missing runs from finished runs of the plan.

    If the plan has no finished runs, all records of the results folder are used.
    """
    records = state.finished.values() or store.all_records(results.folder)[0]
    return Forecast(records, state.missing, parallel(plan.engine))


def run_all(work: Work, engine: Engine) -> None:
    """Train every run of `work` with `engine`; raises the errors of `follow`."""
    if isinstance(engine, LocalEngine):
        with local.backend(work, engine) as pool:
            follow(pool, work)
    elif isinstance(engine, RayEngine):
        with ray.backend(work, engine) as ray_cluster:
            follow(ray_cluster, work)
    else:
        with slurm.backend(work, engine) as slurm_cluster:
            follow(slurm_cluster, work)
