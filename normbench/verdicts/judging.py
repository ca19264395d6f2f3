"""Judge the designs and theorems of a claim, and combine them in a verdict.

The module imports neither torch nor hydra, so that verdicts can be made quickly from
committed records.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from normbench import stats
from normbench.config.schema import RunRecord
from normbench.records.source import codes
from normbench.verdicts.contrasts import Cells, is_maximized, judge, values_of
from normbench.verdicts.power import seeds_needed
from normbench.verdicts.registration import (
    Claim,
    Crossing,
    Design,
    Theorem,
    arm_of,
    level_of,
    registration_hash,
)
from normbench.verdicts.spending import Looks
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
    """Return the verdict of a theorem from the numbers that its check measured.

    `deviation` must be within the tolerance, and `control` must not be.
    """
    decision: Decision = "supported" if deviation <= theorem.tolerance else "refuted"
    # A check whose control is within the tolerance could not have failed. A control of
    # NaN counts as within the tolerance.
    if control is not None and not control > theorem.tolerance:
        decision = "inconclusive"
    return TheoremVerdict(
        check=theorem.check,
        statement=statement,
        tolerance=theorem.tolerance,
        deviation=deviation if math.isfinite(deviation) else None,
        control=control if control is not None and math.isfinite(control) else None,
        detail=detail,
        decision=decision,
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
    looks: Looks | None = None,
    frozen: Mapping[str, ContrastVerdict] = MappingProxyType({}),
) -> DesignVerdict:
    """Return the verdict of one mechanism or outcome, before Holm's adjustment.

    `skipped` has the cells whose norm does not fit, with the reason. If not `tested` (a
    smoke check), every contrast is "not tested". With `looks`, contrasts are judged at
    the present look. `frozen` has the contrasts, by name, that an earlier look settled;
    they stay as they are.
    """
    arms_with_runs = {arm_of(cell) for cell, runs in cells.items() if runs}
    gate = {
        arm: _passes_gate(design, arm, cells)
        for arm in design.arms
        if arm in arms_with_runs
    }
    contrasts = [
        frozen.get(contrast.name)
        or judge(contrast, design, cells, rates, gate, alpha, tested, looks)
        for contrast in design.contrasts
    ]
    crossovers = [
        _crossover(crossing, design, cells, gate)
        for crossing in design.crossovers
        if tested
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
        crossovers=[crossover for crossover in crossovers if crossover is not None],
        decision=together(c.decision for c in contrasts if c.primary),
    )


def adjusted(designs: Sequence[DesignVerdict], alpha: float) -> list[DesignVerdict]:
    """Return `designs` after Holm's adjustment over all their primary contrasts.

    A primary contrast becomes inconclusive if its adjusted p is not below `alpha`. A
    primary contrast without a p, because runs are missing, counts as p = 1.
    """
    primary = [c for design in designs for c in design.contrasts if c.primary]
    if not primary:
        return list(designs)
    in_favour = stats.holm([1.0 if c.p is None else c.p for c in primary])
    against = stats.holm([1.0 if c.p_against is None else c.p_against for c in primary])
    p_of = {
        id(contrast): (float(p), float(p_against))
        for contrast, p, p_against in zip(primary, in_favour, against, strict=True)
    }
    adjusted_designs = []
    for design in designs:
        contrasts = [
            _after_holm(c, *p_of[id(c)], len(primary), alpha) if id(c) in p_of else c
            for c in design.contrasts
        ]
        decision = together(c.decision for c in contrasts if c.primary)
        changes = {"contrasts": contrasts, "decision": decision}
        adjusted_designs.append(design.model_copy(update=changes))
    return adjusted_designs


def _after_holm(
    contrast: ContrastVerdict, p: float, p_against: float, tests: int, alpha: float
) -> ContrastVerdict:
    """Return `contrast` with its adjusted p values, among `tests` primary contrasts."""
    if contrast.effect is None or contrast.sd is None:
        return contrast
    changes: dict[str, Any] = {"p_adjusted": p, "p_against_adjusted": p_against}
    # "equivalent" rests on `p_against`, as "refuted" does.
    decisive = p if contrast.decision == "supported" else p_against
    decided = contrast.decision in {"supported", "refuted", "equivalent"}
    if decided and decisive >= alpha:
        changes["decision"] = "inconclusive"
        changes["because"] = (
            f"{contrast.because}, but not after Holm over {tests} "
            f"primary contrasts (p {decisive:.2g})"
        )
        if not contrast.looks:
            changes["seeds_needed"] = seeds_needed(
                contrast.says,
                contrast.effect,
                contrast.sd,
                contrast.margin,
                alpha / tests,
            )
    return contrast.model_copy(update=changes)


def _crossover(
    crossing: Crossing, design: Design, cells: Cells, gate: Mapping[str, bool]
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
    crossover = stats.crossover(np.log2(levels), above_curves, below_curves)
    return CrossoverVerdict(
        name=crossing.name,
        metric=crossing.metric,
        at=_level(crossover.x),
        low=_level(crossover.low),
        high=_level(crossover.high),
        share_before=crossover.share_before,
        share_after=crossover.share_after,
        share_several=crossover.share_several,
        n=len(seeds),
    )


def _level(log2: float) -> Level:
    """Return a level from its log2, which is infinite outside the tested levels."""
    if math.isfinite(log2):
        return float(2**log2)
    return "before" if log2 < 0 else "after"


def _passes_gate(design: Design, arm: str, cells: Cells) -> bool:
    """Return whether the arm trained at one of its levels at least."""
    gate = design.gate
    for cell, runs in cells.items():
        if arm_of(cell) == arm and runs:
            values = values_of(runs.values(), gate.metric) or []
            sign = -1 if is_maximized(gate.metric, runs.values()) else 1
            if values and sign * sum(values) / len(values) < sign * gate.below:
                return True
    return False


def _summary(
    cell: str, runs: Mapping[int, RunRecord], rate: Rate, skipped: str | None
) -> CellSummary:
    """Return the means and counts of one cell's runs, which are given by seed."""
    records = runs.values()
    mean: dict[str, float] = {}
    sd: dict[str, float | None] = {}
    for metric in sorted({key for r in records for key in (*r.metrics, *r.probes)}):
        values = values_of(records, metric)
        if values:
            mean[metric] = float(np.mean(values))
            sd[metric] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    statuses = [record.status for record in records]
    return CellSummary(
        cell=cell,
        rate=rate,
        n=len(runs),
        mean=mean,
        sd=sd,
        diverged=statuses.count("diverged"),
        failed=statuses.count("failed"),
        skipped=skipped,
    )


def environment_of(
    records: Iterable[RunRecord], packages: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Return the code, devices and package versions of `records`: key -> its values.

    `packages` has the packages that provide each data set, by the name of the data set.
    """
    records = list(records)
    values: dict[str, set[str]] = {
        "code": codes(records),
        "device": set(),
        "torch": set(),
    }
    for record in records:
        environment = record.environment
        values["device"].add(environment.device)
        for package in ("torch", *packages[record.config.data.name]):
            version = environment.packages.get(package, "?")
            values.setdefault(package, set()).add(version)
    return {key: sorted(strings) for key, strings in values.items()}


def mixtures(environment: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a caveat for each key of `environment` with several values."""
    return [
        f"runs of mixed {key}: {' and '.join(values)}"
        for key, values in environment.items()
        if len(values) > 1
    ]


def make_verdict(
    claim: Claim,
    *,
    budget: str,
    designs: Sequence[DesignVerdict],
    theorems: list[TheoremVerdict],
    caveats: Sequence[str],
    run_ids: list[str],
    environment: dict[str, list[str]],
    command: str,
    started: str,
    census: dict[str, dict[str, int]],
    census_failures: dict[str, dict[str, str]],
) -> Verdict:
    """Return the verdict of `claim`, with one decision for each of its three parts.

    `designs` are the judged mechanisms and outcomes, before Holm's adjustment.
    """
    after_holm = adjusted(designs, claim.alpha)
    mechanisms = [d for d in after_holm if d.name in claim.mechanisms]
    outcomes = [d for d in after_holm if d.name not in claim.mechanisms]
    return Verdict(
        claim=claim.name,
        statement=claim.statement,
        source=claim.source,
        registration=registration_hash(claim),
        budget=budget,
        alpha=claim.alpha,
        caveats=[*mixtures(environment), *caveats],
        theorem=together(theorem.decision for theorem in theorems),
        mechanism=_combined_decision(mechanisms),
        outcome=_combined_decision(outcomes),
        theorems=theorems,
        mechanisms=mechanisms,
        outcomes=outcomes,
        census=census,
        census_failures=census_failures,
        published=claim.published,
        confounds=claim.confounds,
        run_ids=run_ids,
        command=command,
        started=started,
        environment=environment,
    )


def _combined_decision(designs: Iterable[DesignVerdict]) -> Decision:
    """Return the decision over all designs that have a primary contrast."""
    return together(design.decision for design in designs if design.has_primary)
