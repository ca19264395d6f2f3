"""The types of a recommendation: what the verdicts say of the norms of a task."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from normbench.verdicts.conditions import Condition, TaskKind
from normbench.verdicts.design import Scale
from normbench.verdicts.preferences import Standing
from normbench.verdicts.verdict import Size
from normbench.verdicts.wording import difference_text

Direction = Literal["better", "worse"]
Relation = Direction | Literal["as good", "no worse", "not better", "not decided"]
"""What a contrast says of its first norm against its second one.

as good: a difference that matters is excluded, or the known difference is within the
margins. no worse: not worse by the margin, and perhaps better. not better: the second
norm is no worse.
"""
TURNED: dict[Relation, Relation] = {
    "better": "worse",
    "worse": "better",
    "no worse": "not better",
    "not better": "no worse",
}
"""What a relation says of the second norm; other relations say the same of both."""

Summary = Literal[
    "better", "no worse", "as good", "mixed", "contradictory", "not decided"
]
"""What all contrasts of two norms say together, in the order of the table.

contradictory: some say better, some worse. mixed: what is decided says better, but
something undecided leans the other way.
"""


class _Reported(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Evidence(_Reported):
    """One judged contrast of two norms, or of one norm under two conditions.

    `data` is the data set, with the level of the design if that says more than a batch
    size. `condition` is that of both norms, or that of the first of two conditions;
    `other_condition` is the second one. `effect` is the metric of `norm` minus that of
    `other`, and (`low`, `high`) the interval that decided; on the scale "ratio", all
    are logarithms of a ratio, as is `margin`. Lower is better. `leans` is the direction
    of a contrast that is not decided, if its interval excludes 0. `caveats` are those
    of the part on which the contrast bears.
    """

    claim: str
    design: str
    data: str
    contrast: str
    metric: str
    norm: str
    other: str
    condition: Condition
    other_condition: Condition | None
    relation: Relation
    leans: Direction | None
    size: Size | None
    scale: Scale
    effect: float | None
    low: float | None
    high: float | None
    margin: float
    margin_text: str
    n: int
    caveats: list[str]

    def numbers(self, *, interval: bool = True) -> str:
        """Return the effect, such as "-4.12 points [-4.42, -3.83]"."""
        if self.effect is None:
            return "no number"
        ends = None
        if interval and self.low is not None and self.high is not None:
            ends = self.low, self.high
        return difference_text(self.effect, ends, self.scale, self.metric)

    def turned(self) -> Self:
        """Return the same contrast of `other` against `norm`."""
        numbers = {"effect": self.effect, "low": self.high, "high": self.low}
        return self.model_copy(
            update={
                "norm": self.other,
                "other": self.norm,
                "relation": TURNED.get(self.relation, self.relation),
                "leans": self.leans and TURNED[self.leans],
            }
            | {key: None if n is None else -n for key, n in numbers.items()}
        )


class Comparison(_Reported):
    """What the nearest contrasts of two norms say together; the better one is `norm`.

    `evidence` is of `norm` against `other`. `far` is true if the nearest condition is
    too far from the asked one to count. `variants` is true if both are variants of one
    norm, such as GroupNorm with and without permuted channels.
    """

    norm: str
    other: str
    summary: Summary
    far: bool
    variants: bool
    evidence: list[Evidence]


class OwnRuns(_Reported):
    """The user's own finished runs of a norm at the asked condition, on one data set.

    `mean` is the mean of `metric` over `n` seeds at the learning rate `lr`, and (`low`,
    `high`) its 95 % t interval. `rates` are all rates with runs. If there are several,
    the rate with the best mean of the validation metric was chosen: `tuned`. `settings`
    are overrides in which runs on this data set differ, such as "budget.epochs=10".
    """

    norm: str
    data: str
    settings: tuple[str, ...]
    metric: str
    n: int
    mean: float | None
    low: float | None
    high: float | None
    failures: int
    lr: float
    rates: list[float]
    tuned: bool


class Gap(_Reported):
    """Something that the verdicts do not tell, and the command that would, "" if none.

    kind: "no verdict" (claims that are registered, but not checked), "changed" (claims
    whose yaml is not that of the verdict), "withdrawn", "not decided", "far" (measured
    only at other conditions), "not compared".
    """

    kind: Literal[
        "no verdict", "changed", "withdrawn", "not decided", "far", "not compared"
    ]
    text: str
    command: str = ""


class Experiment(_Reported):
    """The command that would compare the norms between which nothing is decided.

    `minutes` is the limit of its time on two cores. `seconds` is the measured time of
    one run on one core, in the design of `claim` from which the command takes its
    settings.
    """

    command: str
    norms: list[str]
    minutes: int
    seconds: float
    claim: str


class Recommendation(_Reported):
    """What is known of the norms of one task at the condition `asked`.

    `default` tells whether the batch size is the default of the task, because none was
    asked. `names` are the usual names of all norms, which are overrides elsewhere.
    `pairs` are in the order of the table. `standings` has the place of each norm.
    `sensitivity` has the contrasts of a norm near the asked condition with the same
    norm under another condition.
    """

    task: TaskKind
    asked: Condition
    default: bool
    names: dict[str, str]
    pairs: list[Comparison]
    standings: dict[str, Standing]
    sensitivity: list[Evidence]
    runs: list[OwnRuns]
    gaps: list[Gap]
    experiment: Experiment | None
    notes: list[str]
