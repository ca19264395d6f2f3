"""Estimates how long the rest of a sweep takes, from the records of similar runs."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from statistics import mean

from normbench.config.schema import RunConfig, RunRecord


class Forecast:
    """The time that the missing runs of a sweep take with `workers` parallel runs.

    The expected time of a run is the mean time of the most similar finished runs. Once
    an engine has started, the engine updates `workers`.
    """

    def __init__(
        self,
        records: Iterable[RunRecord],
        missing: Mapping[str, RunConfig],
        workers: int,
    ) -> None:
        self.workers = workers
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._missing: dict[str, set[str]] = defaultdict(set)  # cell -> run ids
        self._configs: dict[str, RunConfig] = {}  # cell -> config of one of its runs
        for record in records:
            self.learn(record)
        for key, config in missing.items():
            cell = next(_kinds(config))
            self._missing[cell].add(key)
            self._configs.setdefault(cell, config)

    def learn(self, record: RunRecord) -> None:
        """Remove the run from the missing runs, and learn from its time if it is ok.

        A diverged run counts too; the time of a failed run would be misleading.
        """
        self.give_up(record.run_id, record.config)
        if record.status in {"ok", "diverged"}:
            times = record.seconds
            for kind in _kinds(record.config):
                self._seconds[kind].append(times.total)

    def give_up(self, run_id: str, config: RunConfig) -> None:
        """Remove a run from the missing runs, whether it has a record or not."""
        self._missing[next(_kinds(config))].discard(run_id)

    def seconds(self) -> float | None:
        """Return the seconds until no run is missing, or None if they are unknown.

        For a cell without similar finished runs, the mean of the other cells is used.
        The time is unknown if no cell has similar finished runs.
        """
        known, unknown, total = 0, 0, 0.0  # `known` and `unknown` count missing runs
        for cell, keys in self._missing.items():
            if not keys:
                continue
            run_seconds = self._run_seconds(self._configs[cell])
            if run_seconds is None:
                unknown += len(keys)
            else:
                known += len(keys)
                total += run_seconds * len(keys)
        if not known:
            return None if unknown else 0.0
        total += unknown * total / known  # an unknown run takes the mean time
        return total / max(1, min(self.workers, known + unknown))

    def _run_seconds(self, config: RunConfig) -> float | None:
        times = (self._seconds.get(kind) for kind in _kinds(config))
        return next((mean(seconds) for seconds in times if seconds), None)


def _kinds(config: RunConfig) -> Iterator[str]:
    """Yield names of kinds of runs with a similar duration, the narrowest kind first.

    The first name identifies the cell. It contains all keys that change the duration;
    learning rates and the seed do not change the duration.
    """
    parts = config.model_dump(mode="json")
    work = [parts["task"], parts["data"], parts["budget"]]
    sizes = [config.batch_size, config.accumulate]
    norm = [parts["norm"], config.reparam, config.norm_batch]
    for keys in ([work, sizes, norm], [work, sizes], [work]):
        yield json.dumps(keys, sort_keys=True)
