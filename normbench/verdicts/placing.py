"""Put the arms of a race in order, and estimate what would settle the rest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import comb, inf
from statistics import fmean

from normbench import stats
from normbench.verdicts.power import seeds_needed
from normbench.verdicts.ranking import FromBest, Place, ProvisionalArm, RankedArm
from normbench.verdicts.spending import nominal_levels
from normbench.verdicts.standings import Difference, Rules, Runs, Standings


@dataclass(frozen=True)
class Race:
    """The arms of a race with their rates and runs; `sign` is -1 if more is better.

    `peak_lrs` are the peak learning rates at `rates`, which a rule may scale with the
    batch size. The costs of the runs are `sign` times the metric.
    """

    rules: Rules
    rates: Mapping[str, float]
    runs: dict[str, Runs]
    sign: int
    peak_lrs: Mapping[str, float] = field(default_factory=dict)


def ranked(race: Race, standings: Standings) -> list[RankedArm]:
    """Return the arms that were judged, the best first.

    The running arms come first, by their mean; then the worse arms, by their difference
    from the best arm. The result is empty before the first look.
    """
    if not standings.seen or standings.leader is None:
        return []
    leader = standings.leader

    def order(arm: str) -> tuple[bool, float]:
        if arm in standings.worse:
            pair = _from_best(race, standings, arm)
            return True, pair.difference * race.sign if pair else 0.0
        return False, fmean(_costs(race, standings, arm))

    arms = sorted((*standings.running, *standings.worse), key=order)
    assert arms[0] == leader
    return [_ranked(race, standings, arm) for arm in arms]


def provisional(race: Race) -> list[ProvisionalArm]:
    """Return the arms by their mean on the first seeds that all of them have.

    The result is for a race before its first look. It is empty if no seed is complete.
    """
    n = min(len(race.runs[arm].costs) for arm in race.rules.arms)
    if not n:
        return []
    arms = []
    for arm in race.rules.arms:
        costs = [cost for cost in race.runs[arm].costs[:n] if cost is not None]
        mean = race.sign * fmean(costs) if len(costs) == n else None
        lr, peak_lr = race.rates[arm], race.peak_lrs.get(arm)
        early = ProvisionalArm(arm=arm, lr=lr, peak_lr=peak_lr, n=n, mean=mean)
        arms.append(early)
    return sorted(arms, key=lambda a: inf if a.mean is None else race.sign * a.mean)


def seeds_to_settle(arms: Sequence[RankedArm], standings: Standings) -> int | None:
    """Return how many further seeds would settle the open arms.

    None if more than 200 seeds are needed in total. `seeds_needed` uses the observed
    differences; the result is at least one seed.
    """
    n = standings.seen[-1]
    needed = [
        arm.from_best.seeds_needed
        for arm in arms
        if arm.place == "open" and arm.from_best
    ]
    largest = max((seeds or 0 for seeds in needed), default=0)
    return None if None in needed else max(1, largest - n)


def _ranked(race: Race, standings: Standings, arm: str) -> RankedArm:
    costs = _costs(race, standings, arm)
    interval = stats.mean_interval(
        [race.sign * cost for cost in costs], 1 - race.rules.alpha
    )
    leader = standings.leader or ""
    place: Place = "open"
    if arm == leader:
        place = "best"
    elif arm in standings.worse:
        place = "worse"
    elif standings.is_equal(arm, leader):
        place = "equal"
    return RankedArm(
        arm=arm,
        lr=race.rates[arm],
        peak_lr=race.peak_lrs.get(arm),
        place=place,
        distinguishable=place == "worse",
        worse_than=standings.worse.get(arm),
        n=len(costs),
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        from_best=_from_best(race, standings, arm, needed=place == "open"),
    )


def _costs(race: Race, standings: Standings, arm: str) -> list[float]:
    """Return the costs up to the last look at the arm."""
    costs = race.runs[arm].costs[: standings.seeds[arm]]
    return [cost for cost in costs if cost is not None]


def _from_best(
    race: Race, standings: Standings, arm: str, *, needed: bool = False
) -> FromBest | None:
    pair = standings.difference(arm, standings.leader or "")
    if pair is None:
        return None
    is_first = (arm, standings.leader) in standings.differences
    sign = race.sign if is_first else -race.sign
    interval = pair.interval(race.rules.alpha)
    low, high = sorted((sign * interval.low, sign * interval.high))
    return FromBest(
        difference=sign * interval.mean,
        low=low,
        high=high,
        n=len(pair.values),
        p=pair.p_holm,
        seeds_needed=_needed(race.rules, pair) if needed else None,
    )


def _needed(rules: Rules, pair: Difference) -> int | None:
    """Return the seeds that would decide a pair at the last look, with power .8."""
    interval = stats.mean_interval(pair.values)
    alpha = rules.alpha / comb(len(rules.arms), 2)
    level = nominal_levels(rules.looks, rules.looks[-1], rules.spending, alpha / 2)[-1]
    return seeds_needed("less", interval.mean, interval.sd, rules.margin, 2 * level)
