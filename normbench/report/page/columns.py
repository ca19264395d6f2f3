"""Runs as columns, small enough to travel inside a page.

A fact has its distinct values and, for each run, which of them; metrics are numbers of
`DIGITS` significant digits. Histories are thinned to a bounded number of points, and
what was thinned is counted.
"""

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from normbench.config.schema import NOT_HASHED, RunConfig
from normbench.errors import Unreadable
from normbench.records import store
from normbench.report.page.material import Material, facts

DIGITS = 6
CURVE_DIGITS = 4
MOST_POINTS = 200
"""Of one curve."""
FEWEST_POINTS = 10
ALL_POINTS = 250_000
"""Of all runs together, for each of the quantities that they logged."""
X = "step"
POSITION = (X, "samples", "epoch")
"""The keys of a history row that are not quantities."""

Curve = tuple[list[int], list[float | None]]


@dataclass(frozen=True)
class Packed:
    """Runs as text for a page, and how much of their histories it has.

    `points` is the limit for a curve, `thinned` the number of curves that had more.
    `unreadable` histories could not be read; their curves are left out.
    """

    text: str
    points: int
    curves: int
    thinned: int
    unreadable: list[Unreadable]


def pack(material: Material, colours: Mapping[str, str], points: int) -> Packed:
    """Every run of `material`, with at most `points` points a curve; 0: no curves.

    `colours` are those of the norms. Equal runs give equal text.
    """
    records = material.records
    claims = material.claims_of
    rows = [facts(record, claims.get(record.run_id, ())) for record in records]
    curves: list[dict[str, list[int]]] = []
    abscissae: dict[tuple[int, ...], int] = {}
    ordinates: list[list[float | None]] = []
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
        for name, (x, y) in _curves(history).items():
            kept = spread(len(x), points)
            thinned += len(kept) < len(x)
            at = tuple(x[i] for i in kept)
            index = abscissae.setdefault(at, len(abscissae))
            curves[-1][name] = [index, len(ordinates)]
            ordinates.append([y[i] for i in kept])
    plain = {
        "facts": [_coded(key, rows) for key in _keys(rows)],
        "experiment": sorted(key for key in _keys(rows) if _decides(key)),
        "metrics": _metrics([record.metrics | record.probes for record in records]),
        "steps": list(abscissae),
        "values": ordinates,
        "curves": curves,
        "colours": colours,
    }
    text = json.dumps(plain, separators=(",", ":"), allow_nan=False)
    packed = gzip.compress(text.encode(), mtime=0)
    return Packed(
        text=base64.b64encode(packed).decode(),
        points=points,
        curves=len(ordinates),
        thinned=thinned,
        unreadable=unreadable,
    )


def points_for(material: Material) -> int:
    """How many points a curve may have, given the number of runs with a history."""
    share = ALL_POINTS // max(1, len(material.folders))
    return max(FEWEST_POINTS, min(MOST_POINTS, share))


def spread(size: int, most: int) -> list[int]:
    """`most` indices of `size` at most, the first and the last one among them."""
    if size <= most:
        return list(range(size))
    return [round(i * (size - 1) / (most - 1)) for i in range(most)]


def _curves(history: Iterable[Mapping[str, Any]]) -> dict[str, Curve]:
    """The quantities that a run logged more than once."""
    curves: dict[str, Curve] = {}
    for row in history:
        for name, value in row.items():
            if name not in POSITION:
                x, y = curves.setdefault(name, ([], []))
                x.append(row[X])
                y.append(_rounded(value, CURVE_DIGITS))
    return {name: curve for name, curve in curves.items() if len(curve[0]) > 1}


def _decides(key: str) -> bool:
    """Whether runs that differ in this config key are different experiments."""
    head = key.partition(".")[0]
    return head in RunConfig.model_fields.keys() - NOT_HASHED - {"seed"}


def _keys(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _coded(key: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One fact: distinct values by their first run; of a constant no codes are kept."""
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
