"""scripts/simulate_race: a small simulation, and the committed one in the docs."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "simulate_race"))


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    plain = json.loads((ROOT / "docs" / "race.json").read_text(encoding="utf-8"))
    return dict(plain)


def test_the_table_of_the_docs_is_that_of_the_simulation(
    script: dict[str, Any], committed: dict[str, Any]
) -> None:
    page = (ROOT / "docs" / "comparing.md").read_text(encoding="utf-8")
    assert script["table"](committed) in page


def test_a_race_is_seldom_wrong(committed: dict[str, Any]) -> None:
    rows = committed["rows"]
    assert {row["arms"] for row in rows} == {3, 5, 8}
    assert all(row["races"] >= 2000 for row in rows)
    for row in rows:
        assert row["wrong"] <= 0.05 + 0.01, row
        assert row["best_dropped"] <= 0.02, row


def test_a_small_simulation_gives_similar_results(
    script: dict[str, Any], committed: dict[str, Any]
) -> None:
    situation = "each 1 worse than the one before"
    (row,) = script["simulated"](150, [situation], ["normal"], [5])
    (same,) = (
        other
        for other in committed["rows"]
        if (other["situation"], other["noise"], other["arms"])
        == (row.situation, row.noise, row.arms)
    )
    assert abs(row.found - same["found"]) < 0.15
    assert abs(row.test_runs_per_arm - same["test_runs_per_arm"]) < 1.5
    assert row.wrong < 0.1
