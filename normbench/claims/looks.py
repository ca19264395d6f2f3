"""Do the runs of designs look by look, until every contrast is settled."""

from collections.abc import Mapping

from normbench.claims.budgets import looks_for
from normbench.claims.trial import Cell, Trial
from normbench.config.schema import RunRecord
from normbench.verdicts.grid import Grid
from normbench.verdicts.judging import judge_design
from normbench.verdicts.settled import Settled, cells_in_use, settled_contrasts
from normbench.verdicts.spending import Looks
from normbench.verdicts.verdict import DesignVerdict


def judge_by_looks(
    trial: Trial, alpha: float, *, tested: bool = True
) -> list[DesignVerdict]:
    """Do the missing runs; return all designs before Holm's adjustment.

    In round r, each design has its r-th look. A settled contrast is not judged again,
    and a cell has no further seeds if all its contrasts are settled. A design without
    looks has one. At the first look, rates are added beyond an edge with the best mean
    of a cell; if further looks follow, rates that are clearly worse are dropped. Seeds
    beyond a look are not used, even if there are records of them, so the same records
    always give the same result.
    """
    planned = {
        name: looks_for(design, trial.request.budget)
        for name, design in trial.designs.items()
    }
    rounds = max(map(len, planned.values()), default=0)
    rates = trial.first_rates()
    grids: dict[Cell, Grid] = {}
    judged: dict[str, DesignVerdict] = {}
    settled: Settled = {name: {} for name in planned}
    for number in range(1, rounds + 1):
        in_use = {
            name: cells_in_use(trial.designs[name], settled[name].keys())
            for name, looks in planned.items()
            if number <= len(looks)
        }
        seeds = {
            (name, cell): planned[name][number - 1]
            for name, names in in_use.items()
            for cell in names
            if (name, cell) in rates
        }
        which = "" if rounds == 1 else f", look {number} of {rounds}"
        if number == 1:
            grids = _first_grids(trial, rates, seeds, f"seeds{which}")
            grids = {
                key: _without_worse(grid) if len(planned[key[0]]) > 1 else grid
                for key, grid in grids.items()
            }
        elif seeds:
            kept = {key: grids[key].kept for key in seeds}
            for key, runs in trial.runs(kept, seeds, f"seeds{which}").items():
                grids[key] = grids[key].with_runs(runs)
        for name in (name for name, names in in_use.items() if names):
            design, so_far = trial.designs[name], planned[name][:number]
            looks = Looks(so_far, planned[name][-1], design.spending)
            judged[name] = judge_design(
                name,
                design,
                {cell: grid for (of, cell), grid in grids.items() if of == name},
                trial.skipped[name],
                alpha,
                tested=tested,
                looks=looks if len(planned[name]) > 1 else None,
                frozen=settled[name],
            )
        settled = settled_contrasts(judged.values(), alpha)
    return list(judged.values())


def _first_grids(
    trial: Trial,
    rates: Mapping[Cell, list[float]],
    seeds: Mapping[Cell, int],
    what: str,
) -> dict[Cell, Grid]:
    """Do the runs of the first look.

    While the best of several rates of a cell is at an edge, one more rate beyond the
    edge is tried, at most `design.extend` times.
    """
    runs: dict[Cell, dict[float, dict[int, RunRecord]]] = {key: {} for key in seeds}
    new = {key: list(rates[key]) for key in seeds}
    while new:
        for key, by_rate in trial.runs(
            new, {key: seeds[key] for key in new}, what
        ).items():
            runs[key] = dict(sorted({**runs[key], **by_rate}.items()))
        new = {}
        for (name, cell), by_rate in runs.items():
            added = len(by_rate) - len(rates[name, cell])
            if len(by_rate) > 1 and added < trial.designs[name].extend:
                beyond = _beyond_edge(_grid(trial, (name, cell), by_rate))
                if beyond is not None:
                    new[name, cell] = [beyond]
    return {key: _grid(trial, key, by_rate) for key, by_rate in runs.items()}


def _grid(
    trial: Trial, key: Cell, runs: Mapping[float, Mapping[int, RunRecord]]
) -> Grid:
    validation = trial.designs[key[0]].validation
    return Grid(runs, validation, frozen=trial.is_frozen(*key))


def _beyond_edge(grid: Grid) -> float | None:
    """Return a rate beyond the edge if the best rate is at an edge, otherwise None."""
    lowest, highest = min(grid.runs), max(grid.runs)
    best = grid.best()
    if best == lowest:
        return lowest / 2
    return highest * 2 if best == highest else None


def _without_worse(grid: Grid) -> Grid:
    """Return the grid, with the clearly worse rates dropped."""
    return Grid(grid.runs, grid.validation, grid.clearly_worse(), grid.frozen)
