"""Judge the designs and theorems of a claim, and combine them in a verdict.

The module imports neither torch nor hydra, so that verdicts can be made quickly from
committed records.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from normbench import stats
from normbench.config.schema import RunRecord
from normbench.records.source import codes
from normbench.verdicts.cells import passes_gate, summary
from normbench.verdicts.contrasts import judge
from normbench.verdicts.counting import CensusVerdict
from normbench.verdicts.crossovers import crossover
from normbench.verdicts.design import Design, arm_of
from normbench.verdicts.grid import Grid
from normbench.verdicts.parts import judge_parts
from normbench.verdicts.power import seeds_needed
from normbench.verdicts.registration import Claim, Theorem, registration_hash
from normbench.verdicts.spending import Looks
from normbench.verdicts.verdict import (
    ContrastVerdict,
    Decision,
    DesignVerdict,
    Registered,
    TheoremVerdict,
    Verdict,
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
    confirmed = deviation <= theorem.tolerance
    decision: Decision = "confirmed" if confirmed else "contradicted"
    # A check whose control is within the tolerance could not have failed. A control of
    # NaN counts as within the tolerance.
    if control is not None and not control > theorem.tolerance:
        decision = "not decided"
    return TheoremVerdict(
        check=theorem.check,
        statement=statement,
        part=theorem.part,
        bears=theorem.bears,
        tolerance=theorem.tolerance,
        deviation=deviation if math.isfinite(deviation) else None,
        control=control if control is not None and math.isfinite(control) else None,
        detail=detail,
        decision=decision,
    )


def judge_design(
    name: str,
    design: Design,
    grids: Mapping[str, Grid],
    skipped: Mapping[str, str],
    alpha: float,
    *,
    tested: bool = True,
    looks: Looks | None = None,
    frozen: Mapping[str, ContrastVerdict] = MappingProxyType({}),
) -> DesignVerdict:
    """Return the verdict of one mechanism or outcome, before Holm's adjustment.

    `grids` has the runs of each cell at all rates. `skipped` has the cells whose norm
    does not fit, with the reason. If not `tested` (a smoke check), every contrast is
    "not tested". With `looks`, contrasts are judged at the present look. `frozen` has
    the contrasts, by name, that an earlier look settled; they stay as they are.
    """
    chosen = {cell: grid.chosen_runs() for cell, grid in grids.items()}
    arms_with_runs = {arm_of(cell) for cell, runs in chosen.items() if runs}
    gate = {
        arm: passes_gate(design, arm, chosen)
        for arm in design.arms
        if arm in arms_with_runs
    }
    contrasts = [
        frozen.get(contrast.name)
        or judge(contrast, design, grids, gate, alpha, tested, looks)
        for contrast in design.contrasts
    ]
    crossovers = [
        crossover(crossing, design, chosen, gate)
        for crossing in design.crossovers
        if tested
    ]
    return DesignVerdict(
        name=name,
        data=next(iter(design.data), ""),
        question=design.question,
        gate=gate,
        cells=[
            summary(cell, design, grids.get(cell), skipped.get(cell), alpha)
            for cell in design.all_cells()
            if cell in grids or cell in skipped
        ],
        contrasts=contrasts,
        crossovers=[each for each in crossovers if each is not None],
    )


def adjusted(designs: Sequence[DesignVerdict], alpha: float) -> list[DesignVerdict]:
    """Return `designs` after Holm's adjustment over all their primary contrasts.

    A primary contrast becomes undecided if its adjusted p is not below `alpha`. If a
    direction does not hold, but a relevant difference is excluded after the adjustment,
    the contrast is no relevant difference instead. A primary contrast without a p,
    because runs are missing, counts as p = 1. The tests
    that confirm, that contradict, and that exclude a relevant difference are adjusted
    apart: three kinds of wrong decisions, each with at most its own level.
    """
    primary = [c for design in designs for c in design.contrasts if c.primary]
    if not primary:
        return list(designs)
    kinds = ("p", "p_against", "p_within")
    by_kind = {
        kind: stats.holm([_p_or_1(getattr(contrast, kind)) for contrast in primary])
        for kind in kinds
    }
    p_of = {
        id(contrast): _PValues(*(float(by_kind[kind][i]) for kind in kinds))
        for i, contrast in enumerate(primary)
    }
    adjusted_designs = []
    for design in designs:
        contrasts = [
            _after_holm(c, p_of[id(c)], len(primary), alpha) if id(c) in p_of else c
            for c in design.contrasts
        ]
        adjusted_designs.append(design.model_copy(update={"contrasts": contrasts}))
    return adjusted_designs


class _PValues(NamedTuple):
    """The adjusted p values of a contrast."""

    p: float
    p_against: float
    p_within: float


def _p_or_1(p: float | None) -> float:
    return 1.0 if p is None else p


def _after_holm(
    contrast: ContrastVerdict, adjusted_p: _PValues, tests: int, alpha: float
) -> ContrastVerdict:
    """Return `contrast` with its adjusted p values, among `tests` primary contrasts."""
    if contrast.effect is None or contrast.sd is None:
        return contrast
    changes: dict[str, Any] = {
        "p_adjusted": adjusted_p.p,
        "p_against_adjusted": adjusted_p.p_against,
    }
    if contrast.p_within is not None:
        changes["p_within_adjusted"] = adjusted_p.p_within
    decisive = {
        "confirmed": adjusted_p.p,
        "contradicted": adjusted_p.p_against,
    }.get(contrast.decision, adjusted_p.p_within)
    decided = contrast.decision not in {"not decided", "not tested"}
    if decided and decisive >= alpha:
        has_direction = contrast.decision in {"confirmed", "contradicted"}
        within = has_direction and contrast.p_within is not None
        within = within and adjusted_p.p_within < alpha
        changes["decision"] = "no relevant difference" if within else "not decided"
        changes["size"] = None
        changes["because"] = (
            f"{contrast.because}, but not after Holm over {tests} "
            f"primary contrasts (p {decisive:.2g})"
        )
        if within:
            changes["because"] += (
                "; a difference beyond the margins is excluded, after Holm too "
                f"(p {adjusted_p.p_within:.2g})"
            )
        elif not contrast.looks:
            changes["seeds_needed"] = seeds_needed(
                contrast.says,
                contrast.effect,
                contrast.sd,
                contrast.margin,
                alpha / tests,
            )
    return contrast.model_copy(update=changes)


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
    first_seed: int = 0,
    designs: Sequence[DesignVerdict],
    theorems: list[TheoremVerdict],
    caveats: Sequence[str],
    records: Sequence[RunRecord],
    registered: Registered | None,
    command: str,
    started: str,
    environment: dict[str, list[str]],
    census: list[CensusVerdict],
) -> Verdict:
    """Return the verdict of `claim`, with a headline for each of its parts.

    `designs` are the judged mechanisms and outcomes, before Holm's adjustment. `census`
    has the judged rules on models, none if the models were not counted. `records` are
    those of all runs. `registered` is the commit of the yaml.
    """
    after_holm = adjusted(designs, claim.alpha)
    mechanisms = [d for d in after_holm if d.name in claim.mechanism_names()]
    outcomes = [d for d in after_holm if d.name not in claim.mechanism_names()]
    first_run = min((record.started for record in records), default=None)
    return Verdict(
        claim=claim.name,
        statement=claim.statement,
        source=claim.source,
        registration=registration_hash(claim),
        registered=registered,
        first_run=first_run,
        budget=budget,
        first_seed=first_seed,
        alpha=claim.alpha,
        caveats=[*mixtures(environment), *caveats],
        parts=judge_parts(
            claim.parts, theorems, census, mechanisms, outcomes, registered, first_run
        ),
        theorems=theorems,
        mechanisms=mechanisms,
        outcomes=outcomes,
        census=census,
        published=claim.published,
        confounds=claim.confounds,
        seen=claim.seen,
        run_ids=sorted(record.run_id for record in records),
        command=command,
        started=started,
        environment=environment,
    )
