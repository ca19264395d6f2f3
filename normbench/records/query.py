"""Queries over the records of runs: filter, sort, and the mean of each cell.

A key is a metric ("test/error"), a field of the record ("status", "seconds.train"), or
a key of its config ("batch_size", "norm.num_groups"). The value of the key `norm` is
the name of the norm.
"""

import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from normbench.config.identity import added_later
from normbench.config.schema import RunConfig, RunRecord, is_hashed
from normbench.errors import RequestError, did_you_mean, similar_key
from normbench.system.untrusted import MAX_METRIC

CONDITION = re.compile(r"(?P<key>[^=!<>]+)(?P<sign>!=|<=|>=|=|<|>)(?P<text>[^=<>].*|)")
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
ABSENT = object()
"""The value of a key that a run does not have."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class Cell:
    """Statistics of one metric over the runs that have equal values of the keys `by`.

    `mean` is the mean over the `n` ok runs whose metric counts (see `counted`), `low`
    and `high` are its 95 % t interval, and `sd` is the standard deviation of the runs.
    `mean` is None if n is 0. `low`, `high` and `sd` are None if n is below 2.

    `failures` counts the runs that diverged, failed or were skipped, and ok runs whose
    metric does not count. `without` counts the ok runs without this metric.
    """

    by: dict[str, Any]
    metric: str
    n: int
    mean: float | None
    low: float | None
    high: float | None
    sd: float | None
    failures: int
    without: int

    def plain(self) -> dict[str, Any]:
        """Return the cell as one flat row."""
        row = asdict(self)
        del row["by"], row["without"]
        return self.by | row


def value(record: RunRecord, key: str) -> Any:
    """Return the value of `key` in a record, ABSENT if the record has no such key."""
    if key in record.metrics:
        return record.metrics[key]
    head, *rest = key.split(".")
    in_config = head in RunConfig.model_fields
    if not in_config and head not in RunRecord.model_fields:
        return ABSENT
    item: Any = getattr(record.config if in_config else record, head)
    for part in rest:
        fields = dict(item) if isinstance(item, dict | BaseModel) else {}
        if part not in fields:
            return ABSENT
        item = fields[part]
    if isinstance(item, dict):  # a section of the config; its value is its name
        return item.get("name", item)
    return getattr(item, "name", item)


def keys(records: Iterable[RunRecord]) -> set[str]:
    """Return the config keys and metrics of `records`, and the fields of a record."""
    known = RunRecord.model_fields.keys() - {"config", "metrics", "environment"}
    return known | {key for r in records for key in (*r.metrics, *flat(r.config))}


def flat(config: RunConfig) -> dict[str, Any]:
    """Return a config's values by dotted key; the key of `norm.name` is "norm"."""
    rows: dict[str, Any] = {}
    for key, item in config.model_dump(mode="json").items():
        if isinstance(item, Mapping):
            for inner, leaf in item.items():
                if isinstance(leaf, Mapping):  # such as task.model_options
                    rows |= {f"{key}.{inner}.{name}": x for name, x in leaf.items()}
                else:
                    rows[key if inner == "name" else f"{key}.{inner}"] = leaf
        else:
            rows[key] = item
    return rows


def row(record: RunRecord) -> dict[str, Any]:
    """Return a run as a flat row: id, status, config, peak learning rate, metrics."""
    identity = {"run_id": record.run_id, "status": record.status}
    peak = {"peak_lr": record.peak_lr}
    return identity | flat(record.config) | peak | record.metrics


def matching(records: Sequence[RunRecord], where: Sequence[str]) -> list[RunRecord]:
    """Return the records for which every condition of `where` is true.

    A condition is a key, one of = != < <= > >=, and a value. For a run without the key,
    `!=` is true and all other conditions are false. Raises RequestError if a condition
    has another form, if no record has the key, or if < <= > >= compare a text.
    """
    kept = list(records)
    for condition in where:
        match = CONDITION.fullmatch(condition)
        if match is None:
            raise RequestError(
                f"--where {condition!r} is not a condition; write KEY=VALUE, or "
                "another of != < <= > >= in quotes, such as 'seed<4'"
            )
        key, sign, text = (part.strip() for part in match.groups())
        _check_known("--where", key, records)
        if sign in COMPARISONS:
            number = _number(condition, text)
            kept = [r for r in kept if _compares(condition, r, key, sign, number)]
        else:
            equal = sign == "="
            kept = [r for r in kept if _equals(_leaf("--where", r, key), text) == equal]
    return kept


def in_order(records: Sequence[RunRecord], sort: str) -> list[RunRecord]:
    """Return the records sorted by the key `sort`; `-KEY` sorts in descending order.

    Records without a value come last. Raises RequestError if no record has the key.
    """
    _check_known("--sort", sort.removeprefix("-"), records)
    return _sorted(records, lambda record, key: _leaf("--sort", record, key), sort)


def cells_in_order(cells: Sequence[Cell], sort: str) -> list[Cell]:
    """Return the cells sorted by a column, as `in_order` sorts records by a key."""
    key = sort.removeprefix("-")
    known = {column for cell in cells for column in cell.plain()}
    if cells and key not in known:
        raise RequestError(
            f"--sort {key}: cells have no such column; {did_you_mean(key, known)}"
        )
    return _sorted(cells, lambda cell, column: cell.plain()[column], sort)


def check_metrics(metrics: Sequence[str], records: Sequence[RunRecord]) -> None:
    """Raise RequestError if no record has one of `metrics`."""
    known = {name for record in records for name in record.metrics}
    for metric in metrics:
        if records and metric not in known:
            raise RequestError(
                f"--metric {metric}: no run has this metric; "
                f"{did_you_mean(metric, known)}"
            )


def primary_metrics(records: Iterable[RunRecord]) -> list[str]:
    """Return the primary metrics that occur in `records`, sorted."""
    return sorted({record.primary_metric for record in records})


def cells(
    records: Sequence[RunRecord], by: Sequence[str], metrics: Sequence[str] = ()
) -> list[Cell]:
    """Return one cell for each combination of the values of `by` and each metric.

    Without `metrics`, the primary metrics of the runs are used; then a run counts only
    in the cell of its own primary metric. Raises RequestError if no record has a key or
    metric, or if a key is a section of the config.
    """
    check_metrics(metrics, records)
    made = []
    for values, group in groups(records, by):
        for metric in sorted({*metrics} or primary_metrics(group)):
            members = group
            if not metrics:
                members = [r for r in group if r.primary_metric == metric]
            made.append(_cell(values, metric, members))
    return made


def groups(
    records: Sequence[RunRecord], by: Sequence[str], option: str = "--by"
) -> list[tuple[dict[str, Any], list[RunRecord]]]:
    """Group the runs by their values of the keys `by`; return (values, runs) pairs.

    The pairs are sorted by the values. Raises RequestError, which names `option`, if no
    record has a key or a key is a section of the config.
    """
    for key in by:
        _check_known(option, key, records)
    members: dict[tuple[Any, ...], list[RunRecord]] = {}
    for record in records:
        values = tuple(_cell_value(option, record, key) for key in by)
        members.setdefault(values, []).append(record)
    ordered = sorted(members.items(), key=lambda group: [_rank(v) for v in group[0]])
    return [(dict(zip(by, values, strict=True)), group) for values, group in ordered]


def mixtures(records: Sequence[RunRecord], by: Sequence[str]) -> list[str]:
    """Return the config keys, except the seed, in which runs of one cell differ.

    The mean of such a cell mixes different experiments.
    """
    first: dict[tuple[Any, ...], RunConfig] = {}
    differing: set[str] = set()
    for record in records:
        cell = tuple(_cell_value("--by", record, key) for key in by)
        config = first.setdefault(cell, record.config)
        differing.update(_differences(config, record.config))
    return sorted(differing - set(by))


def _differences(first: RunConfig, second: RunConfig) -> Iterator[str]:
    """Yield the keys in which two configs differ, such as "lr" or "norm.num_groups".

    If the norms have different names, "norm" is yielded, and none of their options.
    """
    # An older record lacks the keys that were added later.
    a, b = added_later(first) | flat(first), added_later(second) | flat(second)
    for key in filter(is_hashed, (a.keys() | b.keys()) - {"seed"}):
        section = key.partition(".")[0]
        same_name = a.get(section) == b.get(section)
        if a.get(key) != b.get(key) and (key == section or same_name):
            yield key


def counted(ok: Iterable[RunRecord], metric: str) -> list[float]:
    """Return the values of `metric` that count in a mean: absolute value < MAX_METRIC.

    `ok` are records with the status "ok".
    """
    values = (record.metrics.get(metric) for record in ok)
    return [x for x in values if x is not None and abs(x) < MAX_METRIC]


def _cell(by: dict[str, Any], metric: str, records: Sequence[RunRecord]) -> Cell:
    from normbench.stats import mean_interval  # imports numpy and scipy

    ok = [record for record in records if record.status == "ok"]
    having = [record for record in ok if metric in record.metrics]
    values = counted(having, metric)
    interval = mean_interval(values) if len(values) > 1 else None
    not_counted = len(having) - len(values)
    return Cell(
        by=by,
        metric=metric,
        n=len(values),
        mean=interval.mean if interval else next(iter(values), None),
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        sd=interval.sd if interval else None,
        failures=len(records) - len(ok) + not_counted,
        without=len(ok) - len(having),
    )


def _cell_value(option: str, record: RunRecord, key: str) -> Any:
    leaf = _leaf(option, record, key)
    if leaf is ABSENT:
        return None
    return json.dumps(leaf) if isinstance(leaf, list) else leaf


def _check_known(option: str, key: str, records: Sequence[RunRecord]) -> None:
    if records and all(value(record, key) is ABSENT for record in records):
        raise RequestError(
            f"{option} {key}: no run has this key; {similar_key(key, keys(records))}; "
            "`normbench show RUN_ID` prints the keys of a run"
        )


def _leaf(option: str, record: RunRecord, key: str) -> Any:
    """Return the value of `key`, or ABSENT. Raises RequestError if it is a section."""
    leaf = value(record, key)
    if isinstance(leaf, dict | BaseModel):
        known = ", ".join(f"{key}.{name}" for name in dict(leaf))
        raise RequestError(f"{option} {key} is a section; name one of {known}")
    return leaf


def _equals(value: Any, text: str) -> bool:
    """Return whether `text` from the command line denotes `value`."""
    if value is None or isinstance(value, bool):
        return text.lower() == json.dumps(value)
    if isinstance(value, int | float):
        try:
            return float(text) == value
        except ValueError:
            return False
    return text == str(value)


def _number(condition: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise RequestError(
            f"--where {condition!r}: {text!r} is not a number; compare text by = or !="
        )
    return number


def _compares(
    condition: str, record: RunRecord, key: str, sign: str, number: float
) -> bool:
    """Return whether a record's value of `key` is < (or <= > >=) `number`."""
    leaf = _leaf("--where", record, key)
    if leaf is ABSENT or leaf is None:
        return False
    if isinstance(leaf, bool) or not isinstance(leaf, int | float):
        raise RequestError(
            f"--where {condition!r}: {key} is not a number in run {record.run_id} "
            f"({leaf}); compare it by = or !="
        )
    return COMPARISONS[sign](leaf, number)


def _rank(value: Any) -> tuple[int, Any]:
    """Return a sort key for mixed values: numbers, then text, then missing values."""
    if value is None or value is ABSENT:
        return 2, 0
    if isinstance(value, int | float):
        return 0, value
    return 1, str(value)


def _sorted(
    items: Iterable[Item], value_of: Callable[[Item, str], Any], sort: str
) -> list[Item]:
    """Sort items by KEY or -KEY (descending order); items without a value come last."""
    key = sort.removeprefix("-")
    ranked = [(_rank(value_of(item, key)), item) for item in items]
    present = [pair for pair in ranked if pair[0][0] < 2]
    present.sort(key=operator.itemgetter(0), reverse=sort.startswith("-"))
    absent = [item for rank, item in ranked if rank[0] == 2]
    return [item for _, item in present] + absent
