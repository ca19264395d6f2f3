"""How long the rest of a sweep takes, learnt from records. Needs no torch."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from statistics import mean

from normbench.config.schema import RunConfig, RunRecord


class Forecast:
    """How long runs take, learnt from records: the mean of the runs most like each.

    An engine that finds out how many runs go side by side says so in `workers`.
    """

    def __init__(
        self, seen: Iterable[RunRecord], missing: Mapping[str, RunConfig], workers: int
    ) -> None:
        self.workers = workers
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._left: dict[str, set[str]] = defaultdict(set)
        self._cells: dict[str, RunConfig] = {}
        for finished in seen:
            self.learn(finished)
        for key, config in missing.items():
            cell = next(_likenesses(config))
            self._left[cell].add(key)
            self._cells.setdefault(cell, config)

    def learn(self, finished: RunRecord) -> None:
        """From a run that went to its end; it is no longer missing."""
        likenesses = list(_likenesses(finished.config))
        self._left[likenesses[0]].discard(finished.run_id)
        if finished.status in {"ok", "diverged"}:
            spent = finished.seconds
            total = spent.setup + spent.train + spent.evaluate
            for likeness in likenesses:
                self._seconds[likeness].append(total)

    def give_up(self, run_id: str, config: RunConfig) -> None:
        """A run that left no record is no longer waited for."""
        self._left[next(_likenesses(config))].discard(run_id)

    def seconds(self) -> float | None:
        """Until every missing run is done; None while no run like one of them is known.

        A cell of which nothing is known counts as the mean of those that are.
        """
        known, unknown, total = 0, 0, 0.0
        for cell, keys in self._left.items():
            if not keys:
                continue
            each = self._of(self._cells[cell])
            if each is None:
                unknown += len(keys)
            else:
                known += len(keys)
                total += each * len(keys)
        if not known:
            return None if unknown else 0.0
        total += unknown * total / known
        return total / max(1, min(self.workers, known + unknown))

    def _of(self, config: RunConfig) -> float | None:
        for likeness in _likenesses(config):
            if seen := self._seconds.get(likeness):
                return mean(seen)
        return None


def _likenesses(config: RunConfig) -> Iterator[str]:
    """What a run has in common with others, the most first: all but rates and seed."""
    parts = config.model_dump(mode="json")
    work = [parts["task"], parts["data"], parts["budget"]]
    sizes = [config.batch_size, config.accumulate]
    norm = [parts["norm"], config.reparam, config.norm_batch]
    for alike in ([work, sizes, norm], [work, sizes], [work]):
        yield json.dumps(alike, sort_keys=True)
