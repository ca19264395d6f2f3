"""The user's own runs of a task at a batch size, as `normbench results --by norm`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from normbench.config.schema import RunRecord
from normbench.records import query
from normbench.verdicts.conditions import (
    TASKS,
    Condition,
    TaskKind,
    norm_overrides,
    uses_other_samples,
)
from normbench.verdicts.recommendation import OwnRuns
from normbench.verdicts.seeds import FIRST_TUNING_SEED


def own_runs(
    records: Sequence[RunRecord],
    task: TaskKind,
    asked: Condition,
    config_dir: Path | None = None,
) -> list[OwnRuns]:
    """Return the means of the runs at the condition `asked`, by data set and norm.

    Runs of tuning seeds do not count. Norms that use no other samples count whatever
    their `norm_batch` is.
    """
    groups: dict[tuple[str, str, str], list[RunRecord]] = {}
    for record in records:
        config = record.config
        if config.task.name != TASKS[task] or config.seed >= FIRST_TUNING_SEED:
            continue
        options, name = config.norm.options, config.norm.name
        norm = norm_overrides(task, name, options, config.reparam, config_dir)
        samples = {config.norm_batch, asked.samples_per_statistic}
        if config.batch_size != asked.batch_size:
            continue
        if uses_other_samples(norm) and len(samples) > 1:
            continue
        key = (config.data.name, norm, record.primary_metric)
        groups.setdefault(key, []).append(record)
    return [
        own
        for (data, norm, _), group in sorted(groups.items())
        for own in _of_norm(norm, data, group)
    ]


def _of_norm(norm: str, data: str, records: Sequence[RunRecord]) -> list[OwnRuns]:
    """Return the runs at the best rate, or at all rates if none can be chosen."""
    by_rate: dict[float, list[RunRecord]] = {}
    for record in records:
        by_rate.setdefault(record.config.lr, []).append(record)
    best = _best_rate(by_rate)
    rates = sorted(by_rate)
    return [
        _at_rate(norm, data, by_rate[lr], lr, rates, tuned=lr == best)
        for lr in ([best] if best is not None else rates)
    ]


def _best_rate(by_rate: Mapping[float, Sequence[RunRecord]]) -> float | None:
    """Return the rate with the best mean validation metric of several rates.

    None if there is one rate, or if the runs do not have this metric. A rate at which
    all runs failed is not chosen.
    """
    if len(by_rate) < 2:
        return None
    first = next(iter(by_rate.values()))[0]
    metric = f"val/{first.primary_metric.partition('/')[2]}"
    means = {}
    for lr, records in by_rate.items():
        ok = [record for record in records if record.status == "ok"]
        values = query.counted(ok, metric)
        if ok and not values:
            return None
        if values:
            means[lr] = fmean(values)
    if not means:
        return None
    choose = max if first.direction == "maximize" else min
    return choose(means, key=lambda lr: means[lr])


def _at_rate(
    norm: str,
    data: str,
    records: Sequence[RunRecord],
    lr: float,
    rates: list[float],
    *,
    tuned: bool,
) -> OwnRuns:
    (cell,) = query.cells(records, ["norm"])
    return OwnRuns(
        norm=norm,
        data=data,
        metric=cell.metric,
        n=cell.n,
        mean=cell.mean,
        low=cell.low,
        high=cell.high,
        failures=cell.failures,
        lr=lr,
        rates=rates,
        tuned=tuned,
        mixed=query.mixtures(records, ["norm"]),
    )
