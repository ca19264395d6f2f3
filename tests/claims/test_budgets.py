"""The budgets of the registered claims: what they run, and what that costs."""

import copy
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from checks_made import planned
from claims_made import TINY, put
from verdicts_made import CLAIMS
from verdicts_made import NAMES as JUDGED

from normbench.claims.budgets import designs_for, looks_for
from normbench.claims.check import RECORDS, cost
from normbench.config.choices import choices
from normbench.config.identity import run_id
from normbench.records.store import read_compact
from normbench.verdicts.registration import BUDGETS, BudgetName, read_claim

NAMES = sorted(choices("claim"))
planned_once = cache(planned)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "budget",
    [
        pytest.param(budget, marks=pytest.mark.slow if budget == "full" else [])
        for budget in BUDGETS
    ],
)
def test_every_cell_of_every_budget_composes_and_works(
    name: str, budget: BudgetName
) -> None:
    composed = planned_once(name, budget)
    assert composed.designs
    assert not any(composed.skipped.values())
    for design, each in composed.designs.items():
        assert each.contrasts
        configs = [composed.config(design, c, 0.1, 3) for c in each.all_cells()]
        assert {(config.lr, config.seed) for config in configs} == {(0.1, 3)}
        ids = {run_id(config) for config in configs}
        assert budget == "smoke" or len(ids) == len(configs), design
        if budget == "smoke":
            assert {config.budget.max_steps for config in configs} == {10}


def test_a_smaller_budget_is_a_part_of_the_full_check() -> None:
    smaller: tuple[BudgetName, ...] = ("smoke", "quick")
    for name in NAMES:
        claim = read_claim(name)
        full = designs_for(claim, "full")
        for budget in smaller:
            less = designs_for(claim, budget)
            for key, design in less.items():
                cells = set(design.all_cells())
                assert cells <= set(full[key].all_cells()), (name, budget)
                names = {contrast.name for contrast in full[key].contrasts}
                assert {c.name for c in design.contrasts} <= names, (name, budget)
                for contrast in design.contrasts:
                    assert set(contrast.weights or {}) <= cells, (name, budget)
            assert any(c.primary for d in less.values() for c in d.contrasts)
            cheaper = cost(claim, budget).core_seconds
            assert cheaper < cost(claim, "full").core_seconds, (name, budget)


def test_the_planned_cost_of_each_budget_is_bounded() -> None:
    """Registered plan on two cores: at most 90 minutes a claim in full."""
    minutes = {
        budget: {
            name: cost(read_claim(name), budget).core_seconds / 2 / 60 for name in NAMES
        }
        for budget in BUDGETS
    }
    assert max(minutes["full"].values()) < 90
    assert sum(minutes["quick"].values()) < 45
    assert sum(minutes["smoke"].values()) < 3


@pytest.mark.slow
def test_full_checks_of_all_claims_take_at_most_eight_hours() -> None:
    """Full checks on two cores, where claims share runs.

    A claim with a verdict needs the runs beside it: a new check does the same ones.
    Another claim needs its whole plan at most, with all looks and rates.
    """
    records = {
        record.run_id: record
        for name in JUDGED
        for record in read_compact(CLAIMS / name / RECORDS)
    }
    done = Counter(
        run_id(record.config.model_copy(update={"lr": 0.1, "seed": 3}))
        for record in records.values()
    )
    seconds: dict[str, float] = {}
    for name in NAMES:
        composed = planned_once(name, "full")
        for key, design in composed.designs.items():
            plan = len(design.rates) * looks_for(design, "full")[-1]
            for cell in design.all_cells():
                shared = run_id(composed.config(key, cell, 0.1, 3))
                runs = done[shared] if name in JUDGED else max(plan, done[shared])
                assert runs, (name, key, cell)
                seconds[shared] = max(seconds.get(shared, 0.0), runs * design.seconds)
    assert sum(seconds.values()) / 2 / 3600 < 8


def test_overrides_of_a_budget_win_over_those_of_cells(tmp_path: Path) -> None:
    plain = copy.deepcopy(TINY)
    plain["outcomes"]["digits"]["levels"]["2"] += " budget.max_steps=500"
    plain["quick"]["digits"]["overrides"] = "budget.max_steps=50"
    put(plain, tmp_path)
    steps = {
        budget: planned("tiny", budget, tmp_path)
        .config("digits", "a@2", 0.1, 0)
        .budget.max_steps
        for budget in BUDGETS
    }
    assert steps == {"full": 500, "quick": 50, "smoke": 10}


def test_seeds_are_those_of_the_budget() -> None:
    design = read_claim("batch-size-dependence").outcomes["norm_batch"]
    assert [looks_for(design, budget) for budget in BUDGETS] == [
        (1,),
        (6,),
        (8, 12, 16, 24),
    ]
