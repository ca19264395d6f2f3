"""What became of the runs of a plan: what every engine keeps, and tells.

Nothing is lost with a process: what is finished is on disk, and a run that was going
on resumes from its checkpoint. So a run whose process died is begun once more, and one
that another command is doing is looked at again.
"""

import time
from collections import Counter

from normbench.config.schema import RunRecord
from normbench.errors import Busy, NormbenchError
from normbench.records import store
from normbench.sweeps.engines import Work
from normbench.training.experiment import record_failure

ATTEMPTS = 2
"""How often a run is begun whose process dies, before it is recorded as failed."""
STARTS = 3
"""How many workers may die one after another without having begun a run."""
RETRY = 1.0
"""Seconds before looking again at a run that another command is doing."""


class Ledger:
    """Which runs of `work` wait for another command, and how often each has died."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._elsewhere: dict[str, float] = {}  # run id -> when to look at it again
        self._deaths: Counter[str] = Counter()
        self._stillborn = 0

    @property
    def next_look(self) -> float | None:
        """When the next run that waits is due (time.monotonic); None where none is."""
        return min(self._elsewhere.values(), default=None)

    def due(self) -> list[str]:
        """The runs that another command had, and is not doing any more."""
        now, freed = time.monotonic(), []
        for run_id, at in list(self._elsewhere.items()):
            if at > now:
                continue
            if store.is_running(store.run_folder(self._work.results.folder, run_id)):
                self._elsewhere[run_id] = now + RETRY
            else:
                del self._elsewhere[run_id]
                freed.append(run_id)
        return freed

    def wait_for(self, run_id: str) -> None:
        """Another command is doing this run."""
        self._elsewhere[run_id] = time.monotonic() + RETRY
        self._work.observer.waiting(run_id)

    def workers_can_begin(self) -> None:
        """A worker has begun a run, or come to the end of its work."""
        self._stillborn = 0

    def stillborn(self, how: str) -> None:
        """A worker died before it began a run; NormbenchError where all seem to."""
        self._stillborn += 1
        if self._stillborn >= STARTS:
            raise NormbenchError(
                f"{STARTS} workers one after another died before they began a run; "
                f"the last one {how}"
            )

    def died_at(self, run_id: str, how: str) -> bool:
        """Count a worker's death at this run; whether to begin it once more."""
        self._deaths[run_id] += 1
        if self._deaths[run_id] >= ATTEMPTS:
            self.give_up(run_id, f"its worker {how}, {ATTEMPTS} times")
            return False
        self._work.observer.warn(
            f"the worker of run {run_id} {how}; it begins once more"
        )
        return True

    def give_up(self, run_id: str, reason: str) -> None:
        """Record that this run failed, unless another command has it, or did it."""
        try:
            failed = record_failure(self._work.runs[run_id], self._work.results, reason)
        except Busy:
            self.wait_for(run_id)
        except NormbenchError as error:
            self.lose(run_id, f"{reason}; {error}")
        else:
            self.ended(failed)

    def ended(self, found: RunRecord) -> None:
        """This run is recorded."""
        self._work.forecast.learn(found)
        self._work.observer.ended(found, self._work.forecast.seconds())

    def lose(self, run_id: str, reason: str) -> None:
        """This run could not be recorded."""
        self._work.forecast.give_up(run_id, self._work.runs[run_id])
        self._work.observer.unrecorded(run_id, reason)
