"""A claim from its registration to its verdict."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from pathlib import Path

from normbench.claims import theorems
from normbench.claims.census import Census, census
from normbench.claims.trial import Request, Trial, kept, seeds_of
from normbench.config.choices import choices
from normbench.data.base import REGISTRY as DATA
from normbench.errors import NormbenchError, RequestError
from normbench.records import store
from normbench.records.source import comes_from_this_code
from normbench.system.atomic import write_atomically
from normbench.verdicts import judging
from normbench.verdicts.contrasts import weights_of
from normbench.verdicts.files import as_recorded
from normbench.verdicts.registration import (
    BudgetName,
    Claim,
    Design,
    arm_of,
    level_of,
)
from normbench.verdicts.verdict import (
    Rate,
    Verdict,
)

EVALUATION_AND_START_UP = 1.17
"""A measured factor: the cost of a whole run over the seconds of its training."""
SMOKE_SECONDS = 3.0
"""Ten steps and their evaluation take no longer."""
RECORDS = "records.jsonl.gz"
"""The file of the records that a full check rests on, beside its verdict."""
EXTRA = "extra"
"""The name of an arm that is not registered."""


@dataclass(frozen=True)
class Cost:
    """Runs of a check as if none were finished, and their core seconds."""

    tuning_runs: int
    test_runs: int
    core_seconds: float


def prepare(claim: Claim, request: Request, arm: str | None = None) -> Trial:
    """The runs of a check, before any is done; `arm` adds one to each outcome.

    Raises RequestError if a design cannot be composed, or a theorem is unknown.
    """
    for theorem in claim.theorems:
        theorems.statement(theorem.check)
    designs = kept(claim, request.budget)
    if arm:
        for name in claim.outcomes.keys() & designs.keys():
            designs[name] = with_arm(designs[name], arm)
    return Trial(designs, request)


def check(claim: Claim, trial: Trial, command: str) -> Verdict:
    """Do the missing runs of `claim` and judge it; `command` repeats the check."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    tested = trial.request.budget != "smoke"
    checked = []
    for theorem in claim.theorems:
        found = theorems.check(theorem.check)
        statement = theorems.statement(theorem.check)
        checked.append(
            judging.judge_theorem(
                theorem, statement, found.deviation, found.control, found.detail
            )
        )
    rates = trial.rates()
    cells = trial.cells(rates)
    designs = [
        judging.judge_design(
            name,
            design,
            cells[name],
            rates[name],
            trial.skipped[name],
            claim.alpha,
            tested=tested,
        )
        for name, design in trial.designs.items()
    ]
    models = census() if claim.census and tested else Census({}, {})
    return judging.make_verdict(
        claim,
        budget=trial.request.budget,
        designs=designs,
        theorems=checked,
        caveats=_caveats(claim, trial, rates),
        census=models.counts,
        census_failures=models.not_built,
        run_ids=sorted(trial.records),
        command=command,
        started=started,
        environment=judging.environment_of(
            trial.records.values(),
            {name: DATA.get(name).packages for name in DATA.names()},
        ),
    )


def with_arm(design: Design, overrides: str) -> Design:
    """`design` with one more arm, and exploratory contrasts of it.

    Each repeats a primary contrast, with the new arm in the place of the arm that has
    the first largest weight.
    """
    if EXTRA in design.arms:
        raise RequestError(f"an arm is called {EXTRA!r}; rename it to use --arm")
    contrasts, cells = [], design.all_cells()
    for contrast in design.contrasts:
        if not contrast.primary:
            continue
        weights = weights_of(contrast, design)
        about = arm_of(max(weights, key=lambda cell: weights[cell]))
        new = {
            f"{EXTRA}@{level_of(cell)}" if arm_of(cell) == about else cell: weight
            for cell, weight in weights.items()
        }
        changes = {
            "name": f"{contrast.name}, with {overrides} for {about}",
            "weights": new,
            "slope": None,
            "primary": False,
            "exploratory": True,
        }
        contrasts.append(contrast.model_copy(update=changes))
        cells = [*cells, *(cell for cell in new if arm_of(cell) == EXTRA)]
    return design.model_copy(
        update={
            "arms": {**design.arms, EXTRA: overrides},
            "cells": list(dict.fromkeys(cells)),
            "contrasts": [*design.contrasts, *contrasts],
        }
    )


def cost(claim: Claim, budget: BudgetName) -> Cost:
    """What a check costs on an empty results folder.

    A run that two designs share is counted twice. Further rates, which a check tries
    while the best one is at an edge, are not counted.
    """
    tuning = test = 0
    seconds = 0.0
    limit = SMOKE_SECONDS if budget == "smoke" else inf
    for design in kept(claim, budget).values():
        cells = len(design.all_cells())
        rates = len(design.rates) if budget == "full" and len(design.rates) > 1 else 0
        tuning_runs = cells * rates * design.tuning_seeds
        test_runs = cells * seeds_of(design, budget)
        tuning, test = tuning + tuning_runs, test + test_runs
        seconds += (tuning_runs + test_runs) * min(design.seconds, limit)
    return Cost(tuning, test, seconds * EVALUATION_AND_START_UP)


def require_committed(name: str, config_dir: Path | None) -> None:
    """Raise RequestError unless the yaml of a claim is committed to git, unchanged.

    The yaml of an installed package passes.
    """
    path = choices("claim", config_dir)[name].resolve()
    if path.is_relative_to(Path(__file__).parents[1]):
        return

    def git(*arguments: str) -> bool:
        words = ["git", "-C", str(path.parent), *arguments]
        try:
            return subprocess.run(words, capture_output=True).returncode == 0
        except OSError:
            return False

    tracked = git("ls-files", "--error-unmatch", path.name)
    if not tracked or not git("diff", "--quiet", "HEAD", "--", path.name):
        raise RequestError(
            f"{path} is not committed as it stands; a full check needs a registration "
            "that was fixed before its runs: commit it, or use --budget quick"
        )


def _caveats(
    claim: Claim, trial: Trial, rates: Mapping[str, Mapping[str, Rate]]
) -> list[str]:
    budget, records = trial.request.budget, trial.records.values()
    all_rates = [rate for cells in rates.values() for rate in cells.values()]
    caveats = []
    if budget != "full":
        frozen = sum(rate.frozen for rate in all_rates)
        caveats.append(
            f"budget {budget}: learning rates are those of a full check for "
            f"{frozen} of {len(all_rates)} cells, the middle of the grid for the rest"
        )
        left_out = _left_out(claim, trial.designs)
        if left_out:
            caveats.append(
                f"budget {budget} leaves out {len(left_out)} primary contrasts: "
                + "; ".join(left_out)
            )
    at_edge = [c for cells in rates.values() for c, r in cells.items() if r.at_edge]
    if at_edge:
        caveats.append(
            f"the best rate is at an edge of what was tried for {', '.join(at_edge)}"
        )
    failed = sum(record.status == "failed" for record in records)
    if failed:
        caveats.append(f"{failed} of {len(records)} runs failed; `normbench status`")
    stale = sum(
        not comes_from_this_code(record, trial.request.results.modules)
        for record in records
    )
    if stale:
        caveats.append(f"{stale} of {len(records)} runs come from other code than this")
    return caveats


def _left_out(claim: Claim, designs: Mapping[str, Design]) -> list[str]:
    """The primary contrasts of `claim` that the smaller `designs` do not have."""
    kept = {(name, c.name) for name, each in designs.items() for c in each.contrasts}
    return [
        f"{name}, {contrast.name}"
        for name, design in claim.designs().items()
        for contrast in design.contrasts
        if contrast.primary and (name, contrast.name) not in kept
    ]


def restore_records(folder: Path, results: Path) -> None:
    """Turn the records beside a full check's verdict in `folder` into finished runs.

    Raises RequestError if there are none.
    """
    path = folder / RECORDS
    if not path.is_file():
        raise RequestError(
            f"{path} is not there: no full check has left records; leave out "
            "--from-records to do the runs"
        )
    store.restore(results, store.read_compact(path))


def write_verdict(verdict: Verdict, results: Path, folder: Path) -> Path:
    """Write the verdict to `folder`, and for a full check the records it rests on.

    Raises NormbenchError if the files cannot be written.
    """
    full = verdict.budget == "full"
    path = folder / ("verdict.json" if full else f"verdict.{verdict.budget}.json")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if full:
            runs = (store.read(store.run_folder(results, i)) for i in verdict.run_ids)
            store.write_compact(folder / RECORDS, [r for r in runs if r is not None])
        write_atomically(path, as_recorded(verdict))
    except OSError as error:
        raise NormbenchError(f"{path} cannot be written: {error.strerror}") from None
    return path
