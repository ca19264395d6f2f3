"""Give each part of a sentence its headline, by rule from what bears on it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime

from normbench.verdicts.counting import CensusVerdict
from normbench.verdicts.design import Bears
from normbench.verdicts.registration import Part
from normbench.verdicts.verdict import (
    Bearing,
    ContrastVerdict,
    Decision,
    DesignVerdict,
    Headline,
    Kind,
    PartVerdict,
    Registered,
    Result,
    Size,
    TheoremVerdict,
)

_FLIPPED: dict[Result, Result] = {"for": "against", "against": "for"}


def judge_parts(
    parts: Mapping[str, Part],
    theorems: Sequence[TheoremVerdict],
    census: Sequence[CensusVerdict],
    mechanisms: Sequence[DesignVerdict],
    outcomes: Sequence[DesignVerdict],
    registered: Registered | None,
    first_run: str | None,
) -> list[PartVerdict]:
    """Return the verdict of each part; the contrasts are those after Holm's adjustment.

    `registered` is the commit of the registration, and `first_run` the time at which
    the first run began. A registration that is younger than a run is a caveat.
    """
    too_late = _too_late(registered, first_run)
    return [
        _judged(
            name,
            part,
            [
                *(_of_theorem(theorem) for theorem in theorems if theorem.part == name),
                *(_of_rule(rule) for rule in census if rule.part == name),
            ],
            (("mechanism", mechanisms), ("outcome", outcomes)),
            too_late,
        )
        for name, part in parts.items()
    ]


def _of_theorem(theorem: TheoremVerdict) -> Bearing:
    return _bearing("theorem", theorem.check, theorem.decision, theorem.bears)


def _of_rule(rule: CensusVerdict) -> Bearing:
    return _bearing("census", rule.name, rule.decision, rule.bears)


def _bearing(
    kind: Kind,
    name: str,
    decision: Decision,
    bears: Bears,
    *,
    size: Size | None = None,
    design: str = "",
) -> Bearing:
    """Return what a statement says of its part; only a contrast has a design."""
    speaks = result(decision, size, bears == "against")
    return Bearing(kind=kind, design=design, name=name, bears=bears, result=speaks)


def _judged(
    name: str,
    part: Part,
    bearings: list[Bearing],
    designs: Sequence[tuple[Kind, Sequence[DesignVerdict]]],
    too_late: str | None,
) -> PartVerdict:
    """Return the verdict of a part; `bearings` are those of theorems and censuses."""
    caveats = [] if too_late is None else [too_late]
    for kind, of_kind in designs:
        for design, contrast in _bearing_contrasts(of_kind, name):
            bearings.append(
                _bearing(
                    kind,
                    contrast.name,
                    contrast.decision,
                    contrast.bears,
                    size=contrast.size,
                    design=design.name,
                )
            )
            if opposite := _opposite_sign(design, contrast):
                caveats.append(opposite)
    return PartVerdict(
        name=name,
        sentence=part.sentence,
        scope=part.scope,
        headline=headline([bearing.result for bearing in bearings]),
        bearings=bearings,
        caveats=caveats,
    )


def _bearing_contrasts(
    designs: Sequence[DesignVerdict], part: str
) -> Iterator[tuple[DesignVerdict, ContrastVerdict]]:
    for design in designs:
        for contrast in design.contrasts:
            if contrast.part == part:
                yield design, contrast


def result(decision: Decision, size: Size | None, against: bool) -> Result:
    """Return what a decision says of a part; `against`: the statement bears against it.

    A small difference in the stated direction speaks neither for nor against a part:
    it exists, but its size does not matter. In the opposite direction, the statement is
    false whatever the size.
    """
    if decision == "not tested":
        return "not tested"
    if decision == "not decided":
        return "open"
    if decision == "confirmed" and size == "small":
        return "small"
    speaks: Result = "for" if decision == "confirmed" else "against"
    return _FLIPPED[speaks] if against else speaks


def headline(results: Collection[Result]) -> Headline:
    """Return the headline of a part from the results of all that bears on it.

    A part holds only if everything speaks for it, and does not hold only if everything
    speaks against it. What was not tested, as in a smaller budget, does not count.
    """
    tested = {each for each in results if each != "not tested"}
    if not tested:
        return "not tested"
    if {"for", "against"} <= tested:
        return "holds in part"
    if "open" in tested:
        return "not decided"
    if tested == {"for"}:
        return "holds"
    if tested == {"against"}:
        return "does not hold"
    return "holds in part"


def _opposite_sign(design: DesignVerdict, contrast: ContrastVerdict) -> str | None:
    """Return a caveat if the best common rate gives a decided contrast another sign."""
    common, effect = contrast.best_common, contrast.effect
    if common is None or effect is None or contrast.says not in {"greater", "less"}:
        return None
    decided = contrast.decision in {"confirmed", "contradicted"}
    if not decided or common.effect * effect >= 0:
        return None
    return (
        f"{design.name}, {contrast.name}: the sign is the opposite if all arms have "
        f"the learning rate {contrast.best_common_rate}"
    )


def _too_late(registered: Registered | None, first_run: str | None) -> str | None:
    """Return a caveat if the registration is younger than a run."""
    if registered is None or first_run is None:
        return None
    try:
        before = datetime.fromisoformat(registered.time) <= datetime.fromisoformat(
            first_run
        )
    except (ValueError, TypeError):  # no time, or one without its time zone
        return f"the time of the first run, {first_run!r}, cannot be read"
    if before:
        return None
    return (
        f"the registration of {registered.time} is younger than the first run, of "
        f"{first_run}"
    )
