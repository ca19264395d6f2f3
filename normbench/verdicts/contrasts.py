"""Judge one contrast of a claim: its value on every seed, its tests, its decision."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from normbench import stats
from normbench.config.schema import RunRecord
from normbench.system.untrusted import MAX_METRIC
from normbench.verdicts.power import seeds_needed
from normbench.verdicts.registration import Contrast, Design, Says, arm_of, level_of
from normbench.verdicts.spending import Looks
from normbench.verdicts.verdict import ContrastVerdict, Decision, Rate

Cells = Mapping[str, Mapping[int, RunRecord]]
"""The runs of a design: cell -> seed -> record, whatever its status."""


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
    p_sign_flip: float
    above: float
    above_low: float
    above_high: float


def judge(
    contrast: Contrast,
    design: Design,
    cells: Cells,
    rates: Mapping[str, Rate],
    gate: Mapping[str, bool],
    alpha: float,
    tested: bool,
    looks: Looks | None = None,
) -> ContrastVerdict:
    """Return the verdict of a contrast before Holm's adjustment.

    `gate` says for each arm whether the arm trained. If `tested` is False, the decision
    is "not tested". With `looks`, seeds from the number of the present look on are
    ignored; without, there is one look at all seeds.
    """
    weights = weights_of(contrast, design)
    missing = [cell for cell in weights if not cells.get(cell)]
    n = looks.seeds[-1] if looks else None
    values, bad_seeds = ({}, []) if missing else _values(contrast, weights, cells, n)
    statistics = None
    if tested and not bad_seeds and len(values) > 1:
        statistics = _statistics(contrast, list(values.values()), alpha, looks)
    untrained = sorted({arm_of(cell) for cell in weights if not gate.get(arm_of(cell))})
    decision: Decision = "inconclusive"
    needed = None
    if missing:
        decision, because = "not tested", f"no runs of {', '.join(missing)}"
    elif not tested:
        decision, because = "not tested", "a smoke check shows that it runs"
    elif bad_seeds:
        seeds = ", ".join(map(str, bad_seeds))
        because = f"seeds {seeds} have no finite {contrast.metric}"
    elif statistics is None:
        because = "fewer than two seeds in common"
    elif untrained:
        because = f"gate: {', '.join(untrained)} did not train"
    else:
        decision, because, needed = _decision_and_seeds(
            contrast, statistics, alpha, looks
        )
    return ContrastVerdict(
        name=contrast.name,
        metric=contrast.metric,
        says=contrast.says,
        margin=contrast.margin,
        reason=contrast.reason,
        primary=contrast.primary,
        exploratory=contrast.exploratory,
        decision=decision,
        because=because,
        n=len(values),
        at_one_rate={} if missing else _at_one_rate(contrast, weights, design, rates),
        seeds_needed=needed,
        values={str(seed): value for seed, value in values.items()},
        looks=list(looks.seeds) if looks else [],
        planned=looks.maximum if looks else None,
        **(asdict(statistics) if statistics else {}),
    )


def _decision_and_seeds(
    contrast: Contrast, statistics: Statistics, alpha: float, looks: Looks | None
) -> tuple[Decision, str, int | None]:
    """Return the decision, its reason, and how many seeds would settle it.

    The number of seeds is None if the decision is not "inconclusive", and with `looks`.
    """
    decision, because = decide(
        contrast.says,
        contrast.margin,
        (statistics.low, statistics.high),
        (statistics.low_margin, statistics.high_margin),
        alpha,
        repeated=looks is not None,
    )
    if decision != "inconclusive" or looks:
        return decision, because, None
    effect, sd = statistics.effect, statistics.sd
    needed = seeds_needed(contrast.says, effect, sd, contrast.margin, alpha)
    return decision, because, needed


def weights_of(contrast: Contrast, design: Design) -> dict[str, float]:
    """Return cell -> weight; the weights of a slope give its least-squares estimate."""
    if contrast.weights is not None:
        return contrast.weights
    cells = [c for c in design.all_cells() if arm_of(c) == contrast.slope]
    x = np.array([math.log2(float(level_of(cell))) for cell in cells])
    centred = x - x.mean()
    weights = centred / (centred @ centred)
    return dict(zip(cells, weights.tolist(), strict=True))


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


def _values(
    contrast: Contrast, weights: Mapping[str, float], cells: Cells, n: int | None
) -> tuple[dict[int, float], list[int]]:
    """Return the contrast by seed, and the seeds on which a run lacks the metric.

    A seed is used only if all cells have a run with the seed, and if it is below `n`.
    """
    common = set.intersection(*(set(cells[cell]) for cell in weights))
    seeds = sorted(seed for seed in common if n is None or seed < n)
    values, bad_seeds = {}, []
    for seed in seeds:
        metrics = values_of((cells[cell][seed] for cell in weights), contrast.metric)
        if metrics is None or (contrast.log2 and min(metrics) <= 0):
            bad_seeds.append(seed)
            continue
        total = -contrast.expected
        for weight, value in zip(weights.values(), metrics, strict=True):
            total += weight * (math.log2(value) if contrast.log2 else value)
        values[seed] = total
    return values, bad_seeds


def _at_one_rate(
    contrast: Contrast,
    weights: Mapping[str, float],
    design: Design,
    rates: Mapping[str, Rate],
) -> dict[str, float]:
    """Return the contrast on validation samples for each rate that all cells tried.

    The result is empty unless the rates were chosen on the metric of the contrast.
    """
    # The rates were chosen on `design.validation`. The contrast has the same metric on
    # the test split.
    if contrast.log2 or contrast.metric != design.validation.replace("val", "test", 1):
        return {}
    tried = [rates[cell].validation for cell in weights]
    effects = {}
    # If only one rate was tried, there are no other rates to compare.
    for rate in tried[0] if len(tried[0]) > 1 else ():
        means = [validation.get(rate) for validation in tried]
        if None not in means:
            terms = zip(weights.values(), means, strict=True)
            total = sum(weight * mean for weight, mean in terms if mean is not None)
            effects[rate] = total - contrast.expected
    return effects


def _statistics(
    contrast: Contrast, values: Sequence[float], alpha: float, looks: Looks | None
) -> Statistics:
    """Return the numbers of a contrast from its `values`, one per seed.

    With `looks`, the levels of the intervals are those of the present look, and the p
    values are levels over all looks.
    """
    says, margin = contrast.says, contrast.margin
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
        "greater": (p_above_0, min(p_below_0, p_within)),
        "less": (p_below_0, min(p_above_0, p_within)),
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
) -> tuple[Decision, str]:
    """Return the decision on a contrast and its reason.

    `says` is the prediction of the claim. `interval` has confidence 1 - `alpha`, and
    `interval_at_margin` has confidence 1 - 2 `alpha`. They are `repeated` confidence
    intervals if the contrast has several looks; the reason then says so.
    """
    the = "the repeated" if repeated else "the"
    low, high = interval_at_margin
    within = -margin < low and high < margin
    if says in {"greater", "less"}:
        above, below = interval[0] > 0, interval[1] < 0
        percent = f"{the} {1 - alpha:.0%} interval"
        if within:
            small = "; a smaller one is shown" if above or below else ""
            return "equivalent", f"a difference of {margin:g} is excluded{small}"
        if above or below:
            as_predicted = above == (says == "greater")
            side = "above" if above else "below"
            return "supported" if as_predicted else "refuted", f"{percent} is {side} 0"
        return "inconclusive", f"{percent} has 0 in it, and reaches the margin"
    percent = f"{the} {1 - 2 * alpha:.0%} interval"
    if says == "equal" and within:
        return "supported", f"{percent} is within the margins"
    if says == "not_greater" and high < margin:
        return "supported", f"{percent} is below the margin"
    if low > margin or (says == "equal" and high < -margin):
        return "refuted", f"{percent} is beyond the margin"
    return "inconclusive", f"{percent} has the margin in it"
