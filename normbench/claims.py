"""Records -> verdict: what the runs say of a registered claim.

Knows no torch and no hydra: verdicts are made on a laptop from committed records.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from normbench import stats
from normbench.errors import RequestError
from normbench.registration import Claim, Contrast, Crossing, Design, Theorem
from normbench.schema import RunRecord

Decision = Literal["supported", "refuted", "equivalent", "inconclusive", "not tested"]
"""equivalent: a difference was claimed, and one beyond the margin is excluded."""

MOST_SEEDS = 200
"""More seeds than that are not suggested."""


class _Reported(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TheoremVerdict(_Reported):
    """`deviation` must be at most `tolerance`, and `control`, where there is one, more:
    it is where the theorem says that there is a difference."""

    check: str
    statement: str
    tolerance: float
    deviation: float
    control: float | None
    detail: str
    decision: Decision


class Rate(_Reported):
    """The learning rate of a cell, and how it was chosen.

    `validation` is the mean validation metric over the tuning seeds of each rate that
    was tried, null where a run diverged; `good` are the rates within one margin of the
    best. `at_edge`: the best is at an end of what was tried. `frozen`: it was chosen by
    an earlier, fuller check.
    """

    lr: float
    validation: dict[str, float | None]
    good: list[float]
    at_edge: bool
    frozen: bool


class CellSummary(_Reported):
    """One cell's runs: the mean of each metric over seeds, and those without one."""

    cell: str
    rate: Rate
    n: int
    mean: dict[str, float]
    sd: dict[str, float | None]
    diverged: int
    failed: int
    skipped: str | None


class ContrastVerdict(_Reported):
    """One contrast: its effect over paired seeds and what follows from it.

    (`low`, `high`) is the interval of confidence 1 - alpha, (`low_margin`,
    `high_margin`) that of 1 - 2 alpha, which is held against the margin. `p` is that of
    the test that would support the claim, `p_adjusted` after Holm over the claim's
    primary contrasts, `p_sign_flip` that of no difference without a normal model.
    `seeds_needed` would settle an inconclusive contrast with power .8.
    """

    name: str
    metric: str
    says: str
    margin: float
    reason: str
    primary: bool
    exploratory: bool = False
    decision: Decision
    because: str
    effect: float | None = None
    sd: float | None = None
    n: int = 0
    low: float | None = None
    high: float | None = None
    low_margin: float | None = None
    high_margin: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    p_sign_flip: float | None = None
    seeds_needed: int | None = None
    values: dict[str, float] = {}


class CrossoverVerdict(_Reported):
    """The level at which two curves of means meet, with a bootstrap interval.

    `at`, `low` and `high` are null where that is beyond the levels: the shares say on
    which side. `share_before` of the resamples had the curves in the other order from
    the first level on, `share_after` had no crossing up to the last.
    """

    name: str
    metric: str
    at: float | None
    low: float | None
    high: float | None
    share_before: float
    share_after: float
    n: int


class DesignVerdict(_Reported):
    """A mechanism or an outcome: its cells, gate and contrasts."""

    name: str
    question: str
    gate: dict[str, bool]
    cells: list[CellSummary]
    contrasts: list[ContrastVerdict]
    crossovers: list[CrossoverVerdict] = []
    decision: Decision


class Verdict(_Reported):
    """What a check of a claim came to: theorem, mechanism and outcome apart.

    `caveats` are what limits the whole: mixed code or devices, a registration that
    has changed, rates that were not tuned here.
    """

    format: Literal[1] = 1
    claim: str
    statement: str
    source: str
    registration: str
    budget: str
    alpha: float
    caveats: list[str]
    theorem: Decision
    mechanism: Decision
    outcome: Decision
    theorems: list[TheoremVerdict]
    mechanisms: list[DesignVerdict]
    outcomes: list[DesignVerdict]
    census: dict[str, dict[str, int]] = {}
    published: list[str] = []
    confounds: list[str] = []
    run_ids: list[str] = []
    command: str
    started: str
    environment: dict[str, list[str]]


def read_verdict(path: Path) -> Verdict | None:
    """The verdict in a file; None where there is none.

    Raises RequestError where it is damaged or of another version.
    """
    try:
        return Verdict.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        told = str(error).splitlines()[0]
        raise RequestError(f"{path} is not a verdict ({told}); remove it") from None


Cells = Mapping[str, Mapping[int, RunRecord]]
"""Of one design: cell -> seed -> record, finished runs only."""


def judge_theorem(
    theorem: Theorem,
    statement: str,
    deviation: float,
    control: float | None,
    detail: str,
) -> TheoremVerdict:
    """Whether a finding of a theorem's check is within its tolerance."""
    holds = deviation <= theorem.tolerance
    can_fail = control is None or control > theorem.tolerance
    return TheoremVerdict(
        check=theorem.check,
        statement=statement,
        tolerance=theorem.tolerance,
        deviation=deviation,
        control=control,
        detail=detail,
        decision="inconclusive"
        if not can_fail
        else ("supported" if holds else "refuted"),
    )


def judge_design(
    name: str,
    design: Design,
    cells: Cells,
    rates: Mapping[str, Rate],
    skipped: Mapping[str, str],
    alpha: float,
    *,
    tested: bool = True,
) -> DesignVerdict:
    """The verdict of one mechanism or outcome, before Holm's adjustment.

    `skipped` are the cells that cannot work, with the reason. Where not `tested` (a
    smoke check), every contrast is "not tested".
    """
    gate = {arm: _passes(design, arm, cells) for arm in _arms(design, cells)}
    contrasts = [
        _judge(contrast, design, cells, gate, alpha, tested)
        for contrast in design.contrasts
    ]
    return DesignVerdict(
        name=name,
        question=design.question,
        gate=gate,
        cells=[
            _summary(cell, cells.get(cell, {}), rates[cell], skipped.get(cell))
            for cell in rates
        ],
        contrasts=contrasts,
        crossovers=[
            found
            for crossing in design.crossovers
            if tested and (found := _crossover(crossing, design, cells)) is not None
        ],
        decision=together(c.decision for c in contrasts if c.primary),
    )


def adjusted(designs: Sequence[DesignVerdict], alpha: float) -> list[DesignVerdict]:
    """`designs` with Holm's adjustment over all of their primary contrasts.

    A contrast that is supported only without it becomes inconclusive.
    """
    primary = [
        contrast
        for design in designs
        for contrast in design.contrasts
        if contrast.primary and contrast.p is not None
    ]
    if not primary:
        return list(designs)
    p_values = stats.holm([contrast.p or 0.0 for contrast in primary])
    by_id = {id(c): float(p) for c, p in zip(primary, p_values, strict=True)}

    def adjust(contrast: ContrastVerdict) -> ContrastVerdict:
        p = by_id.get(id(contrast))
        if p is None:
            return contrast
        lost = contrast.decision == "supported" and p >= alpha
        changes: dict[str, Any] = {"p_adjusted": p}
        if lost:
            changes["decision"] = "inconclusive"
            changes["because"] = f"{contrast.because}; not after Holm (p {p:.3g})"
        return contrast.model_copy(update=changes)

    return [
        design.model_copy(
            update={
                "contrasts": (made := [adjust(c) for c in design.contrasts]),
                "decision": together(c.decision for c in made if c.primary),
            }
        )
        for design in designs
    ]


def together(parts: Iterable[Decision]) -> Decision:
    """Of several parts: one that is refuted refutes, and only all of them support."""
    decisions = list(parts)
    order: tuple[Decision, ...] = ("refuted", "equivalent", "inconclusive")
    for decisive in (*order, "not tested"):
        if decisive in decisions:
            return decisive
    return "supported" if decisions else "not tested"


def _judge(
    contrast: Contrast,
    design: Design,
    cells: Cells,
    gate: Mapping[str, bool],
    alpha: float,
    tested: bool,
) -> ContrastVerdict:
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
    told |= {"n": len(values)}
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
        {cell.partition("@")[0] for cell in weights}
        - {arm for arm, passed in gate.items() if passed}
    )
    if untrained:
        because = f"gate: {', '.join(untrained)} did not train"
        return ContrastVerdict(**told, decision="inconclusive", because=because)
    decision, because = _decide(contrast.says, told, alpha)
    if decision == "inconclusive":
        told["seeds_needed"] = _seeds_needed(contrast, told, alpha)
    return ContrastVerdict(**told, decision=decision, because=because)


def _statistics(
    values: Sequence[float], contrast: Contrast, alpha: float
) -> dict[str, Any]:
    t = stats.paired_t_test(values, 1 - alpha)
    both = stats.tost(values, contrast.margin, alpha)
    upper = stats.non_inferiority(values, contrast.margin, alpha)
    one_sided = t.p / 2 if (t.mean > 0) == (contrast.says == "greater") else 1 - t.p / 2
    p = {
        "greater": min(1.0, 2 * one_sided),
        "less": min(1.0, 2 * one_sided),
        "equal": both.p,
        "not_greater": upper.p,
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
        "p_sign_flip": stats.sign_flip_test(values, rng=0).p,
    }


def _decide(says: str, told: Mapping[str, Any], alpha: float) -> tuple[Decision, str]:
    """The rule, by what the sentence says of the contrast."""
    margin = told["margin"]
    within = -margin < told["low_margin"] and told["high_margin"] < margin
    if says in {"greater", "less"}:
        if within:
            return "equivalent", f"a difference of {margin:g} is excluded"
        above, below = told["low"] > 0, told["high"] < 0
        if above or below:
            as_said = above == (says == "greater")
            where = "above" if above else "below"
            return (
                "supported" if as_said else "refuted",
                f"the interval is {where} 0",
            )
        return "inconclusive", "the interval has 0 and more than the margin"
    if says == "equal" and within:
        return "supported", "the interval is within the margin"
    if says == "not_greater" and told["high_margin"] < margin:
        return "supported", "the interval is below the margin"
    beyond = told["low_margin"] > margin
    if beyond or (says == "equal" and told["high_margin"] < -margin):
        return "refuted", "the interval is beyond the margin"
    return "inconclusive", "the interval has the margin"


def _seeds_needed(
    contrast: Contrast, told: Mapping[str, Any], alpha: float
) -> int | None:
    """The fewest seeds that would settle it, were the effect what it seems."""
    effect, sd, margin = told["effect"], told["sd"], contrast.margin
    if not sd:
        return None
    ways = []
    if contrast.says in {"greater", "less"} and effect:
        ways.append(
            stats.seeds_needed(
                sd, abs(effect), "difference", alpha=alpha, cap=MOST_SEEDS
            )
        )
    if abs(effect) < margin:
        kind: stats.Kind = (
            "non_inferiority" if contrast.says == "not_greater" else "equivalence"
        )
        ways.append(
            stats.seeds_needed(
                sd, margin, kind, alpha=alpha, effect=effect, cap=MOST_SEEDS
            )
        )
    elif contrast.says in {"equal", "not_greater"}:
        beyond = abs(effect) - margin
        if beyond > 0:
            ways.append(
                stats.seeds_needed(
                    sd, beyond, "non_inferiority", alpha=alpha, cap=MOST_SEEDS
                )
            )
    return min((way for way in ways if way is not None), default=None)


def weights_of(contrast: Contrast, design: Design) -> dict[str, float]:
    """Cell -> weight; those of a slope are least squares on log2 of the levels."""
    if contrast.weights is not None:
        return contrast.weights
    cells = [c for c in design.all_cells() if c.partition("@")[0] == contrast.slope]
    x = np.array([math.log2(float(cell.partition("@")[2])) for cell in cells])
    centred = x - x.mean()
    weights = centred / (centred @ centred)
    return dict(zip(cells, weights.tolist(), strict=True))


def metric_of(record: RunRecord, metric: str) -> float | None:
    """The metric of a run; a classifier that diverged is wrong everywhere."""
    if record.status == "diverged" and metric.endswith("/error"):
        return 1.0
    return {**record.metrics, **record.probes}.get(metric)


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


def _crossover(
    crossing: Crossing, design: Design, cells: Cells
) -> CrossoverVerdict | None:
    """None where fewer than two levels or seeds have both arms."""
    pairs = {}
    for cell in design.all_cells():
        arm, _, level = cell.partition("@")
        below = crossing.below if "@" in crossing.below else f"{crossing.below}@{level}"
        if arm == crossing.above and cells.get(cell) and cells.get(below):
            pairs[float(level)] = (cells[cell], cells[below])
    if len(pairs) < 2:
        return None
    levels = sorted(pairs)
    seeds = sorted(set[int].intersection(*(set(c) for p in pairs.values() for c in p)))
    if len(seeds) < 2:
        return None

    def curves(which: int) -> list[list[float | None]]:
        return [
            [metric_of(pairs[level][which][seed], crossing.metric) for level in levels]
            for seed in seeds
        ]

    above, below_curves = curves(0), curves(1)
    if any(v is None for rows in (above, below_curves) for row in rows for v in row):
        return None
    found = stats.crossover(
        np.log2(levels), np.array(above), np.array(below_curves), rng=0
    )
    at, low, high = (
        float(2**x) if math.isfinite(x) else None
        for x in (found.x, found.low, found.high)
    )
    return CrossoverVerdict(
        name=crossing.name,
        metric=crossing.metric,
        at=at,
        low=low,
        high=high,
        share_before=found.share_before,
        share_after=found.share_after,
        n=found.n,
    )


def _arms(design: Design, cells: Cells) -> list[str]:
    trained = {cell.partition("@")[0] for cell, runs in cells.items() if runs}
    return [arm for arm in design.arms if arm in trained]


def _passes(design: Design, arm: str, cells: Cells) -> bool:
    for cell, runs in cells.items():
        if cell.partition("@")[0] != arm or not runs:
            continue
        values = [metric_of(record, design.gate.metric) for record in runs.values()]
        finite = [value for value in values if value is not None]
        if len(finite) == len(values) and sum(finite) / len(finite) < design.gate.below:
            return True
    return False


def _summary(
    cell: str, runs: Mapping[int, RunRecord], rate: Rate, skipped: str | None
) -> CellSummary:
    ended = [record for record in runs.values() if record.status == "ok"]
    metrics = sorted({key for r in ended for key in (*r.metrics, *r.probes)})
    mean, sd = {}, {}
    for metric in metrics:
        values = [metric_of(record, metric) for record in ended]
        finite = [value for value in values if value is not None]
        if finite:
            interval = stats.mean_interval(finite)
            mean[metric], sd[metric] = interval.mean, interval.sd
    return CellSummary(
        cell=cell,
        rate=rate,
        n=len(ended),
        mean=mean,
        sd=sd,
        diverged=sum(record.status == "diverged" for record in runs.values()),
        failed=sum(record.status == "failed" for record in runs.values()),
        skipped=skipped,
    )


def environment_of(records: Iterable[RunRecord]) -> dict[str, list[str]]:
    """What the runs ran on; more than one value of a key is a mixture."""
    seen: dict[str, set[str]] = {"source_hash": set(), "device": set(), "torch": set()}
    for record in records:
        ran_on = record.environment
        seen["source_hash"].add(ran_on.source_hash)
        seen["device"].add(ran_on.device)
        seen["torch"].add(ran_on.packages.get("torch", "?"))
    return {key: sorted(values) for key, values in seen.items()}


def make_verdict(claim: Claim, **parts: Any) -> Verdict:
    """A verdict of `claim`: its parts' decisions follow from `parts`."""
    designs = adjusted([*parts.pop("mechanisms"), *parts.pop("outcomes")], claim.alpha)
    mechanisms = [d for d in designs if d.name in claim.mechanisms]
    outcomes = [d for d in designs if d.name not in claim.mechanisms]
    caveats = list(parts.pop("caveats"))
    for key, values in parts["environment"].items():
        if len(values) > 1:
            caveats.insert(0, f"mixed {key}: {', '.join(values)}")
    theorems: list[TheoremVerdict] = parts["theorems"]
    return Verdict(
        claim=claim.name,
        statement=claim.statement,
        source=claim.source,
        alpha=claim.alpha,
        published=claim.published,
        confounds=claim.confounds,
        caveats=caveats,
        theorem=together(t.decision for t in theorems),
        mechanism=together(d.decision for d in mechanisms),
        outcome=together(d.decision for d in outcomes),
        mechanisms=mechanisms,
        outcomes=outcomes,
        **parts,
    )
