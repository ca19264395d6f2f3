"""Which norm is better than which, as far as decided contrasts say so.

A norm is better than another if a contrast says so, or a chain of contrasts. If a chain
leads back to its first norm, the contrasts contradict each other: none of the norms of
the cycle is better than another one of it, and no chain passes through two of them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Place = Literal["ahead", "contradictory", "undecided", "behind"]
"""ahead: better than some norm, and worse than none. behind: worse than some norm.
contradictory: in a cycle, and worse than no norm outside of it. undecided: neither
better nor worse than any norm."""
PLACES: tuple[Place, ...] = ("ahead", "contradictory", "undecided", "behind")


@dataclass(frozen=True)
class Standing:
    """The place of a norm, and the norms that it is better or worse than, sorted."""

    place: Place
    better_than: tuple[str, ...]
    worse_than: tuple[str, ...]
    contradictory: tuple[str, ...]


def standings(
    norms: Iterable[str], better: Iterable[tuple[str, str]]
) -> dict[str, Standing]:
    """Return the standing of each norm; `better` has the pairs (better, worse)."""
    below: dict[str, set[str]] = {norm: set() for norm in norms}
    for winner, loser in better:
        below[winner].add(loser)
        below.setdefault(loser, set())
    reached = {norm: _reachable(norm, below) for norm in below}
    cycles = {
        norm: {other for other in reached[norm] - {norm} if norm in reached[other]}
        for norm in below
    }
    agreed = {norm: losers - cycles[norm] for norm, losers in below.items()}
    reached = {norm: _reachable(norm, agreed) for norm in below}
    return {norm: _standing(norm, reached, cycles[norm]) for norm in below}


def _standing(norm: str, reached: Mapping[str, set[str]], cycle: set[str]) -> Standing:
    better = reached[norm]
    worse = {other for other, below in reached.items() if norm in below}
    place: Place = "ahead" if better else "undecided"
    if worse or cycle:
        place = "behind" if worse else "contradictory"
    return Standing(place, *(tuple(sorted(each)) for each in (better, worse, cycle)))


def _reachable(start: str, below: Mapping[str, set[str]]) -> set[str]:
    """Return all norms that a chain of contrasts leads to."""
    reached: set[str] = set()
    todo = {*below[start]}
    while todo:
        reached |= todo
        todo = {other for norm in todo for other in below[norm]} - reached
    return reached
