"""What the verdicts do not tell of the norms of a task."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from normbench.verdicts.conditions import conditions_text
from normbench.verdicts.pairs import Pair
from normbench.verdicts.recommendation import Comparison, Gap
from normbench.verdicts.verdict import Verdict

MAX_NUMBERS = 3
"""Effects that are shown of an undecided pair; a pair with more has none."""
CHECK = "normbench claim check NAME --budget full"


def gaps_of_claims(
    registered: Mapping[str, Sequence[Pair]],
    verdicts: Mapping[str, Verdict],
    valid: Mapping[str, Verdict],
) -> list[Gap]:
    """Return the claims without a verdict, the changed ones, and withdrawn parts."""
    gaps = []
    if missing := [name for name in registered if name not in verdicts]:
        text = f"no verdict yet ({CHECK}): {', '.join(missing)}"
        gaps.append(Gap(kind="no verdict", text=text, command=CHECK))
    if changed := [name for name in registered if name in verdicts.keys() - valid]:
        text = f"changed after the verdict, so not used ({CHECK}): {', '.join(changed)}"
        gaps.append(Gap(kind="changed", text=text, command=CHECK))
    for name, verdict in valid.items():
        parts = {pair.contrast.part for pair in registered[name]}
        for part in verdict.parts:
            if part.name in parts and part.withdrawn:
                text = f"withdrawn, {name}: {part.sentence} ({part.withdrawn})"
                show = f"normbench claim show {name}"
                gaps.append(Gap(kind="withdrawn", text=text, command=show))
    return gaps


def gaps_of_pairs(
    pairs: Sequence[Comparison], contenders: Sequence[str], names: Mapping[str, str]
) -> list[Gap]:
    """Return pairs that are undecided, measured far away only, or never compared.

    The texts have the `names` of the norms, and the effects of undecided pairs. They
    leave out variants that are measured far away.
    """
    gaps = []
    undecided: dict[str, list[Comparison]] = {}
    far: dict[str, list[Comparison]] = {}
    for pair in pairs:
        where = conditions_text(each.condition for each in pair.evidence)
        if pair.far and not pair.variants:
            far.setdefault(where, []).append(pair)
        elif not pair.far and pair.summary == "not decided":
            undecided.setdefault(where, []).append(pair)
    for where, those in undecided.items():
        text = f"not decided at {where}: {_grouped(those, names, numbers=True)}"
        gaps.append(Gap(kind="not decided", text=text))
    for where, those in far.items():
        text = f"measured only at {where}: {_grouped(those, names)}"
        gaps.append(Gap(kind="far", text=text))
    compared = {frozenset((pair.norm, pair.other)) for pair in pairs}
    for first, second in combinations(contenders, 2):
        if pairs and frozenset((first, second)) not in compared:
            text = f"never compared: {names[first]} and {names[second]}"
            gaps.append(Gap(kind="not compared", text=text))
    return gaps


def _grouped(
    pairs: Iterable[Comparison], names: Mapping[str, str], *, numbers: bool = False
) -> str:
    """Return pairs as text, such as "A against B, C; D against E"."""
    others: dict[str, list[str]] = {}
    for pair in pairs:
        other = names[pair.other] + (_effects(pair) if numbers else "")
        others.setdefault(names[pair.norm], []).append(other)
    return "; ".join(f"{norm} against {', '.join(o)}" for norm, o in others.items())


def _effects(pair: Comparison) -> str:
    """Return the effects of a pair with intervals, such as " (-4 % [-9, 1] on names)".

    Losses are left out if there are errors.
    """
    errors = [each for each in pair.evidence if each.metric.endswith("/error")]
    evidence = errors or pair.evidence
    if len(evidence) > MAX_NUMBERS:
        return ""
    texts = [
        f"{each.numbers()} on {each.data}"
        + (f", leans to {each.leans}" if each.leans else "")
        for each in evidence
    ]
    return f" ({'; '.join(texts)})"
