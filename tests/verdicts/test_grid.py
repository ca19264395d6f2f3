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


def test_all_seeds_together_choose_one_rate() -> None:
    lucky = [0.5, 0.5, 0.5, 0.35]
    grid = a_grid({0.1: lucky, 0.2: [0.45] * 4})
    assert grid.choice() == dict.fromkeys(range(4), 0.2)
    assert grid.choice("nested") == {0: 0.2, 1: 0.2, 2: 0.2, 3: 0.1}
    assert [run.metrics["test/error"] for run in grid.chosen_runs().values()] == (
        pytest.approx([0.3] * 4)
    )


def test_a_rate_at_which_a_seed_diverged_is_not_chosen() -> None:
    grid = a_grid({0.1: [0.5] * 4, 0.2: [0.4, None, 0.4, 0.4]})
    assert set(grid.choice().values()) == {0.1}
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
    assert longer.first(4).seeds == [0, 1, 2, 3]
    assert set(longer.choice()) == {*range(9)}


def test_a_look_has_the_first_seeds_wherever_they_begin() -> None:
    runs = a_grid({0.1: [0.5] * 4, 0.2: [0.4] * 4}).runs
    shifted = {lr: {s + 1000: r for s, r in of.items()} for lr, of in runs.items()}
    grid = Grid(shifted, "val/loss")
    assert grid.first(3).seeds == [1000, 1001, 1002]
    assert grid.first(None).seeds == grid.seeds


def test_the_best_common_rate_is_best_for_all_cells_together() -> None:
    one = a_grid({0.1: [1.0] * 3, 0.2: [1.1] * 3, 0.4: [9.0] * 3})
    other = a_grid({0.1: [5.0] * 3, 0.2: [4.0] * 3, 0.4: [3.9] * 3})
    assert common_rates([one, other]) == [0.1, 0.2, 0.4]
    assert best_common_rate([one, other]) == 0.2
    assert best_common_rate([one, a_grid({0.8: [1.0] * 3})]) is None


def test_a_cell_with_large_metrics_does_not_choose_the_common_rate_alone() -> None:
    large = a_grid({0.1: [2.0] * 3, 0.2: [2.1] * 3})
    small = a_grid({0.1: [0.02] * 3, 0.2: [0.01] * 3})
    assert best_common_rate([large, small]) == 0.2
    without_loss = a_grid({0.1: [0.0] * 3, 0.2: [1.0] * 3})
    assert best_common_rate([large, without_loss]) == 0.1


def test_a_dropped_rate_is_not_the_best_when_a_later_seed_diverges() -> None:
    first = a_grid({0.1: [0.5] * 4, 0.2: [0.6] * 4, 0.4: [0.9] * 4})
    grid = Grid(first.runs, first.validation, frozenset({0.4}))
    diverged = a_run(None, status="diverged")
    grid = grid.with_runs({0.1: {4: diverged}, 0.2: {4: diverged}})
    assert set(grid.choice().values()) == {grid.best()} == {0.1}
    design = a_design(validation="val/loss", rates=list(RATES))
    cell = summary("a@-", design, grid, None, 0.05)
    assert (cell.good, cell.at_edge) == ([], True)


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
    # b does not get the rate .2, at which one seed diverged.
    assert list(contrast.values.values()) == pytest.approx([0.1 - 0.5] * 8)
    at_one = contrast.at_common_rate
    assert at_one["0.1"].effect == pytest.approx(-0.4)
    assert contrast.best_common_rate == "0.1"
    assert contrast.nested is not None
    assert contrast.nested.effect == pytest.approx((7 * (0.1 - 0.6) + 0.1 - 0.5) / 8)
    assert contrast.without_failures is None
    only = a_grid({0.2: [0.3] * 7 + [None]}, error=0.4)
    grids = {"a@-": a, "b@-": only}
    contrast = judge(design.contrasts[0], design, grids, gate, 0.05, True)
    assert contrast.values["7"] == pytest.approx(0.1 - 1.0)
    assert contrast.without_failures is not None
    assert contrast.without_failures.n == 7


def test_a_rate_that_is_the_best_on_a_seed_or_only_just_worse_is_kept() -> None:
    noise = list(np.random.default_rng(0).normal(0, 0.01, 8))
    base = [0.5 + x for x in noise]
    best_once = [0.9, *[0.9 + x for x in noise[1:]]]
    best_once[0] = base[0] - 0.1
    assert a_grid({0.1: best_once, 0.2: base}).clearly_worse() == set()
    # Worse on every seed, but by less than three standard errors.
    vague = [x + 0.001 for x in base[:-1]] + [base[-1] + 1.0]
    assert a_grid({0.1: vague, 0.2: base}).clearly_worse() == set()
    # A run that diverged is worse; on the other seeds, the rate must be worse too.
    equal = [*base[:-1], None]
    diverged = [*vague[:-1], None]
    assert a_grid({0.1: equal, 0.2: base}).clearly_worse() == set()
    assert a_grid({0.1: diverged, 0.2: base}).clearly_worse() == {0.1}
    assert a_grid({0.1: diverged, 0.2: diverged}).clearly_worse() == set()


def test_a_metric_that_its_task_maximizes_is_the_best_where_it_is_highest() -> None:
    grid = a_grid({0.1: [0.5] * 4, 0.2: [0.9] * 4, 0.4: [0.6] * 4})
    maximized = Grid(
        {
            lr: {
                seed: record.model_copy(
                    update={"direction": "maximize", "primary_metric": "test/loss"}
                )
                for seed, record in runs.items()
            }
            for lr, runs in grid.runs.items()
        },
        "val/loss",
    )
    assert (grid.best(), maximized.best()) == (0.1, 0.2)
    assert set(maximized.choice().values()) == {0.2}
    assert set(maximized.choice("nested").values()) == {0.2}
    assert maximized.clearly_worse() == {0.1, 0.4}
    assert best_common_rate([maximized, maximized]) == 0.2
    design = a_design(validation="val/loss", rates=list(RATES))
    assert summary("a@-", design, maximized, None, 0.05).good == [0.2]
    diverged = maximized.with_runs({0.2: {3: a_run(None, status="diverged")}})
    assert diverged.best() == 0.4


def test_the_best_rate_at_an_edge_is_marked_unless_it_is_the_only_one() -> None:
    design = a_design(validation="val/loss", rates=list(RATES))
    for validation, at_edge in (
        ({0.1: [0.4] * 4, 0.2: [0.5] * 4, 0.4: [0.6] * 4}, True),
        ({0.1: [0.5] * 4, 0.2: [0.4] * 4, 0.4: [0.6] * 4}, False),
        ({0.1: [0.5] * 4, 0.2: [0.45] * 4, 0.4: [0.4] * 4}, True),
        ({0.1: [0.5] * 4}, False),
    ):
        cell = summary("a@-", design, a_grid(validation), None, 0.05)
        assert cell.at_edge == at_edge, validation


def test_one_rate_has_no_estimates_beside_the_effect() -> None:
    design = a_design(validation="val/loss")
    grids = {"a@-": a_grid({0.1: [0.3] * 8}), "b@-": a_grid({0.1: [0.3] * 8}, 0.4)}
    gate = {"a": True, "b": True}
    (contrast,) = design.contrasts
    judged = judge(contrast, design, grids, gate, 0.05, True)
    assert judged.effect == pytest.approx(-0.3)
    assert (judged.nested, judged.at_common_rate) == (None, {})
    assert (judged.best_common_rate, judged.best_common) == (None, None)
    assert judged.without_failures is None


def test_a_run_that_misses_the_gate_counts_as_a_failure_of_its_own() -> None:
    design = a_design(validation="val/loss")
    a, b = a_grid({0.1: [0.3] * 8}), a_grid({0.1: [0.3] * 8}, 0.4)
    untrained = a.runs[0.1][2].model_copy(
        update={
            "metrics": {"val/loss": 0.3, "test/error": 0.9, "train/error": 0.9},
        }
    )
    a = a.with_runs({0.1: {2: untrained}})
    gate = {"a": True, "b": True}
    (contrast,) = design.contrasts
    judged = judge(contrast, design, {"a@-": a, "b@-": b}, gate, 0.05, True)
    assert judged.n == 8
    assert judged.effect == pytest.approx((7 * -0.3 + 0.4) / 8)
    assert judged.without_failures is not None
    assert judged.without_failures.n == 7
    assert judged.without_failures.effect == pytest.approx(-0.3)
    cell = summary("a@-", design, a, None, 0.05)
    assert (cell.untrained, cell.diverged, cell.failed) == (1, 0, 0)
