"""The runs of a page as compressed columns.

A fact has a list of distinct values and, for each run, an index into that list. Metrics
have `DIGITS` significant digits. Curves are thinned to a limited number of points, and
the thinned curves are counted.
"""

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from normbench import stats
from normbench.config.schema import RunConfig, is_hashed
from normbench.errors import Unreadable
from normbench.records import store
from normbench.report.page.material import Material, facts
from normbench.system.untrusted import MAX_METRIC

DIGITS = 6
CURVE_DIGITS = 4
MAX_POINTS = 200
"""The largest limit of points for one curve."""
MIN_POINTS = 10
"""The smallest limit for one curve, even if the total then exceeds TOTAL_POINTS."""
TOTAL_POINTS = 250_000
"""Limit for the curves of one metric in all runs together."""
MAX_SEEDS = 64
"""Half widths of t intervals are in the page for up to this number of runs."""
STEP = "step"
NOT_METRICS = (STEP, "samples", "epoch")
"""The keys of a row of a history that are not metrics."""

Curve = tuple[list[int], list[float | None]]
"""The steps and the values of a metric in one run."""


@dataclass(frozen=True)
class Packed:
    """The runs of a page as compressed text.

    `points` is the limit of points for a curve. `curves` is the number of all curves,
    and `thinned` is the number of curves that had more points. The curves of
    `unreadable` histories are missing.
    """

    text: str
    points: int
    curves: int
    thinned: int
    unreadable: list[Unreadable]


def pack(material: Material, colours: Mapping[str, str], points: int) -> Packed:
    """Pack all runs of `material`, with at most `points` points per curve.

    If `points` is 0, there are no curves. `colours` maps norms to hex colours. Equal
    runs give equal text.
    """
    records = material.records
    claims = material.claims_of
    rows = [
        facts(
            record,
            claims.get(record.run_id, ()),
            mine=record.run_id in material.folders,
        )
        for record in records
    ]
    curves: list[dict[str, list[int]]] = []
    step_lists: dict[tuple[int, ...], int] = {}
    value_lists: list[list[float | None]] = []
    thinned = 0
    unreadable: list[Unreadable] = []
    for record in records:
        history: list[dict[str, Any]] = []
        if points and record.run_id in material.folders:
            try:
                history = store.read_history(material.folders[record.run_id])
            except Unreadable as error:
                unreadable.append(error)
        curves.append({})
        for name, (steps, values) in _curves(history).items():
            kept = evenly_spaced(len(steps), points)
            thinned += len(kept) < len(steps)
            kept_steps = tuple(steps[i] for i in kept)
            step_index = step_lists.setdefault(kept_steps, len(step_lists))
            # Steps and values are in separate lists; a curve has an index into each.
            curves[-1][name] = [step_index, len(value_lists)]
            value_lists.append([values[i] for i in kept])
    plain = {
        "facts": [_coded(key, rows) for key in _keys(rows)],
        "experiment": sorted(key for key in _keys(rows) if _defines_experiment(key)),
        "metrics": _metrics([record.metrics | record.probes for record in records]),
        "steps": list(step_lists),
        "values": value_lists,
        "curves": curves,
        "colours": colours,
        # With these, runs.js has the means of `normbench results --by`.
        "max_metric": MAX_METRIC,
        "half_widths": [
            round(stats.half_width(1.0, n), DIGITS) for n in range(2, MAX_SEEDS + 1)
        ],
    }
    text = json.dumps(plain, separators=(",", ":"), allow_nan=False)
    compressed = gzip.compress(text.encode(), mtime=0)
    return Packed(
        text=base64.b64encode(compressed).decode(),
        points=points,
        curves=len(value_lists),
        thinned=thinned,
        unreadable=unreadable,
    )


def max_points(material: Material) -> int:
    """Return the limit of points per curve: it is lower if more runs have a folder."""
    share = TOTAL_POINTS // max(1, len(material.folders))
    return max(MIN_POINTS, min(MAX_POINTS, share))


def evenly_spaced(size: int, maximum: int) -> list[int]:
    """Return at most `maximum` indices below `size`, with the first and the last."""
    if size <= maximum:
        return list(range(size))
    return [round(i * (size - 1) / (maximum - 1)) for i in range(maximum)]


def _curves(history: Iterable[Mapping[str, Any]]) -> dict[str, Curve]:
    """Return the curves of all metrics that a run logged more than once."""
    curves: dict[str, Curve] = {}
    for row in history:
        for name, value in row.items():
            if name not in NOT_METRICS:
                steps, values = curves.setdefault(name, ([], []))
                steps.append(row[STEP])
                values.append(_rounded(value, CURVE_DIGITS))
    return {name: curve for name, curve in curves.items() if len(curve[0]) > 1}


def _defines_experiment(key: str) -> bool:
    """Return whether runs that differ in this config key are different experiments."""
    field = key.partition(".")[0]
    return field in RunConfig.model_fields and key != "seed" and is_hashed(key)


def _keys(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _coded(key: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a fact as distinct values and codes, None if all runs have one value."""
    codes: dict[str, int] = {}
    column = []
    for row in rows:
        text = json.dumps(row.get(key), allow_nan=False)
        column.append(codes.setdefault(text, len(codes)))
    values = [json.loads(text) for text in codes]
    return {"key": key, "values": values, "codes": column if len(codes) > 1 else None}


def _metrics(
    rows: Sequence[Mapping[str, float | None]],
) -> dict[str, list[float | None]]:
    names = sorted({name for row in rows for name in row})
    return {name: [_rounded(row.get(name), DIGITS) for row in rows] for name in names}


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")
