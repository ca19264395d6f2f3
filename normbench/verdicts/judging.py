"""Records -> verdict: what the runs say of a registered claim.

Knows no torch and no hydra: verdicts are made on a laptop from committed records.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from normbench import stats
from normbench.config.schema import RunRecord
from normbench.records.source import codes
from normbench.verdicts.contrasts import Cells, judge, metric_of, seeds_needed
from normbench.verdicts.registration import (
    Claim,
    Crossing,
    Design,
    Theorem,
    arm_of,
    level_of,
)
from normbench.verdicts.verdict import (
    CellSummary,
    ContrastVerdict,
    CrossoverVerdict,
    Decision,
    DesignVerdict,
    Level,
    Rate,
    TheoremVerdict,
    Verdict,
    together,
)


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
        deviation=_finite(deviation),
        control=_finite(control),
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
        judge(contrast, design, cells, rates, gate, alpha, tested)
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
            if tested
            and (found := _crossover(crossing, design, cells, gate)) is not None
        ],
        decision=together(c.decision for c in contrasts if c.primary),
    )


def adjusted(designs: Sequence[DesignVerdict], alpha: float) -> list[DesignVerdict]:
    """`designs` with Holm's adjustment over all of their primary contrasts.

    A primary contrast that is decided, either way, only without it becomes
    inconclusive. Those without a p, for want of runs, count as 1.
    """
    primary = [c for design in designs for c in design.contrasts if c.primary]
    if not primary:
        return list(designs)

    def holm(p_values: Iterable[float | None]) -> list[float]:
        filled = [1.0 if p is None else p for p in p_values]
        return [float(p) for p in stats.holm(filled)]

    in_favour = holm(c.p for c in primary)
    against = holm(c.p_against for c in primary)
    by_id = {
        id(contrast): both
        for contrast, *both in zip(primary, in_favour, against, strict=True)
    }

    def adjust(contrast: ContrastVerdict) -> ContrastVerdict:
        if contrast.p is None or id(contrast) not in by_id:
            return contrast
        p, p_against = by_id[id(contrast)]
        changes: dict[str, Any] = {"p_adjusted": p, "p_against_adjusted": p_against}
        decisive = p if contrast.decision == "supported" else p_against
        if contrast.decision in _DECIDED and decisive >= alpha:
            assert contrast.effect is not None and contrast.sd is not None
            changes["decision"] = "inconclusive"
            changes["because"] = (
                f"{contrast.because}, but not after Holm over {len(primary)} "
                f"primary contrasts (p {decisive:.2g})"
            )
            changes["seeds_needed"] = seeds_needed(
                contrast.says,
                contrast.effect,
                contrast.sd,
                contrast.margin,
                alpha / len(primary),
            )
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


_DECIDED = frozenset({"supported", "refuted", "equivalent"})


def _crossover(
    crossing: Crossing, design: Design, cells: Cells, gate: Mapping[str, bool]
) -> CrossoverVerdict | None:
    """None where an arm did not train, or fewer than two levels or seeds have both."""
    if not (gate.get(crossing.above) and gate.get(arm_of(crossing.below))):
        return None
    pairs = {}
    for cell in design.all_cells():
        level = level_of(cell)
        below = crossing.below if "@" in crossing.below else f"{crossing.below}@{level}"
        if arm_of(cell) == crossing.above and cells.get(cell) and cells.get(below):
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
    at, low, high = (_level(x) for x in (found.x, found.low, found.high))
    return CrossoverVerdict(
        name=crossing.name,
        metric=crossing.metric,
        at=at,
        low=low,
        high=high,
        share_before=found.share_before,
        share_after=found.share_after,
        share_several=found.share_several,
        n=found.n,
    )


def _level(log2: float) -> Level:
    if math.isfinite(log2):
        return float(2**log2)
    return "before" if log2 < 0 else "after"


def _arms(design: Design, cells: Cells) -> list[str]:
    trained = {arm_of(cell) for cell, runs in cells.items() if runs}
    return [arm for arm in design.arms if arm in trained]


def _passes(design: Design, arm: str, cells: Cells) -> bool:
    for cell, runs in cells.items():
        if arm_of(cell) != arm or not runs:
            continue
        values = [metric_of(record, design.gate.metric) for record in runs.values()]
        finite = [value for value in values if value is not None]
        if len(finite) == len(values) and sum(finite) / len(finite) < design.gate.below:
            return True
    return False


def _summary(
    cell: str, runs: Mapping[int, RunRecord], rate: Rate, skipped: str | None
) -> CellSummary:
    metrics = sorted({key for r in runs.values() for key in (*r.metrics, *r.probes)})
    mean, sd = {}, {}
    for metric in metrics:
        values = [metric_of(record, metric) for record in runs.values()]
        finite = [value for value in values if value is not None]
        if len(finite) == len(values):
            interval = stats.mean_interval(finite)
            mean[metric], sd[metric] = interval.mean, interval.sd
    ended = [record.status for record in runs.values()]
    return CellSummary(
        cell=cell,
        rate=rate,
        n=len(runs),
        mean=mean,
        sd=sd,
        diverged=ended.count("diverged"),
        failed=ended.count("failed"),
        skipped=skipped,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def environment_of(
    records: Iterable[RunRecord], packages: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """What the runs ran on; more than one value of a key is a mixture.

    `packages` are those that feed a data set, by its name.
    """
    records = list(records)
    seen: dict[str, set[str]] = {"code": codes(records), "device": set()}
    seen["torch"] = set()
    for record in records:
        ran_on = record.environment
        seen["device"].add(ran_on.device)
        for package in ("torch", *packages[record.config.data.name]):
            found = ran_on.packages.get(package, "?")
            seen.setdefault(package, set()).add(found)
    return {key: sorted(values) for key, values in seen.items()}


def make_verdict(claim: Claim, **parts: Any) -> Verdict:
    """A verdict of `claim`: its parts' decisions follow from `parts`."""
    designs = adjusted([*parts.pop("mechanisms"), *parts.pop("outcomes")], claim.alpha)
    mechanisms = [d for d in designs if d.name in claim.mechanisms]
    outcomes = [d for d in designs if d.name not in claim.mechanisms]
    mixed = [
        f"runs of mixed {key}: {' and '.join(values)}"
        for key, values in parts["environment"].items()
        if len(values) > 1
    ]
    caveats = [*mixed, *parts.pop("caveats")]
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
        mechanism=_of_primaries(mechanisms),
        outcome=_of_primaries(outcomes),
        mechanisms=mechanisms,
        outcomes=outcomes,
        **parts,
    )


def _of_primaries(designs: Iterable[DesignVerdict]) -> Decision:
    """Designs that only report, without a primary contrast, have no part in it."""
    return together(
        design.decision
        for design in designs
        if any(contrast.primary for contrast in design.contrasts)
    )
