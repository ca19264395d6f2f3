"""Say which norm to use for a task, from the verdicts of claims, and only from them.

The nearest judged contrasts of each pair of norms count: those at the asked batch size
and samples per statistic, or at the nearest ones within a factor of FACTOR.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import log2
from pathlib import Path
from typing import get_args

from normbench.verdicts.conditions import Condition, TaskKind
from normbench.verdicts.gaps import gaps_of_candidates, gaps_of_claims
from normbench.verdicts.pairs import Pair, evidence_of, pairs_of
from normbench.verdicts.preferences import PLACES, Standing, standings
from normbench.verdicts.recommendation import (
    Against,
    Candidate,
    Evidence,
    OwnRuns,
    Recommendation,
    Relation,
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


def recommend(
    task: TaskKind,
    asked: Condition,
    claims: Mapping[str, Claim],
    verdicts: Mapping[str, Verdict],
    own: Sequence[OwnRuns] = (),
    *,
    default: bool = False,
    config_dir: Path | None = None,
) -> Recommendation:
    """Return what is known of the norms of `task` at the condition `asked`.

    `claims` are the registered ones, and `verdicts` those of their full checks, both by
    name. A verdict of another registration than that of `claims` does not count.
    `default` tells that the batch size is the default of the task.
    """
    pairs = {
        name: [pair for pair in pairs_of(claim, config_dir) if pair.task == task]
        for name, claim in claims.items()
    }
    pairs = {name: of_claim for name, of_claim in pairs.items() if of_claim}
    valid = {
        name: verdict
        for name in pairs
        if (verdict := verdicts.get(name))
        and verdict.registration == registration_hash(claims[name])
    }
    evidence = [
        (pair, found)
        for name, verdict in valid.items()
        for pair in pairs[name]
        if (found := evidence_of(verdict, pair))
    ]
    between = _between(
        [each for _, each in evidence if not each.other_condition], asked
    )
    candidates = _candidates(between, [each for _, each in evidence], asked)
    contenders = _contenders(candidates, _unmeasured(pairs, valid))
    templates = [pair for pair, _ in evidence] or [
        p for ps in pairs.values() for p in ps
    ]
    return Recommendation(
        task=task,
        asked=asked,
        default=default,
        candidates=candidates,
        registered=_registered(pairs),
        own=list(own),
        gaps=[
            *gaps_of_claims(pairs, verdicts, valid),
            *gaps_of_candidates(candidates, contenders),
        ],
        experiment=experiment(contenders, asked, templates, valid),
        notes=[
            f"{name}: {caveat}"
            for name in _claims_used(candidates)
            for caveat in valid[name].caveats
        ],
    )


def _registered(pairs: Mapping[str, Sequence[Pair]]) -> list[str]:
    """Return all norms of the pairs of claims, sorted."""
    settings = (
        setting
        for of_claim in pairs.values()
        for pair in of_claim
        for setting in (pair.first, pair.second)
    )
    return sorted({setting.norm for setting in settings})


def _claims_used(candidates: Sequence[Candidate]) -> list[str]:
    """Return the claims of the evidence that is near the asked condition."""
    used = [
        each.claim
        for candidate in candidates
        for evidence in (
            *(against.evidence for against in candidate.against if not against.far),
            candidate.sensitivity,
        )
        for each in evidence
    ]
    return sorted({*used})


def _between(
    evidence: Iterable[Evidence], asked: Condition
) -> dict[tuple[str, str], list[Evidence]]:
    """Return the nearest evidence of each pair of norms; the names are sorted."""
    by_pair: dict[tuple[str, str], list[Evidence]] = {}
    for each in evidence:
        first, second = sorted((each.norm, each.other))
        by_pair.setdefault((first, second), []).append(each)
    return {pair: _nearest(of_pair, asked) for pair, of_pair in by_pair.items()}


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


def summary(norm: str, evidence: Sequence[Evidence]) -> Summary:
    """Return what contrasts of two norms say together of `norm`, one of them."""
    winners = {winner for each in evidence if (winner := winner_of(each))}
    leaning = {other for each in evidence if (other := leaning_of(each))}
    if len(winners) > 1:
        return "contradictory"
    if winners and leaning - winners:
        return "mixed"
    if winners:
        return "better than" if norm in winners else "worse than"
    relations: set[Relation] = {each.relation for each in evidence}
    if "not decided" in relations:
        return "not decided against"
    no_worse = {each.norm for each in evidence if each.relation == "no worse"}
    if not no_worse:
        return "as good as"
    # Two statements, each of another norm, exclude a difference on either side.
    if len(no_worse) > 1:
        return "as good as"
    return "no worse than" if norm in no_worse else "not better than"


def winner_of(evidence: Evidence) -> str | None:
    """Return the norm that a decided contrast calls better, if it does."""
    return _side(evidence, evidence.relation)


def leaning_of(evidence: Evidence) -> str | None:
    """Return the norm that an undecided contrast leans to, if it does."""
    return _side(evidence, evidence.leans)


def _side(evidence: Evidence, relation: Relation | None) -> str | None:
    if relation == "better":
        return evidence.norm
    return evidence.other if relation == "worse" else None


def _candidates(
    between: Mapping[tuple[str, str], Sequence[Evidence]],
    evidence: Sequence[Evidence],
    asked: Condition,
) -> list[Candidate]:
    """Return all norms with evidence, those with a better place first."""
    norms = sorted({norm for each in evidence for norm in (each.norm, each.other)})
    better = [
        (winner, next(norm for norm in pair if norm != winner))
        for pair, nearest in between.items()
        if not is_far(nearest[0], asked) and summary(pair[0], nearest) != "mixed"
        for each in nearest
        if (winner := winner_of(each))
    ]
    placed = standings(norms, better)

    def order(norm: str) -> tuple[int, int, int, str]:
        standing = placed[norm]
        near = sum(
            norm in pair and not is_far(each[0], asked)
            for pair, each in between.items()
        )
        count = len(standing.better_than) - len(standing.worse_than)
        return PLACES.index(standing.place), -count, -near, norm

    return [
        _candidate(norm, placed[norm], between, evidence, asked)
        for norm in sorted(norms, key=order)
    ]


ORDER = get_args(Summary)
"""The order in which what is said against other norms is listed."""


def _candidate(
    norm: str,
    standing: Standing,
    between: Mapping[tuple[str, str], Sequence[Evidence]],
    evidence: Sequence[Evidence],
    asked: Condition,
) -> Candidate:
    against = [
        Against(
            other=pair[1] if norm == pair[0] else pair[0],
            summary=summary(norm, nearest),
            far=is_far(nearest[0], asked),
            evidence=list(nearest),
        )
        for pair, nearest in between.items()
        if norm in pair
    ]
    return Candidate(
        norm=norm,
        place=standing.place,
        better_than=list(standing.better_than),
        worse_than=list(standing.worse_than),
        contradictory=list(standing.contradictory),
        against=sorted(against, key=lambda each: ORDER.index(each.summary)),
        sensitivity=_sensitivity(norm, evidence, asked),
    )


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
    candidates: Sequence[Candidate], unmeasured: Sequence[str]
) -> list[str]:
    """Return the norms that may be the best, one of those that are as good.

    These are the norms ahead and those in a contradiction. If there are fewer than two,
    norms follow that claims without a verdict compare (`unmeasured`), and then those
    with the next places.
    """
    if not candidates:
        return list(unmeasured)
    by_norm = {candidate.norm: candidate for candidate in candidates}
    best = [
        each.norm for each in candidates if each.place in {"ahead", "contradictory"}
    ]
    behind = {each.norm for each in candidates if each.place == "behind"}
    near = [each.norm for each in candidates if each.compared]
    kept: list[str] = []
    for norm in (*best, *(n for n in unmeasured if n not in behind), *near, *by_norm):
        if norm not in best and len(kept) > 1:
            break
        if norm not in kept and not _as_good(by_norm.get(norm)) & {*kept}:
            kept.append(norm)
    return kept[:MAX_CONTENDERS]


def _as_good(candidate: Candidate | None) -> set[str]:
    """Return the norms that are as good as a candidate, near the asked condition."""
    return {
        each.other
        for each in (candidate.against if candidate else ())
        if each.summary == "as good as" and not each.far
    }


def _unmeasured(
    pairs: Mapping[str, Sequence[Pair]], valid: Mapping[str, Verdict]
) -> list[str]:
    """Return norms that claims without a verdict compare, the most frequent first."""
    counts: dict[str, int] = {}
    for name, of_claim in pairs.items():
        if name not in valid:
            for pair in of_claim:
                for norm in {pair.first.norm, pair.second.norm}:
                    counts[norm] = counts.get(norm, 0) + pair.two_norms
    return sorted(counts, key=lambda norm: (-counts[norm], norm))[:MAX_CONTENDERS]
