"""Questions to finished runs: which of them, in what order, and the mean of each cell.

A key is a metric ("test/error"), a field of the record ("status", "seconds.train"), or
a key of its config ("batch_size", "norm.num_groups"); `norm` is the norm's name.
"""

import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from normbench.config.schema import NOT_HASHED, RunConfig, RunRecord
from normbench.errors import RequestError, did_you_mean
from normbench.system.untrusted import LARGEST

CONDITION = re.compile(r"(?P<key>[^=!<>]+)(?P<sign>!=|<=|>=|=|<|>)(?P<text>[^=<>].*|)")
ORDER: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
MAY_ROUND = frozenset({"device", "threads", "compile", "channels_last"})
"""Keys that are not hashed, and can still move a metric by rounding."""
_EXPERIMENT = sorted(RunConfig.model_fields.keys() - NOT_HASHED - {"seed"})
_ABSENT = object()
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Cell:
    """The runs that agree in `by`, and the mean of one metric over those that are ok.

    `n` is the number of ok runs in the mean; `low` and `high` are its 95 % t interval
    and `sd` the standard deviation of one run, all None where n is too small.
    `failures` counts the runs that diverged, failed or were skipped, and those whose
    metric is not below LARGEST in size; `without` the ok runs without this metric.
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
        numbers = ("metric", "n", "mean", "low", "high", "sd", "failures")
        return self.by | {name: getattr(self, name) for name in numbers}


def value(record: RunRecord, key: str) -> Any:
    """What `key` means in a record. Raises KeyError."""
    if key in record.metrics:
        return record.metrics[key]
    head, *rest = key.split(".")
    in_config = head in RunConfig.model_fields
    if not in_config and head not in RunRecord.model_fields:
        raise KeyError(key)
    found = getattr(record.config if in_config else record, head)
    for part in rest:
        fields = dict(found) if isinstance(found, dict | BaseModel) else {}
        if part not in fields:
            raise KeyError(key)
        found = fields[part]
    if isinstance(found, dict):
        return found.get("name", found)
    return getattr(found, "name", found)


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


def varying(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], dict[str, Any]]:
    """The keys in which flat configs differ, and the options that only some have.

    An option that only some have is of one norm among several, say; those that have it
    agree in its value. Leaves out those that are null, and keys that can change no
    number.
    """
    differing, options = [], {}
    for key in in_config_order(key for row in rows for key in row):
        if key.partition(".")[0] in NOT_HASHED - MAY_ROUND:
            continue
        present = [row[key] for row in rows if key in row]
        if any(value != present[0] for value in present):
            differing.append(key)
        elif len(present) < len(rows) and present[0] is not None:
            options[key] = present[0]
    return differing, options


def in_config_order(keys: Iterable[str]) -> list[str]:
    """Distinct keys of flat configs, section by section as a config has them."""
    sections = list(RunConfig.model_fields)
    return sorted(dict.fromkeys(keys), key=lambda k: sections.index(k.split(".")[0]))


def matching(records: Sequence[RunRecord], where: Sequence[str]) -> list[RunRecord]:
    """The records in which every condition of `where` holds.

    A condition is a key, one of = != < <= > >=, and a value. `!=` holds where `=` does
    not, so also where there is no such key; the others do not hold there. Raises
    RequestError for one of another form, for a key that no record has, and for an order
    that is asked of text.
    """
    kept = list(records)
    for condition in where:
        found = CONDITION.fullmatch(condition)
        if found is None:
            raise RequestError(
                f"--where {condition!r} is not a condition; write KEY=VALUE, or one "
                "with != < <= > >= in quotes, such as 'seed<4'"
            )
        key, sign, text = (part.strip() for part in found.groups())
        _check_known("--where", key, records)
        if sign in ORDER:
            number = _number(condition, text)
            kept = [r for r in kept if _ordered(condition, r, key, sign, number)]
        else:
            equal = sign == "="
            kept = [r for r in kept if _is(_leaf("--where", r, key), text) == equal]
    return kept


def in_order(records: Sequence[RunRecord], sort: str) -> list[RunRecord]:
    """The records by the key `sort`, or by KEY of `-KEY` from the greatest down.

    Those without a value are last. Raises RequestError for a key that no record has.
    """
    key = sort.removeprefix("-")
    _check_known("--sort", key, records)
    values = ((_leaf("--sort", record, key), record) for record in records)
    return _sorted(values, descending=sort.startswith("-"))


def cells_in_order(cells: Sequence[Cell], sort: str) -> list[Cell]:
    """The cells by one of their columns, as `in_order` does with records."""
    key = sort.removeprefix("-")
    known = {column for cell in cells for column in cell.plain()}
    if cells and key not in known:
        raise RequestError(
            f"--sort {key}: no column of the cells; {did_you_mean(key, known)}"
        )
    values = ((cell.plain()[key], cell) for cell in cells)
    return _sorted(values, descending=sort.startswith("-"))


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
    found = []
    for values, members in groups(records, by):
        split: dict[str, list[RunRecord]] = {}
        for record in members:
            for metric in metrics or (record.primary_metric,):
                split.setdefault(metric, []).append(record)
        found += [_cell(values, metric, split[metric]) for metric in sorted(split)]
    return found


def groups(
    records: Sequence[RunRecord], by: Sequence[str], option: str = "--by"
) -> list[tuple[dict[str, Any], list[RunRecord]]]:
    """The runs that agree in `by`, with its values there, in the order of those.

    Raises RequestError, naming `option`, for a key that no record has, and for a
    section of the config.
    """
    for key in by:
        _check_known(option, key, records)
    found: dict[tuple[Any, ...], list[RunRecord]] = {}
    for record in records:
        values = tuple(_cell_value(option, record, key) for key in by)
        found.setdefault(values, []).append(record)
    ordered = sorted(found.items(), key=lambda group: [_rank(v) for v in group[0]])
    return [(dict(zip(by, values, strict=True)), its) for values, its in ordered]


def mixtures(records: Sequence[RunRecord], by: Sequence[str]) -> list[str]:
    """The config keys, but for the seed, in which runs of one cell differ.

    A mean over such a cell is a mean over different experiments.
    """
    first: dict[tuple[Any, ...], RunConfig] = {}
    found: set[str] = set()
    for record in records:
        cell = tuple(_cell_value("--by", record, key) for key in by)
        found.update(_differences(first.setdefault(cell, record.config), record.config))
    return sorted(found - set(by))


def _differences(one: RunConfig, other: RunConfig) -> Iterator[str]:
    for field in _EXPERIMENT:
        these, those = getattr(one, field), getattr(other, field)
        if these == those:
            continue
        if isinstance(these, BaseModel):
            these, those = dict(these), dict(those)
        if not isinstance(these, dict) or these.get("name") != those.get("name"):
            yield field
        else:
            for key in these.keys() | those.keys():
                if these.get(key) != those.get(key):
                    yield f"{field}.{key}"


def _cell(by: dict[str, Any], metric: str, records: Sequence[RunRecord]) -> Cell:
    from normbench.stats import mean_interval  # numpy, scipy: not for a table of runs

    ok = [record for record in records if record.status == "ok"]
    having = [record.metrics[metric] for record in ok if metric in record.metrics]
    values = [x for x in having if x is not None and abs(x) < LARGEST]
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
    found = _leaf(option, record, key)
    if found is _ABSENT:
        return None
    return json.dumps(found) if isinstance(found, list) else found


def _check_known(option: str, key: str, records: Sequence[RunRecord]) -> None:
    if records and all(_value_or(record, key) is _ABSENT for record in records):
        raise RequestError(
            f"{option} {key}: no run has this key; {did_you_mean(key, keys(records))}"
        )


def _value_or(record: RunRecord, key: str) -> Any:
    try:
        return value(record, key)
    except KeyError:
        return _ABSENT


def _leaf(option: str, record: RunRecord, key: str) -> Any:
    """The value of `key`, _ABSENT where there is none. Raises RequestError if it is a
    whole section."""
    found = _value_or(record, key)
    if isinstance(found, dict | BaseModel):
        known = ", ".join(f"{key}.{name}" for name in dict(found))
        raise RequestError(f"{option} {key} is a section; name one of {known}")
    return found


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
    found = _leaf("--where", record, key)
    if found is _ABSENT or found is None:
        return False
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise RequestError(
            f"--where {condition!r}: {key} is not a number in run {record.run_id} "
            f"({found}); such a value has only = and !="
        )
    return ORDER[sign](found, number)


def _rank(value: Any) -> tuple[int, Any]:
    """A key to sort mixed values by: numbers, then text, then what has no value."""
    if value is None or value is _ABSENT:
        return 2, 0
    if isinstance(value, int | float):
        return 0, value
    return 1, str(value)


def _sorted(values: Iterable[tuple[Any, _Item]], *, descending: bool) -> list[_Item]:
    ranked = [(_rank(value), item) for value, item in values]
    present = [pair for pair in ranked if pair[0][0] < 2]
    present.sort(key=operator.itemgetter(0), reverse=descending)
    return [item for _, item in present] + [
        item for rank, item in ranked if rank[0] == 2
    ]
