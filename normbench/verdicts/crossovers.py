"""Find the level at which the curves of two arms cross."""

import math
from collections.abc import Mapping

import numpy as np

from normbench import stats
from normbench.verdicts.design import Crossing, Design, arm_of, level_of
from normbench.verdicts.grid import Runs
from normbench.verdicts.metrics import values_of
from normbench.verdicts.summaries import CrossoverVerdict, Level


def crossover(
    crossing: Crossing,
    design: Design,
    cells: Mapping[str, Runs],
    gate: Mapping[str, bool],
) -> CrossoverVerdict | None:
    """Return where the two curves of `crossing` meet.

    None if one of the two arms did not train, or if fewer than two levels or fewer than
    two seeds have runs of both arms.
    """
    if not (gate.get(crossing.above) and gate.get(arm_of(crossing.below))):
        return None
    pairs = {}
    for cell in design.all_cells():
        level = level_of(cell)
        # `crossing.below` is an arm, or one cell (with "@") for all levels.
        below = crossing.below if "@" in crossing.below else f"{crossing.below}@{level}"
        if arm_of(cell) == crossing.above and cells.get(cell) and cells.get(below):
            pairs[float(level)] = (cells[cell], cells[below])
    levels = sorted(pairs)
    all_runs = [runs_by_seed for level in levels for runs_by_seed in pairs[level]]
    seeds = sorted(set.intersection(*map(set, all_runs))) if all_runs else []
    if len(levels) < 2 or len(seeds) < 2:
        return None
    curves = [
        [
            values_of((pairs[level][side][seed] for level in levels), crossing.metric)
            for seed in seeds
        ]
        for side in (0, 1)
    ]
    if any(row is None for curve in curves for row in curve):
        return None
    above_curves, below_curves = np.array(curves, np.float64)
    meeting = stats.crossover(np.log2(levels), above_curves, below_curves)
    return CrossoverVerdict(
        name=crossing.name,
        metric=crossing.metric,
        at=_level(meeting.x),
        low=_level(meeting.low),
        high=_level(meeting.high),
        share_before=meeting.share_before,
        share_after=meeting.share_after,
        share_several=meeting.share_several,
        n=len(seeds),
    )


def _level(log2: float) -> Level:
    """Return a level from its log2, which is infinite outside the tested levels."""
    if math.isfinite(log2):
        return float(2**log2)
    return "before" if log2 < 0 else "after"
