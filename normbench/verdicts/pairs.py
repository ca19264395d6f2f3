"""Find the contrasts of a claim that compare two norms, or one norm at two batch sizes.

A verdict has the decision of a contrast, and the registered design has its cells. A
contrast compares two norms if its positive and its negative cells differ in nothing but
the norm, or, where a norm uses no other samples, in the number of samples per
statistic.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from normbench.verdicts.conditions import Condition, Setting, TaskKind, setting_of
from normbench.verdicts.contrasts import statistics_of
from normbench.verdicts.design import Contrast, Design, Says, level_of
from normbench.verdicts.recommendation import Direction, Evidence, Relation
from normbench.verdicts.registration import Claim
from normbench.verdicts.spending import Looks
from normbench.verdicts.verdict import ContrastVerdict, Size, Verdict
from normbench.verdicts.wording import margin_text

LOWER_IS_BETTER = ("error", "loss")
"""Quantities of the metrics that say which norm is better."""


class Pair(NamedTuple):
    """What a registered contrast compares: the metric of `first` minus `second`.

    `name` is that of the design. `data` is the data set, or the design without one, and
    the level if it names data.
    """

    claim: str
    contrast: Contrast
    design: Design
    name: str
    first: Setting
    second: Setting
    data: str

    @property
    def task(self) -> TaskKind:
        """The task of both cells."""
        return self.first.task

    @property
    def norms(self) -> set[str]:
        """The norms of both cells; a single one if they differ in the condition."""
        return {self.first.norm, self.second.norm}

    @property
    def two_norms(self) -> bool:
        """Whether the cells differ in the norm, and not in the condition."""
        return len(self.norms) == 2

    @property
    def condition(self) -> Condition:
        """The condition of the first cell, with the samples that either norm uses."""
        first, second = self.first.condition, self.second.condition
        if first.samples_per_statistic is None and self.two_norms:
            return second
        return first


def pairs_of(claim: Claim, config_dir: Path | None = None) -> Iterator[Pair]:
    """Yield the contrasts of a claim that compare norms or batch sizes."""
    for name, design in claim.designs().items():
        split = design.validation.partition("/")[0].replace("val", "test", 1)
        metrics = [f"{split}/{quantity}" for quantity in LOWER_IS_BETTER]
        for contrast in design.contrasts:
            if contrast.metric in metrics and not contrast.expected:
                pair = _pair(claim.name, contrast, design, name, config_dir)
                if pair is not None:
                    yield pair


def _pair(
    claim: str, contrast: Contrast, design: Design, name: str, config_dir: Path | None
) -> Pair | None:
    weights = contrast.weights or {}
    settings = {c: s for c in weights if (s := setting_of(design, c, config_dir))}
    positive, negative = (
        [cell for cell, weight in weights.items() if (weight > 0) == sign]
        for sign in (True, False)
    )
    if not weights or len(settings) < len(weights) or len(positive) != len(negative):
        return None
    for one, other in zip(positive, negative, strict=True):
        a, b = settings[one], settings[other]
        if weights[one] != -weights[other] or (a.rest, a.task) != (b.rest, b.task):
            return None
    for side in (positive, negative):
        if len({(settings[cell].norm, settings[cell].condition) for cell in side}) > 1:
            return None
    first, second = settings[positive[0]], settings[negative[0]]
    if not _comparable(first, second):
        return None
    levels = [level_of(cell) for cell in positive if _names_data(design, cell)]
    data = " ".join([name.partition("-")[2] or name, *dict.fromkeys(levels)])
    return Pair(claim, contrast, design, name, first, second, data)


def _comparable(first: Setting, second: Setting) -> bool:
    """Return whether two cells differ either in the norm or in the condition."""
    if first.norm == second.norm:
        return first.condition != second.condition
    a, b = first.condition, second.condition
    samples = {a.samples_per_statistic, b.samples_per_statistic} - {None}
    return a.batch_size == b.batch_size and len(samples) <= 1


def _names_data(design: Design, cell: str) -> bool:
    """Return whether the level of a cell says more than a batch size."""
    words = design.levels[level_of(cell)].split()
    return any(not word.startswith(("batch_size=", "norm_batch=")) for word in words)


def evidence_of(verdict: Verdict, pair: Pair) -> Evidence | None:
    """Return what a verdict says of a pair; None if it was not tested or is withdrawn.

    `verdict` is that of the claim of the pair, and of the same registration.
    """
    judged = next(
        (
            contrast
            for design in verdict.designs
            for contrast in design.contrasts
            if (design.name, contrast.name) == (pair.name, pair.contrast.name)
        ),
        None,
    )
    if judged is None or judged.decision == "not tested":
        return None
    part = next((each for each in verdict.parts if each.name == judged.part), None)
    if part is not None and part.withdrawn:
        return None
    primary = [c for design in verdict.designs for c in design.contrasts if c.primary]
    tests = len(primary) if judged.primary else 1
    direction = direction_of(judged, pair.contrast, pair.design, tests, verdict.alpha)
    shown = _directed(judged, direction)
    return Evidence(
        claim=verdict.claim,
        design=pair.name,
        data=pair.data,
        contrast=judged.name,
        metric=judged.metric,
        norm=pair.first.norm,
        other=pair.second.norm,
        condition=pair.condition,
        other_condition=None if pair.two_norms else pair.second.condition,
        relation=relation(judged, direction),
        leans=direction if judged.decision == "not decided" else None,
        size=shown.size,
        scale=judged.scale,
        effect=judged.effect,
        low=shown.interval and shown.interval.low,
        high=shown.interval and shown.interval.high,
        margin=judged.margin,
        margin_text=margin_text(judged),
        n=judged.n,
        caveats=part.caveats if part else [],
    )


def _directed(judged: ContrastVerdict, direction: Direction | None) -> ContrastVerdict:
    """Return a contrast with the interval and the size of a further direction."""
    if direction is None:
        return judged
    ends = judged.low_margin, judged.high_margin
    clear = all(end is not None and abs(end) > judged.margin for end in ends)
    size: Size = "clear" if clear else "open"
    return judged.model_copy(update={"says": "less", "size": size})


def relation(judged: ContrastVerdict, direction: Direction | None) -> Relation:
    """Return what a judged contrast says of its first norm against its second one.

    `direction` is that of `direction_of`.
    """
    if judged.decision in {"not decided", "not tested"} or judged.effect is None:
        return "not decided"
    if judged.decision == "no relevant difference" or judged.size == "small":
        return "as good"
    if judged.says in {"greater", "less"} or judged.decision == "contradicted":
        return "better" if judged.effect < 0 else "worse"
    if judged.says == "equal":
        return "as good"
    return "better" if direction == "better" else "no worse"


def direction_of(
    judged: ContrastVerdict,
    contrast: Contrast,
    design: Design,
    tests: int,
    alpha: float,
) -> Direction | None:
    """Return a direction beyond what was registered; None if none is shown.

    The statements "equal" and "not greater" do not ask for a direction. So a contrast
    with such a statement is tested once more: two-sided, over all looks, and with p
    multiplied by `tests`, the number of primary contrasts if it is one of them
    (Bonferroni). A difference within the margins has no direction that matters.
    """
    asked = judged.says == "not_greater" and judged.decision == "confirmed"
    asked = asked or (
        judged.says in {"equal", "not_greater"} and judged.decision == "not decided"
    )
    values = list(judged.values.values())
    if not asked or judged.effect is None or len(values) < 2:
        return None
    looks = None
    if judged.looks and judged.planned is not None:
        looks = Looks(tuple(judged.looks), judged.planned, design.spending)
    says: Says = "less" if judged.effect < 0 else "greater"
    directed = contrast.model_copy(update={"says": says})
    numbers = statistics_of(directed, values, alpha, looks)
    within = -judged.margin < numbers.low_margin and numbers.high_margin < judged.margin
    if within or numbers.p * tests >= alpha:
        return None
    return "better" if judged.effect < 0 else "worse"
