"""Judge one contrast of a claim: its value on every seed, its tests, its decision."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from normbench import stats
from normbench.verdicts.design import Contrast, Design, Says, arm_of
from normbench.verdicts.grid import Grid, Runs, best_common_rate, common_rates
from normbench.verdicts.metrics import is_trained
from normbench.verdicts.power import seeds_needed
from normbench.verdicts.spending import Looks
from normbench.verdicts.summaries import Estimate
from normbench.verdicts.values import Values, values_by_seed, weights_of
from normbench.verdicts.verdict import ContrastVerdict, Decision, Size


@dataclass(frozen=True)
class Statistics:
    """The numbers of a contrast; the fields mean the same as in ContrastVerdict."""

    effect: float
    sd: float
    low: float
    high: float
    low_margin: float
    high_margin: float
    p: float
    p_against: float
    p_within: float | None
    p_sign_flip: float
    above: float
    above_low: float
    above_high: float


class Judged(NamedTuple):
    """A decision, its reason, and the size of a difference of known direction."""

    decision: Decision
    because: str
    size: Size | None = None


def judge(
    contrast: Contrast,
    design: Design,
    grids: Mapping[str, Grid],
    gate: Mapping[str, bool],
    alpha: float,
    tested: bool,
    looks: Looks | None = None,
) -> ContrastVerdict:
    """Return the verdict of a contrast before Holm's adjustment.

    `grids` has the runs of each cell at all rates. `gate` says for each arm whether the
    arm trained. If `tested` is False, the decision is "not tested". With `looks`, seeds
    beyond those of the present look are ignored; without, there is one look at all
    seeds.
    """
    weights = weights_of(contrast, design)
    n = looks.seeds[-1] if looks else None
    limited = {c: grids[c].first(n) for c in weights if c in grids}
    missing = [c for c in weights if c not in limited or not limited[c].seeds]
    values = Values({}, [], [])
    statistics, extras = None, {}
    if not missing:
        cells = {cell: grid.chosen_runs() for cell, grid in limited.items()}
        values = values_by_seed(contrast, weights, cells)
        if tested and not values.failed and len(values.by_seed) > 1:
            by_seed = list(values.by_seed.values())
            statistics = statistics_of(contrast, by_seed, alpha, looks)
            extras = _extras(contrast, weights, design, limited, cells, alpha)
    untrained = sorted({arm_of(cell) for cell in weights if not gate.get(arm_of(cell))})
    needed = None
    if missing:
        judged = Judged("not tested", f"no runs of {', '.join(missing)}")
    elif not tested:
        judged = Judged("not tested", "a smoke check shows that it runs")
    elif values.failed:
        seeds = ", ".join(map(str, values.failed))
        what = {
            "difference": f"no finite {contrast.metric}",
            "ratio": f"no finite {contrast.metric}, or a mean of 0",
            "log2": f"no finite logarithm of {contrast.metric}",
        }[contrast.scale]
        judged = Judged("not decided", f"seeds {seeds} have {what}")
    elif statistics is None:
        judged = Judged("not decided", "fewer than two seeds in common")
    elif untrained:
        judged = Judged("not decided", f"gate: {', '.join(untrained)} did not train")
    else:
        judged = _decision(contrast, statistics, alpha, looks)
        if judged.decision == "not decided" and looks is None:
            needed = seeds_needed(
                contrast.says, statistics.effect, statistics.sd, contrast.limit, alpha
            )
    because = judged.because
    if values.diverged:
        seeds = ", ".join(map(str, values.diverged))
        because += f"; without seeds {seeds}, on which a run diverged"
    return ContrastVerdict(
        **contrast.model_dump(include=COPIED),
        margin=contrast.limit,
        decision=judged.decision,
        size=judged.size,
        because=because,
        n=len(values.by_seed),
        seeds_needed=needed,
        values={str(seed): value for seed, value in values.by_seed.items()},
        looks=list(looks.seeds) if looks else [],
        planned=looks.maximum if looks else None,
        **(asdict(statistics) if statistics else {}),
        **extras,
    )


COPIED = {
    "name",
    "metric",
    "scale",
    "says",
    "reason",
    "part",
    "bears",
    "exploratory",
}
"""The fields of a contrast that its verdict repeats."""


def _decision(
    contrast: Contrast, statistics: Statistics, alpha: float, looks: Looks | None
) -> Judged:
    return decide(
        contrast.says,
        contrast.limit,
        (statistics.low, statistics.high),
        (statistics.low_margin, statistics.high_margin),
        alpha,
        repeated=looks is not None,
    )


def _extras(
    contrast: Contrast,
    weights: Mapping[str, float],
    design: Design,
    grids: Mapping[str, Grid],
    cells: Mapping[str, Runs],
    alpha: float,
) -> dict[str, Any]:
    """Return the further estimates of a contrast: fields of ContrastVerdict."""

    def estimate(runs: Mapping[str, Runs]) -> Estimate | None:
        by_seed = values_by_seed(contrast, weights, runs).by_seed
        if len(by_seed) < 2:
            return None
        interval = stats.mean_interval(list(by_seed.values()), 1 - alpha)
        return Estimate(
            effect=interval.mean, low=interval.low, high=interval.high, n=len(by_seed)
        )

    def trained(seed: int) -> bool:
        return all(is_trained(runs[seed], design.gate) for runs in cells.values())

    # A frozen rate, and a design with one rate, leave no choice to compare with.
    if all(len(grid.runs) == 1 for grid in grids.values()):
        at_rates = {}
        nested = best = None
    else:
        at_rates = {
            f"{lr:g}": at_rate
            for lr in common_rates(list(grids.values()))
            if (at_rate := estimate({c: g.runs[lr] for c, g in grids.items()}))
        }
        nested = estimate({c: g.chosen_runs("nested") for c, g in grids.items()})
        best = best_common_rate(list(grids.values()))
    common = set.intersection(*(set(runs) for runs in cells.values()))
    good = {seed for seed in common if trained(seed)}
    without_failures = None
    if good < common:
        without_failures = estimate(
            {
                c: {s: r for s, r in runs.items() if s in good}
                for c, runs in cells.items()
            }
        )
    return {
        "nested": nested,
        "at_common_rate": at_rates,
        "best_common_rate": None if best is None else f"{best:g}",
        "without_failures": without_failures,
    }


def statistics_of(
    contrast: Contrast, values: Sequence[float], alpha: float, looks: Looks | None
) -> Statistics:
    """Return the numbers of a contrast from its `values`, one per seed.

    With `looks`, the levels of the intervals are those of the present look, and the p
    values are levels over all looks.
    """
    says, margin = contrast.says, contrast.limit
    looks = looks or Looks((len(values),), len(values))
    wide = stats.mean_interval(values, 1 - 2 * looks.level(alpha / 2))
    narrow = stats.mean_interval(values, 1 - 2 * looks.level(alpha))
    p_below_margin = stats.non_inferiority(values, margin)
    p_above_minus_margin = stats.non_inferiority([-v for v in values], margin)
    p_beyond = min(1 - p_below_margin, 1 - p_above_minus_margin)
    p_within = looks.overall(stats.tost(values, margin))
    p_smaller = stats.t_test(values) / 2  # of the side on which the mean is
    p_above_0, p_below_0 = (
        # The one-sided p is doubled: half of alpha is on each side of the interval.
        min(1.0, 2 * looks.overall(p_smaller if on_side else 1 - p_smaller))
        for on_side in (wide.mean > 0, wide.mean <= 0)
    )
    p, p_against = {
        "greater": (p_above_0, p_below_0),
        "less": (p_below_0, p_above_0),
        "equal": (p_within, looks.overall(p_beyond)),
        "not_greater": (
            looks.overall(p_below_margin),
            looks.overall(1 - p_below_margin),
        ),
    }[says]
    above = stats.share_above(values, 1 - alpha)
    return Statistics(
        effect=wide.mean,
        sd=wide.sd,
        low=wide.low,
        high=wide.high,
        low_margin=narrow.low,
        high_margin=narrow.high,
        p=p,
        p_against=p_against,
        p_within=p_within if says in {"greater", "less"} else None,
        p_sign_flip=stats.sign_flip_test(values),
        above=above.value,
        above_low=above.low,
        above_high=above.high,
    )


def decide(
    says: Says,
    margin: float,
    interval: tuple[float, float],
    interval_at_margin: tuple[float, float],
    alpha: float,
    *,
    repeated: bool = False,
) -> Judged:
    """Return the decision on a contrast, its reason, and the size of a difference.

    `says` is the statement of the claim. `interval` has confidence 1 - `alpha`, and
    `interval_at_margin` has confidence 1 - 2 `alpha`. They are `repeated` confidence
    intervals if the contrast has several looks; the reason then says so. The direction
    of a difference and its size are two answers: a difference within the margins is
    small, but it is a difference.
    """
    the = "the repeated" if repeated else "the"
    low, high = interval_at_margin
    within = -margin < low and high < margin
    if says in {"greater", "less"}:
        above, below = interval[0] > 0, interval[1] < 0
        percent = f"{the} {1 - alpha:.0%} interval"
        if above or below:
            clear = low > margin or high < -margin
            size: Size = "small" if within else "clear" if clear else "open"
            side = "above" if above else "below"
            as_stated = above == (says == "greater")
            decision: Decision = "confirmed" if as_stated else "contradicted"
            return Judged(decision, f"{percent} is {side} 0", size)
        if within:
            reason = f"{the} {1 - 2 * alpha:.0%} interval is within the margins"
            return Judged("no relevant difference", reason)
        return Judged("not decided", f"{percent} has 0 in it, and reaches the margin")
    percent = f"{the} {1 - 2 * alpha:.0%} interval"
    if says == "equal" and within:
        return Judged("confirmed", f"{percent} is within the margins")
    if says == "not_greater" and high < margin:
        return Judged("confirmed", f"{percent} is below the margin")
    if low > margin or (says == "equal" and high < -margin):
        return Judged("contradicted", f"{percent} is beyond the margin")
    return Judged("not decided", f"{percent} has the margin in it")
