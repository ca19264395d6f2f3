"""Results of a race, made up."""

from collections.abc import Sequence
from typing import Any

from normbench.verdicts.ranking import (
    FromBest,
    Place,
    RankedArm,
    Ranking,
    Spent,
    TunedArm,
)


def an_arm(
    name: str,
    place: Place,
    difference: float,
    p: float = 0.5,
    *,
    peak_lr: float = 0.1,
) -> RankedArm:
    return RankedArm(
        arm=name,
        lr=0.1,
        peak_lr=peak_lr,
        place=place,
        distinguishable=place == "worse",
        worse_than="norm=batch" if place == "worse" else None,
        n=12,
        mean=0.05 + difference,
        low=0.04 + difference,
        high=0.06 + difference,
        from_best=FromBest(
            difference=difference,
            low=difference - 0.01,
            high=difference + 0.01,
            n=12,
            p=p,
            seeds_needed=20 if place == "open" else None,
        )
        if place != "best"
        else None,
    )


def tuned(
    name: str, lr: float, *, seeds: int = 4, rates: Sequence[float] = (0.05, 0.1, 0.2)
) -> TunedArm:
    """Return an arm whose best rate is `lr`, with `seeds` of each of `rates`."""
    return TunedArm(
        arm=name,
        lr=lr,
        at_edge=lr in (min(rates), max(rates)),
        validation=dict.fromkeys(map(str, rates), 0.1),
        seeds=dict.fromkeys(map(str, rates), seeds),
    )


def a_ranking(*arms: RankedArm, **changes: Any) -> Ranking:
    fields: dict[str, Any] = {
        "metric": "test/error",
        "maximized": False,
        "margin": 0.01,
        "alpha": 0.05,
        "spending": "pocock",
        "looks": [6, 8, 12, 32],
        "seen": [6, 8, 12],
        "ended": "settled",
        "arms": list(arms),
        "left_out": [],
        "validation": "val/error",
        "tuning": [],
        "spent": [
            Spent(phase="tuning", runs=9, found=0, core_seconds=90, minutes=1.5),
            Spent(phase="test", runs=24, found=6, core_seconds=240, minutes=2.0),
        ],
        "further": None,
        "caveats": [],
        "run_ids": [],
        "command": "normbench compare ..",
        "started": "2026-01-01T00:00:00+00:00",
        "environment": {},
    }
    return Ranking(**(fields | changes))
