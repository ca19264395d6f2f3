"""A claim from its registration to its verdict."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from normbench.claims import theorems
from normbench.claims.census import census
from normbench.claims.trial import Request, Trial, kept, seeds_of
from normbench.config.choices import choices
from normbench.data.base import REGISTRY as DATA
from normbench.errors import NormbenchError, RequestError
from normbench.records import store
from normbench.records.source import comes_from_this_code
from normbench.verdicts import judging
from normbench.verdicts.contrasts import weights_of
from normbench.verdicts.registration import (
    BudgetName,
    Claim,
    Design,
    arm_of,
    level_of,
    registration_hash,
)
from normbench.verdicts.verdict import Rate, Verdict, as_recorded

EVALUATION_AND_START_UP = 1.17
"""What a run costs beside its seconds, as a factor; measured."""
SMOKE_SECONDS = 3.0
"""Of ten steps and their evaluation, at most."""
RECORDS = "records.jsonl.gz"
"""The records that a full check rests on, beside its verdict."""
EXTRA = "extra"
"""The arm that a check is given beside the registered ones."""


@dataclass(frozen=True)
class Cost:
    """Runs of a check as if none were finished, and their core seconds."""

    tuning_runs: int
    test_runs: int
    core_seconds: float


def prepare(claim: Claim, request: Request, arm: str | None = None) -> Trial:
    """The runs of a check, before any is done; `arm` is one more, in each outcome.

    Raises RequestError where a design cannot be composed, or a theorem is unknown.
    """
    for theorem in claim.theorems:
        theorems.statement(theorem.check)
    designs = kept(claim, request.budget)
    if arm:
        designs |= {
            name: with_arm(design, arm)
            for name, design in designs.items()
            if name in claim.outcomes
        }
    return Trial(designs, request)


def check(claim: Claim, trial: Trial, command: str) -> Verdict:
    """Do what is missing of `claim` and judge it. `command` is how to say it again."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    budget = trial.request.budget
    findings = [
        judging.judge_theorem(
            theorem,
            theorems.statement(theorem.check),
            found.deviation,
            found.control,
            found.detail,
        )
        for theorem in claim.theorems
        for found in [theorems.check(theorem.check)]
    ]
    rates = trial.rates()
    cells = trial.cells(rates)
    judged = {
        name: judging.judge_design(
            name,
            design,
            cells[name],
            rates[name],
            trial.skipped[name],
            claim.alpha,
            tested=budget != "smoke",
        )
        for name, design in trial.designs.items()
    }
    models = census() if claim.census and budget != "smoke" else None
    return judging.make_verdict(
        claim,
        registration=registration_hash(claim),
        budget=budget,
        caveats=_caveats(claim, trial, rates),
        theorems=findings,
        mechanisms=[judged[name] for name in claim.mechanisms if name in judged],
        outcomes=[judged[name] for name in claim.outcomes if name in judged],
        census=models.counts if models else {},
        census_failures=models.not_built if models else {},
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

    They are the primary ones with this arm in the place of the one that each is about:
    that of its first largest weight.
    """
    if EXTRA in design.arms:
        raise RequestError(f"an arm is called {EXTRA!r}: --arm has no name left")
    contrasts = []
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
    added = [c for each in contrasts for c in each.weights or {} if arm_of(c) == EXTRA]
    return design.model_copy(
        update={
            "arms": {**design.arms, EXTRA: overrides},
            "cells": [*design.all_cells(), *dict.fromkeys(added)],
            "contrasts": [*design.contrasts, *contrasts],
        }
    )


def cost(claim: Claim, budget: BudgetName) -> Cost:
    """What a check costs on an empty results folder.

    Runs that designs share are counted for each; further rates, tried while the best is
    at an edge, are not.
    """
    tuning = test = 0
    seconds = 0.0
    for design in kept(claim, budget).values():
        cells = len(design.all_cells())
        of_rates = 0
        if budget == "full" and len(design.rates) > 1:
            of_rates = cells * len(design.rates) * design.tuning_seeds
        of_seeds = cells * seeds_of(design, budget)
        tuning, test = tuning + of_rates, test + of_seeds
        each = (
            min(design.seconds, SMOKE_SECONDS) if budget == "smoke" else design.seconds
        )
        seconds += (of_rates + of_seeds) * each
    return Cost(tuning, test, seconds * EVALUATION_AND_START_UP)


def require_committed(name: str, config_dir: Path | None) -> None:
    """Raise RequestError unless the yaml of a claim is in git as it stands.

    That of an installed package cannot be changed by hand, and passes.
    """
    path = choices("claim", config_dir)[name].resolve()
    if path.is_relative_to(Path(__file__).parents[1]):
        return

    def git(*arguments: str) -> bool:
        try:
            done = subprocess.run(
                ["git", "-C", str(path.parent), *arguments],
                capture_output=True,
                check=False,
            )
        except OSError:
            return False
        return done.returncode == 0

    tracked = git("ls-files", "--error-unmatch", path.name)
    if not tracked or not git("diff", "--quiet", "HEAD", "--", path.name):
        raise RequestError(
            f"{path} is not committed as it stands; a full check is of a registration "
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
    at_edge = [c for each in rates.values() for c, rate in each.items() if rate.at_edge]
    if at_edge:
        caveats.append(
            f"the best rate is at an edge of what was tried for {', '.join(at_edge)}"
        )
    failed = sum(each.status == "failed" for each in records)
    if failed:
        caveats.append(f"{failed} of {len(records)} runs failed; `normbench status`")
    stale = sum(
        not comes_from_this_code(each, trial.request.results.modules)
        for each in records
    )
    if stale:
        caveats.append(f"{stale} of {len(records)} runs come from other code than this")
    return caveats


def _left_out(claim: Claim, designs: Mapping[str, Design]) -> list[str]:
    done = {(name, c.name) for name, each in designs.items() for c in each.contrasts}
    return [
        f"{name}, {contrast.name}"
        for name, design in claim.designs().items()
        for contrast in design.contrasts
        if contrast.primary and (name, contrast.name) not in done
    ]


def restore_records(folder: Path, results: Path) -> None:
    """Make the records beside a full check's verdict in `folder` finished runs.

    Raises RequestError where there are none.
    """
    path = folder / RECORDS
    if not path.is_file():
        raise RequestError(
            f"{path} is not there: no full check has been done whose records could be "
            "taken; leave --from-records out to do the runs"
        )
    store.restore(results, store.read_compact(path))


def write_verdict(verdict: Verdict, results: Path, folder: Path) -> Path:
    """Write the verdict, and of a full check the records it rests on, to `folder`.

    Raises NormbenchError where that is not possible.
    """
    full = verdict.budget == "full"
    path = folder / ("verdict.json" if full else f"verdict.{verdict.budget}.json")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if full:
            found = (store.read(store.run_folder(results, i)) for i in verdict.run_ids)
            kept = [each for each in found if each is not None]
            store.write_compact(folder / RECORDS, kept)
        store.write_atomically(path, as_recorded(verdict))
    except OSError as error:
        raise NormbenchError(f"{path} cannot be written: {error.strerror}") from None
    return path
