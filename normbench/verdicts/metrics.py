"""Read metrics from records, as the judgement of a claim counts them."""

from collections.abc import Iterable

from normbench.config.schema import RunRecord
from normbench.system.untrusted import MAX_METRIC
from normbench.verdicts.design import Gate


def metric_of(record: RunRecord, metric: str) -> float | None:
    """Return the metric of a run; None if the run lacks it or its size is too large.

    The size must be below MAX_METRIC. If a classifier diverged, its error counts as 1,
    but not if a probe measures the error.
    """
    split, _, name = metric.partition("/")
    probed = split in record.config.probes
    if record.status == "diverged" and name == "error" and not probed:
        return 1.0
    value = {**record.metrics, **record.probes}.get(metric)
    return value if value is not None and abs(value) < MAX_METRIC else None


def values_of(records: Iterable[RunRecord], metric: str) -> list[float] | None:
    """Return the metric of every run; None if a run lacks it."""
    values = [metric_of(record, metric) for record in records]
    finite = [value for value in values if value is not None]
    return finite if len(finite) == len(values) else None


def is_maximized(metric: str, records: Iterable[RunRecord]) -> bool:
    """Return whether higher values of `metric` are better.

    Higher values are better if `metric` is the primary metric of a task that maximizes
    the metric. Otherwise lower values are better.
    """
    quantity = metric.partition("/")[2]
    return any(
        record.direction == "maximize"
        and record.primary_metric.partition("/")[2] == quantity
        for record in records
    )


def is_trained(record: RunRecord, gate: Gate) -> bool:
    """Return whether a run ended well and passes the gate by itself."""
    value = metric_of(record, gate.metric)
    if record.status != "ok" or value is None:
        return False
    sign = -1 if is_maximized(gate.metric, [record]) else 1
    return sign * value < sign * gate.below
