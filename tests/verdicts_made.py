"""Verdicts with invented numbers: every cell and contrast of a claim, for drawing."""

from math import log2
from random import Random

from normbench.verdicts.registration import Claim, Design, arm_of, level_of
from normbench.verdicts.verdict import (
    CellSummary,
    ContrastVerdict,
    CrossoverVerdict,
    Decision,
    DesignVerdict,
    Rate,
    Verdict,
)

DECISIONS: tuple[Decision, ...] = ("supported", "refuted", "equivalent", "inconclusive")


def verdict(claim: Claim) -> Verdict:
    """A verdict of a full check of `claim`; the numbers mean nothing."""
    random = Random(claim.name)
    return Verdict(
        claim=claim.name,
        statement=claim.statement,
        source=claim.source,
        registration="0" * 16,
        budget="full",
        alpha=claim.alpha,
        caveats=[],
        theorem="supported",
        mechanism="supported",
        outcome="inconclusive",
        theorems=[],
        mechanisms=[_design(n, d, random) for n, d in claim.mechanisms.items()],
        outcomes=[_design(n, d, random) for n, d in claim.outcomes.items()],
        command="",
        started="",
        environment={},
    )


def _design(name: str, design: Design, random: Random) -> DesignVerdict:
    metrics = sorted({contrast.metric for contrast in design.contrasts})
    return DesignVerdict(
        name=name,
        question=design.question,
        gate=dict.fromkeys(design.arms, True),
        cells=[
            CellSummary(
                cell=cell,
                rate=Rate(lr=0.1, validation={}, good=[], at_edge=False, frozen=False),
                n=design.seeds,
                mean={metric: _mean(cell, random) for metric in metrics},
                sd={metric: random.uniform(0.003, 0.01) for metric in metrics},
                diverged=random.choice([0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
                failed=0,
                skipped=None,
            )
            for cell in design.all_cells()
        ],
        contrasts=[
            _contrast(contrast.model_dump(), design.seeds, random)
            for contrast in design.contrasts
        ],
        crossovers=[
            CrossoverVerdict(
                name=each.name,
                metric=each.metric,
                at=3.1,
                low=2.2,
                high=6.0,
                share_before=0.0,
                share_after=0.0,
                share_several=0.0,
                n=design.seeds,
            )
            for each in design.crossovers
        ],
        decision="inconclusive",
    )


def _mean(cell: str, random: Random) -> float:
    base = 0.04 + 0.01 * (len(arm_of(cell)) % 4) + random.uniform(0, 0.004)
    try:
        return base + 0.04 * (arm_of(cell)[0] == "b") / (
            1 + log2(float(level_of(cell)))
        )
    except ValueError:
        return base


def _contrast(said: dict[str, object], seeds: int, random: Random) -> ContrastVerdict:
    kept = ("name", "metric", "says", "margin", "reason", "primary")
    margin = float(str(said["margin"]))
    effect, half = random.gauss(0, 2) * margin, random.uniform(0.3, 1) * margin
    if random.random() < 0.1:
        effect *= 20
    return ContrastVerdict.model_validate(
        {key: said[key] for key in kept}
        | {
            "decision": random.choice(DECISIONS),
            "because": "invented",
            "effect": effect,
            "sd": half,
            "n": seeds,
            "low": effect - half,
            "high": effect + half,
            "low_margin": effect - 0.8 * half,
            "high_margin": effect + 0.8 * half,
            "p": 0.01,
            "values": {str(s): effect + random.gauss(0, half) for s in range(seeds)},
        }
    )
