"""The types of a recommendation: what the verdicts say of the norms of a task."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from normbench.verdicts.conditions import Condition, TaskKind
from normbench.verdicts.design import Says, Scale
from normbench.verdicts.preferences import Place
from normbench.verdicts.verdict import Decision, Size

Relation = Literal["better", "worse", "as good", "no worse", "not decided"]
"""What a contrast says of its first norm against its second one.

as good: a difference that matters is excluded, or the known difference is within the
margins. no worse: not worse by the margin, and perhaps better.
"""

Direction = Literal["better", "worse"]

TURNED: dict[Relation, str] = {
    "better": "worse",
    "worse": "better",
    "no worse": "not better",
}
"""What a relation says of the second norm; other relations say the same of both."""

Summary = Literal[
    "better than",
    "worse than",
    "contradictory",
    "mixed",
    "as good as",
    "no worse than",
    "not better than",
    "not decided against",
]
"""What all contrasts of two norms say together.

contradictory: some say better, some worse. mixed: what is decided says better or worse,
but something undecided leans the other way. not better than: the other is no worse.
"""


class _Reported(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Evidence(_Reported):
    """One judged contrast of two norms, or of one norm under two conditions.

    `condition` is that of both norms, or that of the first of two conditions;
    `other_condition` is the second one. `effect` is the metric of `norm` minus that of
    `other`; on the scale "ratio", it is the logarithm of their ratio, as are `low`,
    `high` and `margin`. Lower is better. `numbers` are effect and interval as text, and
    `numbers_of_other` those of `other` minus `norm`. `leans` is the direction of a
    contrast that is not decided, if its interval excludes 0. `caveats` are those of the
    part on which the contrast bears.
    """

    claim: str
    design: str
    where: str
    contrast: str
    metric: str
    norm: str
    other: str
    condition: Condition
    other_condition: Condition | None
    relation: Relation
    leans: Direction | None
    decision: Decision
    size: Size | None
    says: Says
    scale: Scale
    effect: float | None
    low: float | None
    high: float | None
    margin: float
    n: int
    numbers: str
    numbers_of_other: str
    margin_text: str
    caveats: list[str]

    def relation_of(self, norm: str) -> str:
        """Return what the contrast says of `norm`, one of the two, with the size."""
        relation: str = self.relation
        if norm != self.norm:
            relation = TURNED.get(self.relation, relation)
        if self.leans:
            turned = TURNED[self.leans] if norm != self.norm else self.leans
            return f"{relation}, leans to {turned}"
        decided = relation in {"better", "worse"} and self.size
        return f"{relation}, {self.size}" if decided else relation

    def numbers_for(self, norm: str) -> str:
        """Return the metric of `norm`, one of the two, minus that of the other."""
        return self.numbers if norm == self.norm else self.numbers_of_other


class Against(_Reported):
    """What the nearest contrasts say of a norm against another norm.

    `far` is true if the nearest condition is too far from the asked one to count.
    """

    other: str
    summary: Summary
    far: bool
    evidence: list[Evidence]


class Candidate(_Reported):
    """A norm, its place, and the evidence for and against it.

    `sensitivity` has the contrasts of the norm under the asked condition, or one near
    it, with the same norm under another condition.
    """

    norm: str
    place: Place
    better_than: list[str]
    worse_than: list[str]
    contradictory: list[str]
    against: list[Against]
    sensitivity: list[Evidence]

    @property
    def compared(self) -> bool:
        """Whether a contrast with another norm is near the asked condition."""
        return not all(each.far for each in self.against)

    @property
    def near(self) -> bool:
        """Whether any evidence is near the asked condition."""
        return self.compared or bool(self.sensitivity)


class OwnRuns(_Reported):
    """The user's own finished runs of a norm at the asked condition, on one data set.

    `mean` is the mean of `metric` over `n` seeds at the learning rate `lr`, and (`low`,
    `high`) its 95 % t interval. `rates` are all rates with runs. If there are several,
    the rate with the best mean of the validation metric was chosen: `tuned`. `mixed`
    are other config keys in which the runs differ.
    """

    norm: str
    data: str
    metric: str
    n: int
    mean: float | None
    low: float | None
    high: float | None
    failures: int
    lr: float
    rates: list[float]
    tuned: bool
    mixed: list[str]


class Gap(_Reported):
    """Something that the verdicts do not tell, and the command that would, "" if none.

    kind: "no verdict" (a claim that is registered, but not checked), "changed" (its
    yaml is not that of its verdict), "withdrawn", "not decided", "far" (measured only
    at other conditions), "not compared".
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

    `candidates` are in the order of their places. `default` tells whether the batch
    size is the default of the task, because none was asked. `registered` are all norms
    that claims on the task compare, with a verdict or without.
    """

    task: TaskKind
    asked: Condition
    default: bool
    candidates: list[Candidate]
    registered: list[str]
    own: list[OwnRuns]
    gaps: list[Gap]
    experiment: Experiment | None
    notes: list[str]

    def at(self, place: Place) -> list[Candidate]:
        """Return the candidates of a place."""
        return [each for each in self.candidates if each.place == place]
