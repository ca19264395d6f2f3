"""The metrics of single seeds behind the means of a verdict's cells."""

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from math import isclose
from pathlib import Path

import numpy as np

from normbench.config.schema import RunConfig, RunRecord, is_hashed
from normbench.errors import Unreadable
from normbench.records import query, store
from normbench.verdicts.metrics import metric_of
from normbench.verdicts.summaries import CellSummary
from normbench.verdicts.verdict import Verdict

CLOSE = 1e-9
"""Relative difference of two means that are equal but for rounding."""


RECORDS = "records.jsonl.gz"
"""The file of all records of a full check, beside its verdict."""


def runs_of(verdict: Verdict, verdict_file: Path, results: Path) -> list[RunRecord]:
    """Return the runs of a verdict: those beside its file, or else those in `results`.

    Runs that cannot be read are left out. Raises RequestError if the file beside the
    verdict cannot be read.
    """
    beside = verdict_file.with_name(RECORDS)
    if verdict.budget == "full" and beside.exists():
        with store.no_garbage():
            return store.read_compact(beside)
    return read_runs(verdict.run_ids, results)


def read_runs(run_ids: Collection[str], results: Path) -> list[RunRecord]:
    """Return the runs in `results` that have one of `run_ids` and can be read."""
    records = []
    for name in sorted({*run_ids} & {*store.run_ids(results)}):
        with suppress(Unreadable):
            if (record := store.read(store.run_folder(results, name))) is not None:
                records.append(record)
    return records


class SeedRuns:
    """The runs of a verdict, grouped by their configs without the seed.

    A verdict has means and standard deviations of its cells, but no single runs. The
    runs of a cell are those of a config whose first seeds have its mean and its
    standard deviation.
    """

    def __init__(self, records: Iterable[RunRecord], run_ids: Collection[str]) -> None:
        """Use those of `records` that have one of `run_ids`."""
        used, groups = {*run_ids}, dict[str, dict[int, RunRecord]]()
        for record in records:
            if record.run_id in used:
                key = _without_seed(record.config)
                groups.setdefault(key, {})[record.config.seed] = record
        self._groups = [
            [by_seed[seed] for seed in sorted(by_seed)] for by_seed in groups.values()
        ]

    def values(self, cell: CellSummary, metric: str) -> Sequence[float]:
        """Return the metric of each seed of a cell; empty if its runs are unknown."""
        rates = {rate.lr for rate in cell.rates if rate.seeds}
        if len(rates) != 1 or metric not in cell.mean:
            return ()
        mean, sd = cell.mean[metric], cell.sd.get(metric)
        return self.with_mean(metric, rates.pop(), cell.n, mean, sd)

    def with_mean(
        self, metric: str, lr: float, n: int, mean: float, sd: float | None = None
    ) -> Sequence[float]:
        """Return the metric of the first `n` seeds at `lr` that have a mean and an sd.

        Empty if there are no such runs.
        """
        for group in self._groups:
            if group[0].config.lr != lr or len(group) < n:
                continue
            values = [metric_of(record, metric) for record in group[:n]]
            known = [value for value in values if value is not None]
            if len(known) == len(values) and _are(known, mean, sd):
                return known
        return ()


def _are(values: Sequence[float], mean: float, sd: float | None) -> bool:
    """Return whether values have a mean and, if it is known, a standard deviation."""
    same = isclose(float(np.mean(values)), mean, rel_tol=CLOSE)
    if sd is None or len(values) < 2:
        return same
    spread = float(np.std(values, ddof=1))
    return same and isclose(spread, sd, rel_tol=1e-6, abs_tol=1e-12)


def _without_seed(config: RunConfig) -> str:
    """Return what determines the numbers of a run, except its seed, as text."""
    values = query.flat(config).items()
    return repr([(k, v) for k, v in values if is_hashed(k) and k != "seed"])
