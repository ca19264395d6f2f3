"""Queries over finished runs: filter, sort, and the mean of each cell.

A key is a metric ("test/error"), a field of the record ("status", "seconds.train"), or
a key of its config ("batch_size", "norm.num_groups"); `norm` is the norm's name.
"""

import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from normbench.config.schema import NOT_HASHED, RunConfig, RunRecord
from normbench.errors import RequestError, did_you_mean
from normbench.system.untrusted import MAX_METRIC

CONDITION = re.compile(r"(?P<key>[^=!<>]+)(?P<sign>!=|<=|>=|=|<|>)(?P<text>[^=<>].*|)")
ORDER: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_EXPERIMENT = sorted(RunConfig.model_fields.keys() - NOT_HASHED - {"seed"})
ABSENT = object()
"""The value of a key that a run does not have."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class Cell:
    """The runs that agree in `by`, and the mean of one metric over those that are ok.

    `n` is the number of ok runs in the mean; `low` and `high` are its 95 % t interval
    and `sd` the standard deviation of one run, all None if n is too small. `failures`
    counts the runs that diverged, failed or were skipped, and those whose metric is not
    below MAX_METRIC in size; `without` the ok runs without this metric.
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
        """The cell as one flat row."""
        row = asdict(self)
        del row["by"], row["without"]
        return self.by | row


def value(record: RunRecord, key: str) -> Any:
    """The value of `key` in a record, ABSENT if it has none."""
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
    if isinstance(item, dict):
        return item.get("name", item)
    return getattr(item, "name", item)


def keys(records: Iterable[RunRecord]) -> set[str]:
    """The config keys and metrics of `records`, and the fields of a record."""
    known = RunRecord.model_fields.keys() - {"config", "metrics", "environment"}
    return known | {key for r in records for key in (*r.metrics, *flat(r.config))}


def flat(config: RunConfig) -> dict[str, Any]:
    """A config's values by dotted key; `norm` stands for `norm.name`."""
    rows: dict[str, Any] = {}
    for key, item in config.model_dump(mode="json").items():
        if isinstance(item, Mapping):
            for inner, leaf in item.items():
                rows[key if inner == "name" else f"{key}.{inner}"] = leaf
        else:
            rows[key] = item
    return rows


def row(record: RunRecord) -> dict[str, Any]:
    """A run as one flat row: id, status, config, peak learning rate, metrics."""
    identity = {"run_id": record.run_id, "status": record.status}
    peak = {"peak_lr": record.peak_lr}
    return identity | flat(record.config) | peak | record.metrics


def matching(records: Sequence[RunRecord], where: Sequence[str]) -> list[RunRecord]:
    """The records in which every condition of `where` holds.

    A condition is a key, one of = != < <= > >=, and a value. `!=` holds exactly if `=`
    does not, so also for a run without the key; the others do not hold there. Raises
    RequestError for a condition of another form, a key that no record has, and an order
    of text.
    """
    kept = list(records)
    for condition in where:
        match = CONDITION.fullmatch(condition)
        if match is None:
            raise RequestError(
                f"--where {condition!r} is not a condition; write KEY=VALUE, or one "
                "with != < <= > >= in quotes, such as 'seed<4'"
            )
        key, sign, text = (part.strip() for part in match.groups())
        _check_known("--where", key, records)
        if sign in ORDER:
            number = _number(condition, text)
            kept = [r for r in kept if _ordered(condition, r, key, sign, number)]
        else:
            equal = sign == "="
            kept = [r for r in kept if _is(_leaf("--where", r, key), text) == equal]
    return kept


def in_order(records: Sequence[RunRecord], sort: str) -> list[RunRecord]:
    """The records by the key `sort`, or descending by KEY if `sort` is -KEY.

    Those without a value come last. Raises RequestError for a key that no record has.
    """
    _check_known("--sort", sort.removeprefix("-"), records)
    return _sorted(records, lambda record, key: _leaf("--sort", record, key), sort)


def cells_in_order(cells: Sequence[Cell], sort: str) -> list[Cell]:
    """The cells by one of their columns, as `in_order` does with records."""
    key = sort.removeprefix("-")
    known = {column for cell in cells for column in cell.plain()}
    if cells and key not in known:
        raise RequestError(
            f"--sort {key}: no column of the cells; {did_you_mean(key, known)}"
        )
    return _sorted(cells, lambda cell, column: cell.plain()[column], sort)


def check_metrics(metrics: Sequence[str], records: Sequence[RunRecord]) -> None:
    """Raises RequestError for a metric that no record has."""
    known = {name for record in records for name in record.metrics}
    for metric in metrics:
        if records and metric not in known:
            raise RequestError(
                f"--metric {metric}: no run has this metric; "
                f"{did_you_mean(metric, known)}"
            )


def primary_metrics(records: Iterable[RunRecord]) -> list[str]:
    """The primary metrics that occur in `records`."""
    return sorted({record.primary_metric for record in records})


def cells(
    records: Sequence[RunRecord], by: Sequence[str], metrics: Sequence[str] = ()
) -> list[Cell]:
    """A cell for each combination of the values of `by`, and each of `metrics`.

    Without `metrics` it is the primary metric of the runs, and runs with different ones
    are in different cells. Raises RequestError for a key or metric that no record has,
    and for a key that is a section of the config.
    """
    check_metrics(metrics, records)
    made = []
    for values, members in groups(records, by):
        for metric in sorted({*metrics} or primary_metrics(members)):
            some = members
            if not metrics:
                some = [each for each in members if each.primary_metric == metric]
            made.append(_cell(values, metric, some))
    return made


def groups(
    records: Sequence[RunRecord], by: Sequence[str], option: str = "--by"
) -> list[tuple[dict[str, Any], list[RunRecord]]]:
    """The runs that agree in `by`, with these values, in the order of the values.

    Raises RequestError, naming `option`, for a key that no record has, and for a
    section of the config.
    """
    for key in by:
        _check_known(option, key, records)
    members: dict[tuple[Any, ...], list[RunRecord]] = {}
    for record in records:
        values = tuple(_cell_value(option, record, key) for key in by)
        members.setdefault(values, []).append(record)
    ordered = sorted(members.items(), key=lambda group: [_rank(v) for v in group[0]])
    return [(dict(zip(by, values, strict=True)), some) for values, some in ordered]


def mixtures(records: Sequence[RunRecord], by: Sequence[str]) -> list[str]:
    """The config keys, except the seed, in which runs of one cell differ.

    A mean over such a cell is a mean over different experiments.
    """
    first: dict[tuple[Any, ...], RunConfig] = {}
    differing: set[str] = set()
    for record in records:
        cell = tuple(_cell_value("--by", record, key) for key in by)
        config = first.setdefault(cell, record.config)
        differing.update(_differences(config, record.config))
    return sorted(differing - set(by))


def _differences(one: RunConfig, other: RunConfig) -> Iterator[str]:
    for field in _EXPERIMENT:
        a, b = getattr(one, field), getattr(other, field)
        if a == b:
            continue
        if isinstance(a, BaseModel):
            a, b = dict(a), dict(b)
        if not isinstance(a, dict) or a.get("name") != b.get("name"):
            yield field
        else:
            yield from (f"{field}.{k}" for k in a.keys() | b if a.get(k) != b.get(k))


def counted(ok: Iterable[RunRecord], metric: str) -> list[float]:
    """The values of `metric` that count in a mean: finite and below MAX_METRIC in size.

    `ok` are records of runs with this status.
    """
    values = (record.metrics.get(metric) for record in ok)
    return [x for x in values if x is not None and abs(x) < MAX_METRIC]


def _cell(by: dict[str, Any], metric: str, records: Sequence[RunRecord]) -> Cell:
    from normbench.stats import mean_interval  # numpy, scipy: not for a table of runs

    ok = [record for record in records if record.status == "ok"]
    having = [record for record in ok if metric in record.metrics]
    values = counted(having, metric)
    interval = mean_interval(values) if len(values) > 1 else None
    return Cell(
        by=by,
        metric=metric,
        n=len(values),
        mean=interval.mean if interval else next(iter(values), None),
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        sd=interval.sd if interval else None,
        failures=len(records) - len(ok) + len(having) - len(values),
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
            f"{option} {key}: no run has this key; {did_you_mean(key, keys(records))}"
        )


def _leaf(option: str, record: RunRecord, key: str) -> Any:
    """The value of `key`, or ABSENT. Raises RequestError if it is a whole section."""
    leaf = value(record, key)
    if isinstance(leaf, dict | BaseModel):
        known = ", ".join(f"{key}.{name}" for name in dict(leaf))
        raise RequestError(f"{option} {key} is a section; name one of {known}")
    return leaf


def _is(value: Any, text: str) -> bool:
    """Whether `text`, as a person types it, means `value`."""
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
            f"--where {condition!r}: {text!r} is not a number; text has only = and !="
        )
    return number


def _ordered(
    condition: str, record: RunRecord, key: str, sign: str, number: float
) -> bool:
    leaf = _leaf("--where", record, key)
    if leaf is ABSENT or leaf is None:
        return False
    if isinstance(leaf, bool) or not isinstance(leaf, int | float):
        raise RequestError(
            f"--where {condition!r}: {key} is not a number in run {record.run_id} "
            f"({leaf}); such a value has only = and !="
        )
    return ORDER[sign](leaf, number)


def _rank(value: Any) -> tuple[int, Any]:
    """A key to sort mixed values by: numbers, then text, then no value."""
    if value is None or value is ABSENT:
        return 2, 0
    if isinstance(value, int | float):
        return 0, value
    return 1, str(value)


def _sorted(
    items: Iterable[Item], value_of: Callable[[Item, str], Any], sort: str
) -> list[Item]:
    """The items by KEY, or descending by KEY if `sort` is -KEY; without value last."""
    key = sort.removeprefix("-")
    ranked = [(_rank(value_of(item, key)), item) for item in items]
    present = [pair for pair in ranked if pair[0][0] < 2]
    present.sort(key=operator.itemgetter(0), reverse=sort.startswith("-"))
    absent = [item for rank, item in ranked if rank[0] == 2]
    return [item for _, item in present] + absent
