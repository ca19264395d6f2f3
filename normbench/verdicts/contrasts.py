"""One contrast of a claim: its value on every seed, its tests and its decision."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from normbench import stats
from normbench.config.schema import RunRecord
from normbench.system.untrusted import LARGEST
from normbench.verdicts.registration import Contrast, Design, Says, arm_of, level_of
from normbench.verdicts.verdict import ContrastVerdict, Decision, Rate

MOST_SEEDS = 200
"""More seeds than that are not suggested."""

Cells = Mapping[str, Mapping[int, RunRecord]]
"""Of one design: cell -> seed -> record, however the run ended."""


def judge(
    contrast: Contrast,
    design: Design,
    cells: Cells,
    rates: Mapping[str, Rate],
    gate: Mapping[str, bool],
    alpha: float,
    tested: bool,
) -> ContrastVerdict:
    """What the runs of its cells say of a contrast, before Holm's adjustment.

    `gate` is whether each arm trained; where not `tested`, the decision is that.
    """
    told: dict[str, Any] = {
        "name": contrast.name,
        "metric": contrast.metric,
        "says": contrast.says,
        "margin": contrast.margin,
        "reason": contrast.reason,
        "primary": contrast.primary,
        "exploratory": contrast.exploratory,
    }
    weights = weights_of(contrast, design)
    missing = [cell for cell in weights if not cells.get(cell)]
    if missing:
        because = f"no runs of {', '.join(missing)}"
        return ContrastVerdict(**told, decision="not tested", because=because)
    values, without = _values(contrast, weights, cells)
    told |= {"values": {str(seed): value for seed, value in values.items()}}
    told |= {
        "n": len(values),
        "at_one_rate": _at_one_rate(contrast, weights, design, rates),
    }
    if not tested:
        return ContrastVerdict(
            **told, decision="not tested", because="a smoke check shows that it runs"
        )
    if without:
        because = (
            f"seeds {', '.join(map(str, without))} have no finite {contrast.metric}"
        )
        return ContrastVerdict(**told, decision="inconclusive", because=because)
    if len(values) < 2:
        because = "fewer than two seeds in common"
        return ContrastVerdict(**told, decision="inconclusive", because=because)
    told |= _statistics(list(values.values()), contrast, alpha)
    untrained = sorted(
        {arm_of(cell) for cell in weights}
        - {arm for arm, passed in gate.items() if passed}
    )
    if untrained:
        because = f"gate: {', '.join(untrained)} did not train"
        return ContrastVerdict(**told, decision="inconclusive", because=because)
    decision, because = decide(contrast.says, told, alpha)
    if decision == "inconclusive":
        told["seeds_needed"] = seeds_needed(
            contrast.says, told["effect"], told["sd"], contrast.margin, alpha
        )
    return ContrastVerdict(**told, decision=decision, because=because)


def weights_of(contrast: Contrast, design: Design) -> dict[str, float]:
    """Cell -> weight; those of a slope are least squares on log2 of the levels."""
    if contrast.weights is not None:
        return contrast.weights
    cells = [c for c in design.all_cells() if arm_of(c) == contrast.slope]
    x = np.array([math.log2(float(level_of(cell))) for cell in cells])
    centred = x - x.mean()
    weights = centred / (centred @ centred)
    return dict(zip(cells, weights.tolist(), strict=True))


def metric_of(record: RunRecord, metric: str) -> float | None:
    """The metric of a run, None where it has none that is below LARGEST in size.

    A classifier that diverged is wrong everywhere: its error is 1, but no probe's is.
    """
    split, _, name = metric.partition("/")
    probed = split in record.config.probes
    if record.status == "diverged" and name == "error" and not probed:
        return 1.0
    value = {**record.metrics, **record.probes}.get(metric)
    return value if value is not None and abs(value) < LARGEST else None


def _values(
    contrast: Contrast, weights: Mapping[str, float], cells: Cells
) -> tuple[dict[int, float], list[int]]:
    """The contrast of every seed that all its cells have, and seeds without a value."""
    seeds = sorted(set.intersection(*(set(cells[cell]) for cell in weights)))
    values, without = {}, []
    for seed in seeds:
        total = -contrast.expected
        for cell, weight in weights.items():
            value = metric_of(cells[cell][seed], contrast.metric)
            if value is None or (contrast.log2 and value <= 0):
                without.append(seed)
                break
            total += weight * (math.log2(value) if contrast.log2 else value)
        else:
            values[seed] = total
    return values, without


def _at_one_rate(
    contrast: Contrast,
    weights: Mapping[str, float],
    design: Design,
    rates: Mapping[str, Rate],
) -> dict[str, float]:
    """The same contrast on the validation part, at each rate that all its cells tried.

    Only of a metric whose counterpart there is what rates are chosen on.
    """
    if contrast.log2 or contrast.metric != design.validation.replace("val", "test", 1):
        return {}
    tried = [rates[cell].validation for cell in weights]
    effects = {}
    for rate in tried[0]:
        means = [each.get(rate) for each in tried]
        if len(tried[0]) > 1 and None not in means:
            terms = zip(weights.values(), means, strict=True)
            total = sum(weight * mean for weight, mean in terms if mean is not None)
            effects[rate] = total - contrast.expected
    return effects


def _statistics(
    values: Sequence[float], contrast: Contrast, alpha: float
) -> dict[str, Any]:
    t = stats.paired_t_test(values, 1 - alpha)
    both = stats.tost(values, contrast.margin, alpha)
    below_margin = stats.non_inferiority(values, contrast.margin, alpha).p
    above_minus = stats.non_inferiority([-v for v in values], contrast.margin, alpha).p
    above = stats.probability_of_improvement([0.0] * t.n, values, 1 - alpha)
    as_said = (t.mean > 0) == (contrast.says == "greater") and t.mean != 0
    one_sided = t.p / 2 if as_said else 1 - t.p / 2
    differs, opposite = min(1.0, 2 * one_sided), min(1.0, 2 * (1 - one_sided))
    p, p_against = {
        "greater": (differs, min(opposite, both.p)),
        "less": (differs, min(opposite, both.p)),
        "equal": (both.p, min(1 - below_margin, 1 - above_minus)),
        "not_greater": (below_margin, 1 - below_margin),
    }[contrast.says]
    return {
        "effect": t.mean,
        "sd": t.sd,
        "n": t.n,
        "low": t.low,
        "high": t.high,
        "low_margin": both.low,
        "high_margin": both.high,
        "p": p,
        "p_against": p_against,
        "p_sign_flip": stats.sign_flip_test(values, rng=0).p,
        "above": above.value,
        "above_low": above.low,
        "above_high": above.high,
    }


def decide(says: Says, told: Mapping[str, Any], alpha: float) -> tuple[Decision, str]:
    """The rule, by what the sentence says of the contrast."""
    margin = told["margin"]
    within = -margin < told["low_margin"] and told["high_margin"] < margin
    above, below = told["low"] > 0, told["high"] < 0
    at_margin = f"the {1 - 2 * alpha:.0%} interval"
    if says in {"greater", "less"}:
        interval = f"the {1 - alpha:.0%} interval"
        if within:
            small = "; a smaller one is shown" if above or below else ""
            return "equivalent", f"a difference of {margin:g} is excluded{small}"
        if above or below:
            as_said = above == (says == "greater")
            where = "above" if above else "below"
            return (
                "supported" if as_said else "refuted",
                f"{interval} is {where} 0",
            )
        return "inconclusive", f"{interval} has 0 in it, and reaches the margin"
    if says == "equal" and within:
        return "supported", f"{at_margin} is within the margins"
    if says == "not_greater" and told["high_margin"] < margin:
        return "supported", f"{at_margin} is below the margin"
    beyond = told["low_margin"] > margin
    if beyond or (says == "equal" and told["high_margin"] < -margin):
        return "refuted", f"{at_margin} is beyond the margin"
    return "inconclusive", f"{at_margin} has the margin in it"


def seeds_needed(
    says: Says, effect: float, sd: float, margin: float, alpha: float
) -> int | None:
    """The fewest seeds that would settle it, were the effect what it seems."""
    if not sd:
        return None

    def needed(distance: float, kind: stats.Kind, effect: float = 0.0) -> int | None:
        return stats.seeds_needed(
            sd, distance, kind, alpha=alpha, effect=effect, cap=MOST_SEEDS
        )

    ways = []
    if says in {"greater", "less"} and effect:
        ways.append(needed(abs(effect), "difference"))
    if says == "not_greater" and effect < margin:
        ways.append(needed(margin, "non_inferiority", effect))
    elif says != "not_greater" and abs(effect) < margin:
        ways.append(needed(margin, "equivalence", effect))
    elif says in {"equal", "not_greater"} and abs(effect) > margin:
        ways.append(needed(abs(effect) - margin, "non_inferiority"))
    return min((way for way in ways if way is not None), default=None)
