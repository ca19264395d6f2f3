"""What the verdicts do not tell of the norms of a task."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from normbench.verdicts.conditions import conditions_text
from normbench.verdicts.pairs import Pair
from normbench.verdicts.recommendation import Candidate, Gap
from normbench.verdicts.verdict import PartVerdict, Verdict


def gaps_of_claims(
    pairs: Mapping[str, Sequence[Pair]],
    verdicts: Mapping[str, Verdict],
    valid: Mapping[str, Verdict],
) -> list[Gap]:
    """Return what claims would say: unchecked, changed, withdrawn and open ones."""
    gaps = []
    for name, of_claim in pairs.items():
        command = f"normbench claim check {name} --budget full"
        compared = {
            norm for pair in of_claim for norm in (pair.first.norm, pair.second.norm)
        }
        norms = ", ".join(sorted(compared))
        if name not in verdicts:
            text = f"{name} has no verdict yet; it compares {norms}"
            gaps.append(Gap(kind="no verdict", text=text, command=command))
        elif name not in valid:
            text = (
                f"the yaml of {name} has changed since its verdict, which is not used"
            )
            gaps.append(Gap(kind="changed", text=text, command=command))
        else:
            parts = {pair.contrast.part for pair in of_claim}
            for part in valid[name].parts:
                if part.name in parts and part.shown in {"withdrawn", "not decided"}:
                    gaps.append(_of_part(name, part))
    return gaps


def gaps_of_candidates(
    candidates: Sequence[Candidate], contenders: Sequence[str]
) -> list[Gap]:
    """Return the pairs that are measured far away only, and those never compared."""
    compared = set()
    far: dict[str, list[str]] = {}
    for candidate in candidates:
        for each in candidate.against:
            pair = frozenset((candidate.norm, each.other))
            if each.far and pair not in compared:
                where = conditions_text(e.condition for e in each.evidence)
                names = f"{candidate.norm} against {each.other}"
                far.setdefault(where, []).append(names)
            compared.add(pair)
    gaps = [
        Gap(kind="far", text=f"measured only at {where}: {'; '.join(names)}")
        for where, names in far.items()
    ]
    for first, second in combinations(contenders, 2):
        if candidates and frozenset((first, second)) not in compared:
            text = f"no verdict compares {first} with {second}"
            gaps.append(Gap(kind="not compared", text=text))
    return gaps


def _of_part(claim: str, part: PartVerdict) -> Gap:
    """Return the gap of a part that is not decided or withdrawn."""
    show = f"normbench claim show {claim}"
    if part.withdrawn:
        text = f"{claim}: {part.sentence} ({part.withdrawn})"
        return Gap(kind="withdrawn", text=text, command=show)
    return Gap(kind="not decided", text=f"{claim}: {part.sentence}", command=show)
