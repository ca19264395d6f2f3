"""Say which norm to use for a task, from the verdicts of claims, and only from them.

The nearest judged contrasts of each pair of norms count: those at the asked batch size
and samples per statistic, or at the nearest ones within a factor of FACTOR.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import log2
from pathlib import Path
from typing import get_args

from normbench.verdicts.conditions import Condition, TaskKind
from normbench.verdicts.gaps import gaps_of_claims, gaps_of_pairs
from normbench.verdicts.naming import family, usual_names
from normbench.verdicts.pairs import Pair, evidence_of, pairs_of
from normbench.verdicts.preferences import PLACES, Standing, standings
from normbench.verdicts.recommendation import (
    Comparison,
    Evidence,
    OwnRuns,
    Recommendation,
    Summary,
)
from normbench.verdicts.registration import Claim, registration_hash
from normbench.verdicts.trying import experiment
from normbench.verdicts.verdict import Verdict

FACTOR = 4
"""A contrast at a batch size, or a number of samples per statistic, further away than
this factor says nothing of the asked one: BatchNorm's errors at 2 samples per statistic
and at 32 differ by more than any margin of the claims."""
MAX_CONTENDERS = 4
"""Norms that the command compares; the time of a comparison grows with them."""
ORDER = get_args(Summary)
"""The order of the pairs."""


def recommend(
    task: TaskKind,
    asked: Condition,
    claims: Mapping[str, Claim],
    verdicts: Mapping[str, Verdict],
    runs: Sequence[OwnRuns] = (),
    *,
    default: bool = False,
    config_dir: Path | None = None,
) -> Recommendation:
    """Return what is known of the norms of `task` at the condition `asked`.

    `claims` are the registered ones, and `verdicts` those of their full checks, both by
    name. A verdict of another registration than that of `claims` does not count.
    `default` tells that the batch size is the default of the task.
    """
    registered = {
        name: of_claim
        for name, claim in claims.items()
        if (of_claim := [p for p in pairs_of(claim, config_dir) if p.task == task])
    }
    valid = {
        name: verdict
        for name in registered
        if (verdict := verdicts.get(name))
        and verdict.registration == registration_hash(claims[name])
    }
    everything = [pair for of_claim in registered.values() for pair in of_claim]
    tested = [
        (pair, of_pair)
        for pair in everything
        if pair.claim in valid and (of_pair := evidence_of(valid[pair.claim], pair))
    ]
    evidence = [of_pair for _, of_pair in tested]
    pairs, placed = _ordered(_comparisons(evidence, asked), evidence)
    contenders = _contenders(
        pairs, placed, _unmeasured(p for p in everything if p.claim not in valid)
    )
    norms = {norm for pair in everything for norm in pair.norms}
    names = usual_names(sorted(norms | {each.norm for each in runs}), task)
    sensitivity = [e for norm in placed for e in _sensitivity(norm, evidence, asked)]
    near = [each for pair in pairs if not pair.far for each in pair.evidence]
    used = {each.claim for each in near + sensitivity}
    templates = [pair for pair, _ in tested] or everything
    return Recommendation(
        task=task,
        asked=asked,
        default=default,
        names=names,
        pairs=pairs,
        standings=placed,
        sensitivity=sensitivity,
        runs=list(runs),
        gaps=gaps_of_claims(registered, verdicts, valid)
        + gaps_of_pairs(pairs, contenders, names),
        experiment=experiment(contenders, asked, templates, valid),
        notes=[f"{name}: {c}" for name in sorted(used) for c in valid[name].caveats],
    )


def _comparisons(evidence: Iterable[Evidence], asked: Condition) -> list[Comparison]:
    """Return what the nearest evidence of each pair of norms says."""
    by_pair: dict[tuple[str, str], list[Evidence]] = {}
    for each in evidence:
        if not each.other_condition:
            first, second = sorted((each.norm, each.other))
            by_pair.setdefault((first, second), []).append(each)
    return [
        _comparison(_nearest(of_pair, asked), asked) for of_pair in by_pair.values()
    ]


def _comparison(nearest: Sequence[Evidence], asked: Condition) -> Comparison:
    """Return a pair; the better norm is the first, or that of the first contrast."""
    first = nearest[0].norm
    evidence = [each if each.norm == first else each.turned() for each in nearest]
    summary = _summary(evidence)
    if summary is None:
        evidence = [each.turned() for each in evidence]
        summary = _summary(evidence)
    assert summary is not None
    return Comparison(
        norm=evidence[0].norm,
        other=evidence[0].other,
        summary=summary,
        far=is_far(nearest[0], asked),
        variants=family(evidence[0].norm) == family(evidence[0].other),
        evidence=evidence,
    )


def _summary(evidence: Sequence[Evidence]) -> Summary | None:
    """Return what contrasts, all of one norm against one other norm, say together.

    The result is None if they speak for the other norm.
    """
    relations = {each.relation for each in evidence}
    if "better" in relations:
        if "worse" in relations:
            return "contradictory"
        return "mixed" if any(e.leans == "worse" for e in evidence) else "better"
    if "worse" in relations:
        return None
    if "not decided" in relations:
        return "not decided"
    # Two statements, each of another norm, exclude a difference on either side.
    if relations - {"as good"} == {"no worse"}:
        return "no worse"
    return None if relations - {"as good"} == {"not better"} else "as good"


def _nearest(evidence: Sequence[Evidence], asked: Condition) -> list[Evidence]:
    """Return the evidence at the smallest distance, the sum of all log2 factors."""
    distances = [sum(each.condition.factors(asked)) for each in evidence]
    return [
        each
        for each, distance in zip(evidence, distances, strict=True)
        if distance <= min(distances) + 1e-9
    ]


def is_far(evidence: Evidence, asked: Condition) -> bool:
    """Return whether the condition of a contrast is too far from the asked one."""
    return any(f > log2(FACTOR) for f in evidence.condition.factors(asked))


def _ordered(
    pairs: Sequence[Comparison], evidence: Iterable[Evidence]
) -> tuple[list[Comparison], dict[str, Standing]]:
    """Return the pairs in the order of the table, and all norms in their order."""
    norms = sorted({norm for each in evidence for norm in (each.norm, each.other)})
    near = [pair for pair in pairs if not pair.far]
    placed = standings(
        norms,
        [
            (each.norm, each.other)
            if each.relation == "better"
            else (each.other, each.norm)
            for pair in near
            if pair.summary != "mixed"
            for each in pair.evidence
            if each.relation in {"better", "worse"}
        ],
    )

    def order(norm: str) -> tuple[int, int, int, str]:
        standing = placed[norm]
        compared = sum(norm in (pair.norm, pair.other) for pair in near)
        count = len(standing.better_than) - len(standing.worse_than)
        return PLACES.index(standing.place), -count, -compared, norm

    norms.sort(key=order)
    rows = sorted(
        pairs,
        key=lambda pair: (
            pair.variants,
            ORDER.index(pair.summary),
            norms.index(pair.norm),
            norms.index(pair.other),
        ),
    )
    return rows, {norm: placed[norm] for norm in norms}


def _sensitivity(
    norm: str, evidence: Iterable[Evidence], asked: Condition
) -> list[Evidence]:
    """Return the contrasts of a norm near the asked condition with one further away."""
    of_norm = [
        each
        for each in evidence
        if each.norm == norm
        and each.other_condition is not None
        and not is_far(each, asked)
        and sum(each.condition.factors(asked))
        < sum(each.other_condition.factors(asked))
    ]
    return _nearest(of_norm, asked)


def _contenders(
    pairs: Sequence[Comparison],
    placed: Mapping[str, Standing],
    unmeasured: Sequence[str],
) -> list[str]:
    """Return the norms that may be the best, one of those that are as good.

    These are the norms ahead and those in a contradiction. If there are fewer than two,
    the norms of undecided pairs follow, then those that claims without a verdict
    compare (`unmeasured`), and then those with the next places.
    """
    near = [pair for pair in pairs if not pair.far]
    compared = {norm for pair in near for norm in (pair.norm, pair.other)}
    best = [n for n in placed if placed[n].place in {"ahead", "contradictory"}]
    behind = {n for n in placed if placed[n].place == "behind"}
    equal = {
        frozenset((pair.norm, pair.other)) for pair in near if pair.summary == "as good"
    }
    undecided = [
        norm
        for pair in near
        if pair.summary == "not decided"
        for norm in (pair.norm, pair.other)
    ]
    kept: list[str] = []
    for norm in (
        *best,
        *(n for n in undecided if n not in behind),
        *(n for n in unmeasured if n not in behind),
        *(n for n in placed if n in compared),
        *placed,
    ):
        if norm not in best and placed and len(kept) > 1:
            break
        if norm not in kept and not any({norm, other} in equal for other in kept):
            kept.append(norm)
    return kept[:MAX_CONTENDERS]


def _unmeasured(pairs: Iterable[Pair]) -> list[str]:
    """Return the norms of pairs without a verdict, the most frequent first."""
    counts: dict[str, int] = {}
    for pair in pairs:
        for norm in pair.norms:
            counts[norm] = counts.get(norm, 0) + pair.two_norms
    return sorted(counts, key=lambda norm: (-counts[norm], norm))[:MAX_CONTENDERS]
