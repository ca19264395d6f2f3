"""The user's own runs of a task at a batch size, as `normbench results --by norm`."""

from collections.abc import Iterator, Mapping, Sequence
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
    """Return the means of the runs at the condition `asked`.

    Runs with the same data set, settings and norm have one mean. Runs of tuning seeds
    do not count. Norms that use no other samples count whatever their `norm_batch` is.
    """
    of_data: dict[tuple[str, str], list[tuple[str, RunRecord]]] = {}
    for record in records:
        config = record.config
        if (config.task.name, config.batch_size) != (TASKS[task], asked.batch_size):
            continue
        options, name = config.norm.options, config.norm.name
        norm = norm_overrides(task, name, options, config.reparam, config_dir)
        other = config.norm_batch != asked.samples_per_statistic
        if config.seed >= FIRST_TUNING_SEED or (other and uses_other_samples(norm)):
            continue
        of_data.setdefault((config.data.name, record.primary_metric), []).append(
            (norm, record)
        )
    runs: list[OwnRuns] = []
    for (data, _), pairs in sorted(of_data.items()):
        for (settings, norm), by_rate in sorted(_cells(pairs).items()):
            runs += _means(data, norm, settings, by_rate)
    return runs


Cells = Mapping[tuple[tuple[str, ...], str], Mapping[float, Sequence[RunRecord]]]
"""The settings that differ, and the norm -> the learning rate -> runs."""


def _cells(pairs: Sequence[tuple[str, RunRecord]]) -> Cells:
    """Return the runs of one data set; each pair is the norm of a run and its record.

    Settings are overrides, such as "budget.epochs=10", of what differs beside the norm.
    """
    records = [record for _, record in pairs]
    differing = [
        key
        for key in query.mixtures(records, [])
        if key.partition(".")[0] not in {"norm", "norm_batch", "reparam", "lr"}
    ]
    cells: dict[tuple[tuple[str, ...], str], dict[float, list[RunRecord]]] = {}
    for norm, record in pairs:
        values = query.flat(record.config)
        settings = tuple(f"{key}={values.get(key)}" for key in differing)
        by_rate = cells.setdefault((settings, norm), {})
        by_rate.setdefault(record.config.lr, []).append(record)
    return cells


def _means(
    data: str,
    norm: str,
    settings: tuple[str, ...],
    by_rate: Mapping[float, Sequence[RunRecord]],
) -> Iterator[OwnRuns]:
    """Yield the mean at the best rate, or at each rate if the best is unknown."""
    best = _best_rate(by_rate)
    for lr in sorted(by_rate) if best is None else [best]:
        (cell,) = query.cells(by_rate[lr], ["norm"])
        yield OwnRuns(
            norm=norm,
            data=data,
            settings=settings,
            metric=cell.metric,
            n=cell.n,
            mean=cell.mean,
            low=cell.low,
            high=cell.high,
            failures=cell.failures,
            lr=lr,
            rates=sorted(by_rate),
            tuned=best is not None,
        )


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
