"""The simulation of looks, in small, and its numbers in the documents."""

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from simulations_made import tolerance

from normbench.report.figures import drawing

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    name = "simulate_looks"
    loader = SourceFileLoader(name, str(ROOT / "scripts" / name))
    spec = spec_from_loader(name, loader)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recorded(script: ModuleType) -> list[Any]:
    return list(script.read(ROOT / "docs" / "looks.json"))


def test_looks_do_not_make_more_wrong_decisions_than_a_fixed_test(
    script: ModuleType,
) -> None:
    replications = 2000
    rows = script.simulated(
        replications, ["normal"], questions=["direction"], effects=[0]
    )
    wrong = {row.design: row.wrong for row in rows}
    peeking = wrong.pop("peeking, 8 to 16")
    assert len(wrong) == 6
    for name, share in wrong.items():
        assert share <= 0.055 + tolerance(0.05, replications), name
    assert peeking > 0.055 + tolerance(0.05, replications)


def test_a_decided_comparison_needs_no_further_seeds(script: ModuleType) -> None:
    rows = script.simulated(300, ["normal"], questions=["less"], effects=[1.5])
    by_name = {row.design: row for row in rows}
    assert by_name["fixed, 16"].seeds == 16
    assert by_name["Pocock, 8 to 32"].seeds < by_name["O'Brien-Fleming, 8 to 32"].seeds
    assert by_name["Pocock, 8 to 32"].decided == 1


def test_the_recorded_simulation_is_precise_and_within_its_limit(
    recorded: list[Any],
) -> None:
    null = [
        row
        for row in recorded
        if (row.law, row.question, row.effect) == ("normal", "direction", 0)
    ]
    for row in null:
        assert row.replications >= 10_000
        if not row.design.startswith("peeking"):
            assert row.wrong <= 0.05 + 0.005, row.design
    assert len(null) == 7


def test_the_table_and_the_figure_show_the_recorded_simulation(
    script: ModuleType, recorded: list[Any]
) -> None:
    page = (ROOT / "docs" / "reading-a-verdict.md").read_text()
    assert script.table(recorded) in page
    assert f"{recorded[0].replications:,} comparisons each" in page
    (peeking,) = (
        row
        for row in recorded
        if row.design.startswith("peeking")
        and (row.law, row.question, row.effect) == ("normal", "direction", 0)
    )
    assert f"{100 * peeking.wrong:.0f} % of the time" in page
    drawn = drawing.svg(script.picture(recorded))
    shown = (ROOT / "docs" / "looks.svg").read_text()
    for name in script.DESIGNS:
        assert name.replace("'", "&#39;") in drawn.replace("'", "&#39;")
        assert name in shown
