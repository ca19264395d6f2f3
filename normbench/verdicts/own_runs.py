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
    groups: dict[tuple[str, str, str], dict[float, list[RunRecord]]] = {}
    for record in records:
        config = record.config
        if (config.task.name, config.batch_size) != (TASKS[task], asked.batch_size):
            continue
        options, name = config.norm.options, config.norm.name
        norm = norm_overrides(task, name, options, config.reparam, config_dir)
        other = config.norm_batch != asked.samples_per_statistic
        if config.seed >= FIRST_TUNING_SEED or (other and uses_other_samples(norm)):
            continue
        by_rate = groups.setdefault((config.data.name, norm, record.primary_metric), {})
        by_rate.setdefault(config.lr, []).append(record)
    runs = []
    for (data, norm, _), by_rate in sorted(groups.items(), key=lambda item: item[0]):
        best = _best_rate(by_rate)
        for lr in sorted(by_rate) if best is None else [best]:
            (cell,) = query.cells(by_rate[lr], ["norm"])
            runs.append(
                OwnRuns(
                    norm=norm,
                    data=data,
                    metric=cell.metric,
                    n=cell.n,
                    mean=cell.mean,
                    low=cell.low,
                    high=cell.high,
                    failures=cell.failures,
                    lr=lr,
                    rates=sorted(by_rate),
                    tuned=best is not None,
                    mixed=query.mixtures(by_rate[lr], ["norm"]),
                )
            )
    return runs


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
