"""Judge made-up runs look by look, with the functions that judge a claim.

A claim has four primary contrasts, each of an arm with the same reference. Every seed
has a run at every rate. At each look, the rates are chosen anew from all seeds so far.
The contrasts are ratios of mean errors.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import log
from unittest.mock import patch

import numpy as np
from _made_intervals import at_rates
from _made_runs import RATES, Array, Runs

from normbench import stats
from normbench.config.schema import RunConfig, RunRecord
from normbench.verdicts.choosing import Choosing, chosen, dropped_rates
from normbench.verdicts.design import Contrast, Design, Gate
from normbench.verdicts.grid import Grid
from normbench.verdicts.judging import adjusted, judge_design
from normbench.verdicts.seeds import Spending
from normbench.verdicts.settled import cells_in_use, settled_contrasts
from normbench.verdicts.spending import Looks
from normbench.verdicts.verdict import ContrastVerdict

ALPHA = 0.05
SHARE = 0.15
"""The margin: fifteen per cent more errors."""
MARGIN = log(1 + SHARE)
LOOKS = (8, 12, 16, 24)
CONTRASTS = 4
METRIC = "test/error"
REFERENCE = "reference@-"
CELLS = [REFERENCE, *(f"arm {i}@-" for i in range(CONTRASTS))]
DESIGN = Design(
    question="Has an arm fewer errors than the reference?",
    common="",
    arms={cell.removesuffix("@-"): "" for cell in CELLS},
    rates=list(RATES),
    validation="val/loss",
    looks=list(LOOKS),
    seconds=1.0,
    gate=Gate(metric=METRIC, below=1.0),
    contrasts=[
        Contrast(
            name=cell,
            metric=METRIC,
            weights={cell: 1.0, REFERENCE: -1.0},
            says="less",
            scale="ratio",
            margin=SHARE,
            reason="made up",
            part="better",
            bears="for",
        )
        for cell in CELLS[1:]
    ],
)
CONFIG = RunConfig.model_construct(probes=[])


@dataclass(frozen=True)
class Result:
    """The final verdicts of the contrasts, and the share of runs that were not done.

    The share is that of dropped rates, among all rates of the seeds that were needed.
    """

    contrasts: list[ContrastVerdict]
    saved: float


@contextmanager
def quick_statistics() -> Iterator[None]:
    """Leave out the sign-flip test, which is slow and has no part in decisions."""
    with patch.object(stats, "sign_flip_test", lambda values: 1.0):
        yield


def judged(
    runs: Sequence[Runs],
    row: int,
    how: Choosing,
    *,
    drop: bool,
    spending: Spending = "pocock",
) -> Result:
    """Judge replication `row` of the `runs` of CELLS, at LOOKS.

    With `drop`, rates that the seeds of the first look show to be worse have no runs on
    later seeds.
    """
    cells = dict(zip(CELLS, runs, strict=True))
    dropped = {
        cell: dropped_rates(of_cell.validation[row, : LOOKS[0]]) & drop
        for cell, of_cell in cells.items()
    }
    records: dict[str, Grid] = {}
    settled: dict[str, ContrastVerdict] = {}
    planned = done = 0
    for number, n in enumerate(LOOKS, 1):
        in_use = cells_in_use(DESIGN, settled)
        if not in_use:
            break
        new = n - (LOOKS[number - 2] if number > 1 else 0)
        for cell in in_use:
            validation = cells[cell].validation[row, :n].copy()
            validation[LOOKS[0] :, dropped[cell]] = np.nan
            index = chosen(validation, RATES, how)
            at_chosen = _records(at_rates(cells[cell].error[row, :n], index))
            records[cell] = Grid({RATES[0]: at_chosen}, "val/loss")
            planned += new * len(RATES)
            kept = len(RATES) - (int(dropped[cell].sum()) if number > 1 else 0)
            done += new * kept
        design = judge_design(
            "made up",
            DESIGN,
            records,
            {},
            ALPHA,
            looks=Looks(LOOKS[:number], LOOKS[-1], spending),
            frozen=settled,
        )
        settled = settled_contrasts([design], ALPHA)["made up"]
    (final,) = adjusted([design], ALPHA)
    return Result(list(final.contrasts), 1 - done / planned)


def _records(errors: Array) -> dict[int, RunRecord]:
    return {
        seed: RunRecord.model_construct(
            status="ok",
            metrics={METRIC: value},
            probes={},
            config=CONFIG,
            primary_metric=METRIC,
            direction="minimize",
        )
        for seed, value in enumerate(errors.tolist())
    }
