"""Do the test runs of designs look by look, until every contrast is settled."""

from collections.abc import Mapping

from normbench.claims.budgets import looks_for
from normbench.claims.trial import Trial
from normbench.config.schema import RunRecord
from normbench.verdicts.judging import judge_design
from normbench.verdicts.settled import Settled, cells_in_use, settled_contrasts
from normbench.verdicts.spending import Looks
from normbench.verdicts.verdict import DesignVerdict, Rate


def judge_by_looks(
    trial: Trial,
    rates: Mapping[str, Mapping[str, Rate]],
    alpha: float,
    *,
    tested: bool = True,
) -> list[DesignVerdict]:
    """Do the missing test runs at `rates`; return all designs before Holm's adjustment.

    In round r, each design has its r-th look. A settled contrast is not judged again,
    and a cell has no further seeds if all its contrasts are settled. A design without
    looks has one. Seeds beyond a look are not used, even if there are records of them,
    so the same records always give the same result.
    """
    planned = {
        name: looks_for(design, trial.request.budget)
        for name, design in trial.designs.items()
    }
    rounds = max(map(len, planned.values()), default=0)
    cells: dict[str, dict[str, dict[int, RunRecord]]] = {name: {} for name in planned}
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
        }
        if not seeds:
            continue
        which = "" if rounds == 1 else f", look {number} of {rounds}"
        for (name, cell), runs in trial.test_runs(
            rates, seeds, f"test seeds{which}"
        ).items():
            cells[name][cell] = runs
        for name in (name for name, names in in_use.items() if names):
            design, so_far = trial.designs[name], planned[name][:number]
            looks = Looks(so_far, planned[name][-1], design.spending)
            judged[name] = judge_design(
                name,
                design,
                cells[name],
                rates[name],
                trial.skipped[name],
                alpha,
                tested=tested,
                looks=looks if len(planned[name]) > 1 else None,
                frozen=settled[name],
            )
        settled = settled_contrasts(judged.values(), alpha)
    return list(judged.values())
