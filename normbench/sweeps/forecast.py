"""How long the rest of a sweep takes, by the records of similar runs.

Needs no torch.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from statistics import mean

from normbench.config.schema import RunConfig, RunRecord


class Forecast:
    """The time of a run is the mean of the most similar runs; `workers` go in parallel.

    An engine sets `workers` once it knows them.
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
        self._configs: dict[str, RunConfig] = {}  # cell -> one of its configs
        for record in records:
            self.learn(record)
        for key, config in missing.items():
            cell = next(_similar(config))
            self._missing[cell].add(key)
            self._configs.setdefault(cell, config)

    def learn(self, record: RunRecord) -> None:
        """Count a run as done; one that went to its end gives its time."""
        self.give_up(record.run_id, record.config)
        if record.status in {"ok", "diverged"}:
            spent = record.seconds
            for kind in _similar(record.config):
                self._seconds[kind].append(spent.setup + spent.train + spent.evaluate)

    def give_up(self, run_id: str, config: RunConfig) -> None:
        """The run is no longer missing."""
        self._missing[next(_similar(config))].discard(run_id)

    def seconds(self) -> float | None:
        """Until every missing run is done; None if no similar run is known.

        A cell without similar runs counts as the mean of the others.
        """
        known, unknown, total = 0, 0, 0.0
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
        total += unknown * total / known
        return total / max(1, min(self.workers, known + unknown))

    def _run_seconds(self, config: RunConfig) -> float | None:
        times = (self._seconds.get(kind) for kind in _similar(config))
        return next((mean(seconds) for seconds in times if seconds), None)


def _similar(config: RunConfig) -> Iterator[str]:
    """Kinds of runs that take a similar time, the most similar first.

    The first is all of the config that matters, without rates and seed.
    """
    parts = config.model_dump(mode="json")
    work = [parts["task"], parts["data"], parts["budget"]]
    sizes = [config.batch_size, config.accumulate]
    norm = [parts["norm"], config.reparam, config.norm_batch]
    for keys in ([work, sizes, norm], [work, sizes], [work]):
        yield json.dumps(keys, sort_keys=True)
