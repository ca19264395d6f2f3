"""Which arms of a race can still be the best: paired costs on test seeds, by looks.

A race compares all pairs of its arms. After each look, an arm that is worse than some
other arm stops. The best arm is chosen by the data, so the p values are adjusted for
all pairs (Holm 1979), not only for those of the best arm. They are adjusted for the
looks too (Maurer & Bretz 2013). Then the probability of any wrong "worse" is about
alpha at most; scripts/simulate_race measures it. The standings follow from the costs
alone, whatever was run beyond them.

A cost is a number that is better if it is smaller.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from statistics import fmean

from normbench import stats
from normbench.stats import MeanInterval
from normbench.verdicts.seeds import Spending
from normbench.verdicts.spending import Looks


@dataclass(frozen=True)
class Rules:
    """How a race is judged.

    `looks` are increasing numbers of seeds. A difference below `margin` counts as zero.
    An arm trained if the mean of its gate costs is below `gate`.
    """

    arms: tuple[str, ...]
    looks: tuple[int, ...]
    spending: Spending
    alpha: float
    margin: float
    gate: float


@dataclass(frozen=True)
class Runs:
    """The runs of an arm on the seeds 0, 1, ..: their costs and their gate costs.

    A cost is None if the run has no finite metric.
    """

    costs: Sequence[float | None]
    gate: Sequence[float | None]


Pair = tuple[str, str]
"""Two arms, in the order of the rules."""


@dataclass(frozen=True)
class Difference:
    """The differences of a pair, first minus second, at the last look at both.

    `p` and `p_within` are the p values of the tests of no difference (two-sided) and of
    a difference of the margin or more. They are adjusted for the looks; `p_holm` and
    `p_within_holm` are adjusted for all pairs too. `decision` is "worse" if the arm
    with the higher mean is worse, and "equal" if a difference as large as the margin is
    excluded. A decided pair does not change.
    """

    values: tuple[float, ...]
    looks: Looks
    p: float
    p_within: float
    p_holm: float = 1.0
    p_within_holm: float = 1.0
    decision: str | None = None

    def interval(self, alpha: float) -> MeanInterval:
        """Return the mean with its repeated interval of confidence 1 - `alpha`."""
        return stats.mean_interval(self.values, 1 - 2 * self.looks.level(alpha / 2))


@dataclass(frozen=True)
class Standings:
    """What is known after the looks `seen`.

    `running` are the arms that may be the best. `worse` maps each arm that is worse
    than another arm to that arm. `out` maps each arm that cannot be judged to the
    reason. `seeds` has the number of seeds of each arm at the last look at it.
    `next_look` is None if the race is settled or had its last look.
    """

    seen: tuple[int, ...]
    running: tuple[str, ...]
    worse: dict[str, str] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)
    differences: dict[Pair, Difference] = field(default_factory=dict)
    leader: str | None = None
    next_look: int | None = None

    def difference(self, arm: str, other: str) -> Difference | None:
        """Return the differences of two arms, in either order of the pair."""
        pair = self.differences.get((arm, other))
        return pair or self.differences.get((other, arm))

    def is_equal(self, arm: str, other: str) -> bool:
        """Return whether a difference as large as the margin is excluded."""
        pair = self.difference(arm, other)
        return pair is not None and pair.decision == "equal"

    @property
    def open(self) -> tuple[str, ...]:
        """The running arms that are neither worse than nor equal to the leader."""
        others = (arm for arm in self.running if arm != self.leader)
        return tuple(a for a in others if not self.is_equal(a, self.leader or ""))


def judge(rules: Rules, runs: Mapping[str, Runs]) -> Standings:
    """Return the standings after all looks for which the runs are there.

    A look needs the runs of all arms that are running then. Later looks do not happen
    if the race is settled, that is, if no arm but the leader is open.
    """
    standings = Standings((), rules.arms, next_look=rules.looks[0])
    for n in rules.looks:
        if any(len(runs[arm].costs) < n for arm in standings.running):
            break
        standings = _after_look(rules, runs, standings, n)
        if standings.next_look is None:
            break
    return standings


def _after_look(
    rules: Rules, runs: Mapping[str, Runs], before: Standings, n: int
) -> Standings:
    seen = (*before.seen, n)
    out = {
        arm: reason
        for arm in before.running
        if (reason := _disqualification(rules, runs[arm], n)) is not None
    }
    costs = {
        arm: [cost for cost in runs[arm].costs[:n] if cost is not None]
        for arm in before.running
        if arm not in out
    }
    looks = Looks(seen, rules.looks[-1], rules.spending)
    differences = dict(before.differences)
    for pair in combinations(costs, 2):
        if pair not in differences or differences[pair].decision is None:
            first, second = (costs[arm] for arm in pair)
            differences[pair] = _difference(first, second, looks, rules)
    differences = _decided(differences, rules)
    worse = dict(before.worse)
    for pair, difference in differences.items():
        if difference.decision == "worse":
            loser, winner = pair if fmean(difference.values) > 0 else pair[::-1]
            worse.setdefault(loser, winner)
    running = tuple(arm for arm in costs if arm not in worse)
    standings = Standings(
        seen=seen,
        running=running,
        worse=worse,
        out=before.out | out,
        seeds=before.seeds | dict.fromkeys(before.running, n),
        differences=differences,
        leader=min(running, key=lambda arm: fmean(costs[arm]), default=None),
    )
    later = [look for look in rules.looks if look > n]
    next_look = later[0] if later and standings.open else None
    return replace(standings, next_look=next_look)


def _disqualification(rules: Rules, runs: Runs, n: int) -> str | None:
    """Return why an arm cannot be judged at the look at `n` seeds, None if it can."""
    bad = [str(seed) for seed, cost in enumerate(runs.costs[:n]) if cost is None]
    if bad:
        return f"no finite metric on test seed {', '.join(bad)}"
    gate = [cost for cost in runs.gate[:n] if cost is not None]
    if len(gate) < n or fmean(gate) >= rules.gate:
        return f"did not train, by its gate, on {n} test seeds"
    return None


def _difference(
    costs: Sequence[float], other: Sequence[float], looks: Looks, rules: Rules
) -> Difference:
    values = tuple(a - b for a, b in zip(costs, other, strict=True))
    return Difference(
        values,
        looks,
        p=min(1.0, 2 * looks.overall(stats.t_test(values) / 2)),
        p_within=looks.overall(stats.tost(values, rules.margin)),
    )


def _decided(
    differences: Mapping[Pair, Difference], rules: Rules
) -> dict[Pair, Difference]:
    """Return the differences after Holm's adjustment, with the new decisions.

    All pairs of the arms of the rules count; a pair without runs counts as p = 1.
    """
    if not differences:
        return {}
    count = len(rules.arms) * (len(rules.arms) - 1) // 2
    rest = [1.0] * (count - len(differences))
    p_holm = stats.holm([*(d.p for d in differences.values()), *rest])
    p_within = stats.holm([*(d.p_within for d in differences.values()), *rest])
    decided = {}
    for i, (pair, difference) in enumerate(differences.items()):
        p, within = float(p_holm[i]), float(p_within[i])
        decision = difference.decision
        if decision is None and within < rules.alpha:
            decision = "equal"
        elif decision is None and p < rules.alpha:
            decision = "worse"
        decided[pair] = replace(
            difference, p_holm=p, p_within_holm=within, decision=decision
        )
    return decided
