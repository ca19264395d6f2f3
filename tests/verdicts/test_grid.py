"""Rates are chosen for each seed from the runs of a cell at all rates."""

from collections.abc import Mapping

import numpy as np
import pytest
from verdicts_made import a_contrast, a_design, a_run

from normbench.config.schema import RunRecord
from normbench.verdicts.cells import summary
from normbench.verdicts.contrasts import judge
from normbench.verdicts.grid import Grid, best_common_rate, common_rates

RATES = (0.1, 0.2, 0.4)


def a_grid(validation: Mapping[float, list[float | None]], error: float = 0.1) -> Grid:
    """Return a grid; the test error at a rate is `error` plus the rate."""

    def record(lr: float, value: float | None) -> RunRecord:
        if value is None:
            return a_run(None, status="diverged")
        metrics = {"val/loss": value, "test/error": error + lr, "train/error": 0.05}
        return a_run(0.0).model_copy(update={"metrics": metrics})

    return Grid(
        {
            lr: {seed: record(lr, value) for seed, value in enumerate(values)}
            for lr, values in validation.items()
        },
        "val/loss",
    )


def test_the_other_seeds_choose_and_the_own_seed_does_not() -> None:
    lucky = [0.5, 0.5, 0.5, 0.0]
    grid = a_grid({0.1: lucky, 0.2: [0.45] * 4})
    assert grid.choice() == {0: 0.1, 1: 0.1, 2: 0.1, 3: 0.2}
    assert grid.choice("nested") == {0: 0.2, 1: 0.2, 2: 0.2, 3: 0.1}
    assert [run.metrics["test/error"] for run in grid.chosen_runs().values()] == (
        pytest.approx([0.2, 0.2, 0.2, 0.3])
    )


def test_a_rate_at_which_another_seed_diverged_is_not_chosen() -> None:
    grid = a_grid({0.1: [0.5] * 4, 0.2: [0.4, None, 0.4, 0.4]})
    # Only for seed 1 has no other seed diverged.
    assert grid.choice() == {0: 0.1, 1: 0.2, 2: 0.1, 3: 0.1}
    assert grid.best() == 0.1
    all_diverged = a_grid({0.1: [None] * 4, 0.2: [None] * 4})
    assert set(all_diverged.choice().values()) == {0.1}


def test_one_seed_and_one_rate_leave_no_choice() -> None:
    assert a_grid({0.1: [0.5], 0.2: [0.4]}).choice() == {0: 0.2}
    assert a_grid({0.3: [0.5, None]}).choice() == {0: 0.3, 1: 0.3}


def test_a_clearly_worse_rate_is_dropped_and_gets_no_seeds() -> None:
    noise = list(np.random.default_rng(0).normal(0, 0.01, 8))
    grid = a_grid(
        {
            0.1: [0.9 + x for x in noise],
            0.2: [0.5 - x for x in noise],
            0.4: [0.505 + x for x in noise],
        }
    )
    assert grid.clearly_worse() == {0.1}
    kept = Grid(grid.runs, grid.validation, frozenset({0.1}))
    more = {lr: {8: grid.runs[lr][0]} for lr in (0.2, 0.4)}
    longer = kept.with_runs(more)
    assert (longer.kept, longer.seeds) == ([0.2, 0.4], [*range(9)])
    assert len(longer.runs[0.1]) == 8
    assert longer.below(4).seeds == [0, 1, 2, 3]
    assert set(longer.choice()) == {*range(9)}


def test_the_best_common_rate_is_best_for_all_cells_together() -> None:
    one = a_grid({0.1: [1.0] * 3, 0.2: [1.1] * 3, 0.4: [9.0] * 3})
    other = a_grid({0.1: [5.0] * 3, 0.2: [4.0] * 3, 0.4: [3.9] * 3})
    assert common_rates([one, other]) == [0.1, 0.2, 0.4]
    assert best_common_rate([one, other]) == 0.2
    assert best_common_rate([one, a_grid({0.8: [1.0] * 3})]) is None


def test_the_summary_of_a_cell_has_its_curve_and_its_failures() -> None:
    grid = a_grid({0.1: [0.5] * 4, 0.2: [0.4] * 4, 0.4: [0.41, 0.41, 0.41, None]})
    design = a_design(validation="val/loss", rates=list(RATES))
    cell = summary("a@-", design, grid, None, 0.05)
    assert [(r.lr, r.n, r.validation, r.seeds) for r in cell.rates] == [
        (0.1, 4, 0.5, 0),
        (0.2, 4, 0.4, 4),
        (0.4, 4, None, 0),
    ]
    assert cell.rates[2].mean["test/error"] == pytest.approx((3 * 0.5 + 1) / 4)
    assert (cell.good, cell.at_edge, cell.usual_rate) == ([0.2], False, 0.2)
    assert (cell.untrained, cell.n) == (0, 4)
    broken = a_grid({0.2: [0.4, None, 0.4, 0.4]})
    cell = summary("a@-", design, broken, None, 0.05)
    assert (cell.untrained, cell.diverged) == (1, 1)
    # Clopper & Pearson's interval of 1 of 4.
    assert (cell.untrained_low, cell.untrained_high) == pytest.approx(
        (0.0063, 0.8059), abs=1e-4
    )


def test_estimates_beside_the_effect_do_not_decide() -> None:
    design = a_design(
        a_contrast("less", weights={"a@-": 1.0, "b@-": -1.0}), validation="val/loss"
    )
    a = a_grid({0.1: [0.3] * 8, 0.2: [0.5] * 8}, error=0.0)
    b = a_grid({0.1: [0.5] * 8, 0.2: [0.3] * 7 + [None]}, error=0.4)
    gate = {"a": True, "b": True}
    contrast = judge(
        design.contrasts[0], design, {"a@-": a, "b@-": b}, gate, 0.05, True
    )
    # Seven seeds choose .1 for b, where one seed diverged at .2; the last chooses .2.
    assert contrast.values["0"] == pytest.approx(0.1 - 0.5)
    assert contrast.values["7"] == pytest.approx(0.1 - 1.0)
    at_one = contrast.at_common_rate
    assert at_one["0.1"].effect == pytest.approx(-0.4)
    assert contrast.best_common_rate == "0.1"
    assert contrast.nested is not None
    assert contrast.nested.effect == pytest.approx((7 * (0.1 - 0.6) + 0.1 - 0.5) / 8)
    assert contrast.without_failures is not None
    assert contrast.without_failures.n == 7
