"""The committed records, judged again as if their claims had registered looks."""

from collections import Counter
from typing import Any

import pytest
from verdicts_made import CLAIMS, NAMES, committed

from normbench.claims.check import prepare
from normbench.claims.saved import SavedRuns
from normbench.claims.trial import Request, Trial
from normbench.config.schema import LocalEngine
from normbench.verdicts.judging import adjusted, judge_design
from normbench.verdicts.registration import Claim, read_claim
from normbench.verdicts.settled import Settled, settled_contrasts
from normbench.verdicts.spending import Looks
from normbench.verdicts.verdict import DesignVerdict

LOOKS, PLANNED = ((8,), (8, 16)), 32
"""The looks that the committed records have seeds for, of 8, 16, 24 and 32."""


def trial_of(claim: Claim) -> Trial:
    engine = LocalEngine(name="local", workers=1, timeout=None)
    return prepare(claim, Request(SavedRuns(CLAIMS / claim.name), "full", engine))


def judged_again(name: str) -> list[DesignVerdict]:
    """Return the designs of a claim after Holm's adjustment."""
    claim = read_claim(name)
    trial = trial_of(claim)
    rates = trial.rates()
    seeds = {
        (name, cell): design.seeds
        for name, design in trial.designs.items()
        for cell in design.all_cells()
    }
    cells: dict[str, dict[str, Any]] = {name: {} for name in trial.designs}
    for (name, cell), runs in trial.test_runs(rates, seeds).items():
        cells[name][cell] = runs
    judged: dict[str, DesignVerdict] = {}
    settled: Settled = {}
    for looks in LOOKS:
        for name, design in trial.designs.items():
            if looks[-1] <= design.seeds:
                judged[name] = judge_design(
                    name,
                    design,
                    cells[name],
                    rates[name],
                    trial.skipped[name],
                    claim.alpha,
                    looks=Looks(looks, PLANNED),
                    frozen=settled.get(name, {}),
                )
        settled = settled_contrasts(judged.values(), claim.alpha)
    return adjusted([*judged.values()], claim.alpha)


@pytest.mark.slow
def test_with_looks_most_committed_contrasts_are_settled_at_8_seeds() -> None:
    """The numbers are in docs/reading-a-verdict.md."""
    settled_at: Counter[int | None] = Counter()
    changed = []
    for name in NAMES:
        fixed = {
            (design.name, contrast.name): contrast.decision
            for design in committed(name).designs
            for contrast in design.contrasts
        }
        for design in judged_again(name):
            for contrast in design.contrasts:
                if contrast.primary and contrast.effect is not None:
                    settled_at[contrast.n if contrast.settled else None] += 1
                    before = fixed[design.name, contrast.name]
                    if contrast.settled and contrast.decision != before:
                        changed.append((name, contrast.name, before, contrast.decision))
    # The others had 8 or 16 seeds, and would go on to 24 and 32.
    assert settled_at == {8: 20, None: 10}
    assert changed == []
