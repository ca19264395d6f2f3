"""Check a claim: plan its runs, do them, judge the records, write the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from pathlib import Path

from normbench.claims import census, theorems
from normbench.claims.budgets import designs_for, looks_for
from normbench.claims.looks import judge_by_looks
from normbench.claims.trial import Request, Trial
from normbench.data.base import REGISTRY as DATA
from normbench.errors import NormbenchError, RequestError
from normbench.records import items, store
from normbench.records.source import comes_from_this_code
from normbench.system.atomic import write_atomically
from normbench.verdicts import judging
from normbench.verdicts.counting import ModelCensus, judge_census
from normbench.verdicts.design import Design, arm_of, level_of
from normbench.verdicts.files import as_recorded
from normbench.verdicts.registration import BudgetName, Claim, Theorem
from normbench.verdicts.values import weights_of
from normbench.verdicts.verdict import (
    DesignVerdict,
    Registered,
    TheoremVerdict,
    Verdict,
)

MAX_SMOKE_SECONDS = 3.0
"""Upper bound on the seconds of ten training steps and their evaluation."""
RECORDS = "records.jsonl.gz"
"""Name of the file with the runs of a full check, beside its verdict."""
EXTRA_ARM = "extra"
"""Name of the arm that `--arm` adds to a registered design."""


@dataclass(frozen=True)
class Cost:
    """Number of runs of a check on an empty results folder, and their core seconds.

    `first_runs` and `first_core_seconds` are those of a check whose contrasts are all
    settled at their first look; the other numbers are those up to the last look, if no
    rate is dropped.
    """

    runs: int
    core_seconds: float
    first_runs: int
    first_core_seconds: float


def prepare(claim: Claim, request: Request, arm: str | None = None) -> Trial:
    """Return the runs of a check and do none of them.

    `arm` has the overrides of one more arm, which is added to each outcome. Raises
    RequestError if a design cannot be composed, or a theorem is unknown.
    """
    for theorem in claim.theorems:
        theorems.statement(theorem.check)  # raises if the theorem is unknown
    designs = designs_for(claim, request.budget)
    if arm:
        mechanisms = claim.mechanism_names()
        designs = {
            name: design if name in mechanisms else with_arm(design, arm)
            for name, design in designs.items()
        }
    return Trial(designs, request)


def check(
    claim: Claim,
    trial: Trial,
    command: str,
    *,
    registration: Registered | None = None,
    counted: ModelCensus | None = None,
) -> Verdict:
    """Do the missing runs of `claim` and return its verdict.

    `command` is the command line that repeats the check; the verdict records it.
    `registration` is the commit of the yaml. `counted` has the models that the census
    rules judge; without it, no rule is judged, and a caveat says so.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    tested = trial.request.budget != "smoke"  # if False, no contrast is decided
    theorem_verdicts = [_check_theorem(theorem) for theorem in claim.theorems]
    designs = judge_by_looks(trial, claim.alpha, tested=tested)
    return judging.make_verdict(
        claim,
        budget=trial.request.budget,
        first_seed=trial.request.first_seed,
        designs=designs,
        theorems=theorem_verdicts,
        caveats=[*_uncounted(claim, counted), *_caveats(claim, trial, designs)],
        records=list(trial.records.values()),
        registered=registration,
        census=[
            judge_census(rule, counted) for rule in claim.census if counted is not None
        ],
        command=command,
        started=started,
        environment=judging.environment_of(
            trial.records.values(),
            {name: DATA.get(name).packages for name in DATA.names()},
        ),
    )


def counted_models(claim: Claim, budget: BudgetName) -> ModelCensus | None:
    """Return the models for the census rules of a claim.

    None without rules, and for a smaller budget: it takes minutes to build all models.
    """
    if budget != "full" or not claim.census:
        return None
    return census.model_census(sorted({rule.census for rule in claim.census}))


def _check_theorem(theorem: Theorem) -> TheoremVerdict:
    finding = theorems.check(theorem.check)
    return judging.judge_theorem(
        theorem,
        theorems.statement(theorem.check),
        finding.deviation,
        finding.control,
        finding.detail,
    )


def with_arm(design: Design, overrides: str) -> Design:
    """Return `design` with one more arm and with exploratory contrasts of that arm.

    Each new contrast repeats a primary contrast, with the new arm in the place of the
    arm that has the largest weight (the first such arm, if several have it).
    """
    if EXTRA_ARM in design.arms:
        raise RequestError(f"an arm is called {EXTRA_ARM!r}; rename it to use --arm")
    contrasts, cells = [], design.all_cells()
    for contrast in design.contrasts:
        if not contrast.primary:
            continue
        weights = weights_of(contrast, design)
        replaced = arm_of(max(weights, key=lambda cell: weights[cell]))
        new_cells = {
            cell: f"{EXTRA_ARM}@{level_of(cell)}"
            for cell in weights
            if arm_of(cell) == replaced
        }
        new_weights = {
            new_cells.get(cell, cell): weight for cell, weight in weights.items()
        }
        changes = {
            "name": f"{contrast.name}, with {overrides} for {replaced}",
            "weights": new_weights,
            "slope": None,
            "part": None,
            "bears": "context",
            "exploratory": True,
        }
        contrasts.append(contrast.model_copy(update=changes))
        cells = [*cells, *new_cells.values()]
    return design.model_copy(
        update={
            "arms": {**design.arms, EXTRA_ARM: overrides},
            "cells": list(dict.fromkeys(cells)),
            "contrasts": [*design.contrasts, *contrasts],
        }
    )


def cost(claim: Claim, budget: BudgetName) -> Cost:
    """Return the planned cost of a check on an empty results folder.

    A run that two designs share is counted twice. Rates beyond the grid, which a check
    tries while the best rate is at an edge, are not counted.
    """
    runs = first_runs = 0
    seconds = first_seconds = 0.0
    limit = MAX_SMOKE_SECONDS if budget == "smoke" else inf
    for design in designs_for(claim, budget).values():
        looks = looks_for(design, budget)
        rates = len(set(design.rates)) if budget == "full" else 1
        of_a_seed = len(design.all_cells()) * rates
        run_seconds = min(design.seconds, limit)
        runs += of_a_seed * looks[-1]
        first_runs += of_a_seed * looks[0]
        seconds += of_a_seed * looks[-1] * run_seconds
        first_seconds += of_a_seed * looks[0] * run_seconds
    return Cost(runs, seconds, first_runs, first_seconds)


def _uncounted(claim: Claim, counted: ModelCensus | None) -> list[str]:
    """Return a caveat if the claim has census rules, but the models are not counted."""
    if not claim.census or counted is not None:
        return []
    names = "; ".join(rule.name for rule in claim.census)
    return [f"only a full check counts models, for the census rules: {names}"]


def _caveats(claim: Claim, trial: Trial, designs: Sequence[DesignVerdict]) -> list[str]:
    """Return what limits the verdict, one sentence each."""
    budget = trial.request.budget
    cells = [cell for design in designs for cell in design.cells]
    caveats = []
    if budget != "full":
        frozen = sum(cell.frozen for cell in cells)
        caveats.append(
            f"budget {budget}: one learning rate a cell, that of a full check for "
            f"{frozen} of {len(cells)} cells, the middle of the grid for the rest"
        )
        left_out = _left_out(claim, trial.designs)
        if left_out:
            caveats.append(
                f"budget {budget} leaves out {len(left_out)} contrasts that bear on a "
                f"part: {'; '.join(left_out)}"
            )
    if first := trial.request.first_seed:
        caveats.append(
            f"a repetition with the seeds {first}, {first + 1}, ..; the registered "
            "check begins at seed 0"
        )
    at_edge = [
        f"{design.name} {cell.cell}"
        for design in designs
        for cell in design.cells
        if cell.at_edge
    ]
    if at_edge:
        caveats.append(
            f"the best rate is at an edge of what was tried for {', '.join(at_edge)}"
        )
    return [*caveats, *run_caveats(trial)]


def run_caveats(trial: Trial) -> list[str]:
    """Return a sentence on failed runs, and a sentence on runs of other code."""
    records, caveats = trial.records.values(), []
    failed = sum(record.status == "failed" for record in records)
    if failed:
        caveats.append(f"{failed} of {len(records)} runs failed; `normbench status`")
    stale = sum(
        not comes_from_this_code(record, trial.request.rounds.modules)
        for record in records
    )
    if stale:
        caveats.append(f"{stale} of {len(records)} runs come from other code than this")
    return caveats


def _left_out(claim: Claim, designs: Mapping[str, Design]) -> list[str]:
    """Return the primary contrasts of `claim` that the smaller `designs` lack."""
    remaining = {
        (name, contrast.name)
        for name, design in designs.items()
        for contrast in design.contrasts
    }
    return [
        f"{name}, {contrast.name}"
        for name, design in claim.designs().items()
        for contrast in design.contrasts
        if contrast.primary and (name, contrast.name) not in remaining
    ]


def write_verdict(
    verdict: Verdict,
    results: Path,
    folder: Path,
    counted: ModelCensus | None = None,
) -> Path:
    """Write the verdict to `folder`; for a full check, also the records of its runs.

    `counted` has the models that the check counted; they are written too. A check that
    was repeated with other seeds saves only its verdict, in a file of its own. Returns
    the path of the verdict. Raises NormbenchError if a file cannot be written.
    """
    smaller = f".{verdict.budget}" if verdict.budget != "full" else ""
    repeated = f".seeds-{verdict.first_seed}" if verdict.first_seed else ""
    path = folder / f"verdict{smaller}{repeated}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not smaller and not repeated:
            records = (
                store.read(store.run_folder(results, run)) for run in verdict.run_ids
            )
            store.write_compact(folder / RECORDS, [r for r in records if r is not None])
        if counted is not None and not repeated:
            census.write(folder / census.FILE, counted)
        write_atomically(path, as_recorded(verdict))
    except OSError as error:
        raise NormbenchError(f"{path} cannot be written: {error.strerror}") from None
    return path


def write_items(verdict: Verdict, results: Path, folder: Path) -> tuple[Path, int]:
    """Write the results of all test samples of the runs of a verdict to `folder`.

    Returns the path of the file, and how many runs are in it: runs that diverged and
    runs of older versions have no such results. Raises NormbenchError if the file
    cannot be written, and Unreadable if the results of a run cannot be read.
    """
    runs = {}
    for run_id in verdict.run_ids:
        run_folder = store.run_folder(results, run_id)
        if (run_folder / items.ITEMS).exists():
            runs[run_id] = items.read(run_folder)
    path = folder / items.ITEMS
    try:
        items.write_all(path, runs)
    except OSError as error:
        raise NormbenchError(f"{path} cannot be written: {error.strerror}") from None
    return path, len(runs)
