"""The simulation of ways to choose a rate, in small, and its numbers in the docs."""

import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from simulations_made import tolerance

from normbench.report.figures import drawing

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    name = "simulate_method"
    loader = SourceFileLoader(name, str(ROOT / "scripts" / name))
    spec = spec_from_loader(name, loader)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def recorded(script: ModuleType) -> tuple[list[Any], list[Any]]:
    intervals, claims = script.read(ROOT / "docs" / "method.json")
    return intervals, claims


def within(share: float, low: float, high: float, replications: int) -> bool:
    """Return whether `share` is in (low, high), up to two standard errors."""
    error = tolerance(share, replications) / 2
    return low - error <= share <= high + error


def test_t_intervals_of_pooled_rates_have_the_promised_coverage(
    recorded: tuple[list[Any], list[Any]],
) -> None:
    pooled = [
        row for row in recorded[0] if (row.choosing, row.interval) == ("pooled", "t")
    ]
    assert len(pooled) == 4 * 2 * 4  # situations, laws, numbers of seeds
    for row in pooled:
        assert row.replications >= 2000
        assert within(row.coverage, 0.93, 0.97, row.replications), row


def test_t_intervals_of_other_ways_miss_it_somewhere(
    recorded: tuple[list[Any], list[Any]],
) -> None:
    for how in ("nested", "cross_fitted", "curve"):
        lowest = min(
            row.coverage
            for row in recorded[0]
            if (row.choosing, row.interval) == (how, "t")
        )
        assert lowest < 0.92, how


def test_claims_with_pooled_rates_are_seldom_wrong_and_find_a_margin(
    recorded: tuple[list[Any], list[Any]],
) -> None:
    pooled = [row for row in recorded[1] if row.choosing == "pooled" and row.dropping]
    assert len(pooled) == 4 * 2 * 2 + 2
    for row in pooled:
        assert row.replications >= 1000
        assert within(row.wrong, 0, 0.06, row.replications), row
        assert within(row.coverage, 0.93, 1, row.replications), row
        if row.effect == 1:
            assert within(row.confirmed, 0.8, 1, row.replications), row


def test_the_page_shows_the_recorded_simulation(
    script: ModuleType, recorded: tuple[list[Any], list[Any]]
) -> None:
    page = (ROOT / "docs" / "choosing-rates.md").read_text()
    assert script.interval_table(recorded[0]) in page
    assert script.claim_table(recorded[1]) in page
    shown = (ROOT / "docs" / "method.svg").read_text()
    for way in ("nested", "cross-fitted", "pooled", "curve"):
        assert way in drawing.svg(script.picture(recorded[0]))
        assert way in shown


def test_made_up_runs_are_equally_good_at_their_best_rates(script: ModuleType) -> None:
    runs = sys.modules["_made_runs"]
    rng = np.random.default_rng(0)
    arms = [runs.Arm(), runs.Arm(0.09, 1.3, failures=0.02)]
    for arm in runs.draw(rng, arms, runs.normal, 40, 500):
        expected = arm.expected[np.arange(40), arm.best]
        assert expected == pytest.approx(runs.ERROR)
        errors = arm.error.mean(axis=1)
        assert errors == pytest.approx(arm.expected, rel=0.4)
        assert errors[np.arange(40), arm.best].mean() == pytest.approx(0.05, rel=0.02)


def test_a_resample_of_every_seed_once_is_the_sample(script: ModuleType) -> None:
    runs, intervals = sys.modules["_made_runs"], sys.modules["_made_intervals"]
    (arm,) = runs.draw(np.random.default_rng(0), [runs.Arm()], runs.normal, 1, 9)
    validation, errors = arm.validation[0], arm.error[0]
    for how in script.WAYS:
        index = script.chosen(validation, runs.RATES, how)
        mean = intervals.log_values(intervals.at_rates(errors, index)).mean()
        (same,) = intervals.resampled(validation, errors, np.ones((1, 9)), how)
        assert same == pytest.approx(mean)


@pytest.mark.slow
def test_a_small_simulation_gives_the_recorded_results(
    script: ModuleType, recorded: tuple[list[Any], list[Any]]
) -> None:
    keys = ("situation", "law", "seeds", "choosing", "interval")
    known = {tuple(getattr(row, key) for key in keys): row for row in recorded[0]}
    for row in script.covered(600, ["steeper, failing"], seeds=[24]):
        expected = known[tuple(getattr(row, key) for key in keys)].coverage
        allowed = tolerance(expected, row.replications) + 0.02
        assert abs(row.coverage - expected) < allowed, row
    (old,) = (
        row
        for row in recorded[1]
        if (row.situation, row.law, row.effect) == ("steeper", "normal", 1)
    )
    new = script.claims(200, "steeper", "normal", "pooled", True, 1.0)
    assert abs(new.confirmed - old.confirmed) < 0.12
    assert new.wrong < 0.05 + tolerance(0.05, 200)
    assert new.saved == pytest.approx(old.saved, abs=0.03)
