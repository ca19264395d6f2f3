"""Successive halving over the learning rates of several arms, on tuning seeds.

All rates of an arm are tried on one seed, the better half of them on two seeds, then on
four, and so on (Jamieson & Talwalkar 2016). Every arm is halved by itself. So all arms
get the same number of tries, and an arm with many good rates does not displace another
arm. An arm is dropped only if it is clearly worse than the best arm.

A cost is a number that is better if it is smaller.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from pydantic import BaseModel, ConfigDict, PositiveFloat

from normbench import stats
from normbench.verdicts.seeds import FULL_TUNING_SEEDS

Try = tuple[str, float, int]
"""A run: arm, learning rate, and number of the tuning seed from 0."""
Measure = Callable[[Sequence[Try]], Mapping[Try, float | None]]
"""Does runs; returns their costs, None for a run without a cost.

If the time is over, runs are missing in the result.
"""

DROP_LEVEL = 0.01
"""Upper bound on the probability that one round drops the best arm."""
MIN_ARMS = 2
"""So many arms are never dropped, because test seeds must judge the result."""


class Tuned(BaseModel):
    """The rate of an arm, and what the tuning seeds show about the arm.

    `tried` has the mean cost of each rate that has runs, None if a run lacks its cost,
    and the number of the seeds. Seeds of a round that was not finished do not count.
    `at_edge` is true if `lr` is the lowest or the highest of several rates. `dropped`
    is the reason if the arm was dropped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    lr: PositiveFloat
    tried: dict[float, tuple[float | None, int]]
    at_edge: bool = False
    dropped: str | None = None


def tune(
    arms: Iterable[str],
    rates: Collection[float],
    measure: Measure,
    *,
    extend: int,
    margin: float,
) -> dict[str, Tuned]:
    """Return the rate of every arm, and whether the arm is dropped.

    If the best rate of an arm is at an edge, one more rate beyond the edge is tried, at
    most `extend` times. If the time ends in the first round, an arm without a finished
    run has no entry in the result.
    """
    states = {arm: _Arm(sorted(rates), sorted(rates), extend) for arm in arms}
    complete, seeds = 0, 1  # `complete`: the seeds of the last round that was finished
    while True:
        # The order is by seed: if the time ends, all arms have the first seeds.
        tries = [
            (arm, lr, seed)
            for seed in range(seeds)
            for arm, state in states.items()
            for lr in state.alive
            if (lr, seed) not in state.costs and state.dropped is None
        ]
        costs = measure(tries)
        for (arm, lr, seed), cost in costs.items():
            states[arm].costs[lr, seed] = cost
        if len(costs) < len(tries):  # the time is over
            break
        complete = seeds
        running = [state for state in states.values() if state.dropped is None]
        extended = [state.extend(seeds) for state in running]
        if any(extended):
            continue
        if seeds >= FULL_TUNING_SEEDS:
            _drop(states, seeds, margin)
        for state in running:
            state.halve(seeds)
        if seeds >= FULL_TUNING_SEEDS and all(
            len(state.alive) == 1 for state in running
        ):
            break
        seeds *= 2
    tuned = {arm: state.tuned(max(1, complete)) for arm, state in states.items()}
    return {arm: result for arm, result in tuned.items() if result is not None}


def clearly_worse(
    costs: Mapping[str, Sequence[float]], margin: float
) -> dict[str, float]:
    """Return the arms that are clearly worse than the best arm: arm -> p value.

    `costs` has one cost for each seed, in the same order for all arms; the best arm has
    the lowest mean. The null hypothesis is that an arm is worse by at most `margin`. It
    has a one-sided paired t test at the level DROP_LEVEL / (number of arms - 1). So the
    probability that the truly best arm is dropped is at most DROP_LEVEL, if differences
    are normal and each arm has one rate (Bonferroni's inequality).
    """
    best = min(costs, key=lambda arm: fmean(costs[arm]))
    p_values = {}
    for arm in costs.keys() - {best}:
        pairs = zip(costs[arm], costs[best], strict=True)
        p = 1 - stats.non_inferiority([a - b for a, b in pairs], margin)
        if p < DROP_LEVEL / (len(costs) - 1):
            p_values[arm] = p
    return p_values


def tuning_caveats(tuned: Mapping[str, Tuned], *, kept: bool) -> list[str]:
    """Return what limits the choice of the rates, one sentence each.

    If the rates are `kept`, because test seeds use them, only another race tunes again.
    """
    caveats = []
    seeds = min((t.tried[t.lr][1] for t in tuned.values() if t.tried), default=None)
    if seeds is not None and seeds < FULL_TUNING_SEEDS:
        caveats.append(
            f"the time sufficed for {seeds} of {FULL_TUNING_SEEDS} tuning seeds; the "
            "learning rates may be poor, and no arm was dropped"
            + "; test seeds use them, so to tune again, give more --minutes and other "
            "--rates or another --results" * kept
        )
    at_edge = [arm for arm, t in tuned.items() if t.at_edge]
    if at_edge:
        caveats.append(
            f"the best rate is at an edge of what was tried for {', '.join(at_edge)}"
        )
    return caveats


@dataclass
class _Arm:
    """The tries of an arm: `costs` maps a rate and the number of a seed to a cost.

    `tried` are all rates, ascending; `alive` are those that are still tried.
    """

    tried: list[float]
    alive: list[float]
    extensions_left: int
    dropped: str | None = None
    costs: dict[tuple[float, int], float | None] = field(default_factory=dict)

    def values(self, lr: float, seeds: int) -> list[float] | None:
        """Return the costs of a rate on the first `seeds` seeds; None if one lacks."""
        values = [self.costs.get((lr, seed)) for seed in range(seeds)]
        finite = [value for value in values if value is not None]
        return finite if len(finite) == seeds else None

    def score(self, lr: float, seeds: int) -> float:
        """Return the mean cost of a rate on the first `seeds` seeds, or inf."""
        values = self.values(lr, seeds)
        return math.inf if values is None else fmean(values)

    def best(self, seeds: int) -> float:
        """Return the rate with the lowest score; of equal scores, the lowest rate."""
        return min(self.alive, key=lambda lr: self.score(lr, seeds))

    def extend(self, seeds: int) -> bool:
        """Add a rate beyond the edge if the best rate is at an edge.

        Returns whether a rate was added.
        """
        best = self.best(seeds)
        if not self.extensions_left or best not in {self.tried[0], self.tried[-1]}:
            return False
        new = best / 2 if best == self.tried[0] else best * 2
        self.tried = sorted([*self.tried, new])
        self.alive = sorted([*self.alive, new])
        self.extensions_left -= 1
        return True

    def halve(self, seeds: int) -> None:
        """Keep the better half of the rates, rounded up; two, if seeds are few."""
        least = 1 if seeds >= FULL_TUNING_SEEDS else 2
        count = max(least, math.ceil(len(self.alive) / 2))
        ranked = sorted(self.alive, key=lambda lr: self.score(lr, seeds))
        self.alive = sorted(ranked[:count])

    def tuned(self, seeds: int) -> Tuned | None:
        """Return the result, chosen on the first `seeds` seeds; None without runs."""
        if not self.costs:
            return None
        lr = self.alive[0] if self.dropped else self.best(seeds)
        tried = {}
        for rate in sorted({rate for rate, _ in self.costs}):
            count = sum(r == rate and seed < seeds for r, seed in self.costs)
            values = self.values(rate, count)
            tried[rate] = (fmean(values) if values else None, count)
        at_edge = len(tried) > 1 and lr in {min(tried), max(tried)}
        return Tuned(lr=lr, tried=tried, at_edge=at_edge, dropped=self.dropped)


def _drop(states: Mapping[str, _Arm], seeds: int, margin: float) -> None:
    """Drop the arms that are clearly worse than the best, each at its best rate.

    An arm stays if a run at its best rate has no cost.
    """
    values = {
        arm: costs
        for arm, state in states.items()
        if state.dropped is None
        and (costs := state.values(state.best(seeds), seeds)) is not None
    }
    if len(values) < 2:
        return
    worse = clearly_worse(values, margin)
    best = min(values, key=lambda arm: fmean(values[arm]))
    running = sum(state.dropped is None for state in states.values())
    # The worst arms come first: the last MIN_ARMS are the best ones.
    ranked = sorted(worse, key=lambda arm: -fmean(values[arm]))
    for arm in ranked[: max(0, running - MIN_ARMS)]:
        difference = fmean(values[arm]) - fmean(values[best])
        states[arm].alive = [states[arm].best(seeds)]
        states[arm].dropped = (
            f"worse than {best} by {difference:.4f} on {seeds} tuning seeds, clearly "
            f"more than the margin {margin:g} (p {worse[arm]:.1g})"
        )
