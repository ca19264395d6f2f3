"""Comparisons that a user asked for: who is better, and the files that keep them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue, field_serializer

from normbench.config.schema import Budget
from normbench.errors import NormbenchError, Unreadable
from normbench.system import untrusted
from normbench.system.atomic import write_atomically
from normbench.verdicts.design import Design
from normbench.verdicts.ranking import Ranking
from normbench.verdicts.registration import Claim, registration_hash
from normbench.verdicts.verdict import ContrastVerdict, DesignVerdict, Verdict

FOLDER = "comparisons"
"""Folder of all comparisons, in the folder of the runs."""
FILE = "comparison.json"
MAX_NAMED_ARMS = 3

Standing = Literal["better", "worse", "no difference", "not decided"]
"""How the first arm stands against another arm; no difference: none beyond the margin,
also if the direction is known."""
EXIT_CODES: dict[Standing, int] = {
    "better": 0,
    "worse": 10,
    "no difference": 11,
    "not decided": 12,
}
"""Exit codes of `compare --exit-code`."""


class Comparison(BaseModel):
    """What was asked, and the answer: a `verdict`, or a `ranking` of `--minutes`.

    `peak_lr` is the peak learning rate of each cell at the chosen lr, which a rule may
    scale with the batch size. `budget` is the length of a training. Both are those of a
    verdict, and empty if an older version has compared; a ranking has its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal[1] = 1
    claim: Claim
    verdict: Verdict | None = None
    ranking: Ranking | None = None
    peak_lr: dict[str, float] = {}
    budget: Budget | None = None

    @field_serializer("claim")
    def _without_defaults(self, claim: Claim) -> dict[str, JsonValue]:
        """A design that was given looks may not be read with seeds too."""
        plain: dict[str, JsonValue] = claim.model_dump(
            mode="json", exclude_defaults=True
        )
        return plain

    @property
    def name(self) -> str:
        """The name of its folder: the arms, and a hash of what was asked."""
        norms = [_norm(text) for text in self.design.arms.values()]
        names = [name for n, name in enumerate(norms) if name not in norms[:n]]
        if len(names) > MAX_NAMED_ARMS:
            names[MAX_NAMED_ARMS - 1 :] = [f"{len(names) - MAX_NAMED_ARMS + 1}-others"]
        return f"{'-or-'.join(names)}-{registration_hash(self.claim)[:8]}"

    @property
    def question(self) -> str:
        """What was asked, such as "BatchNorm or GroupNorm?"."""
        return f"{' or '.join(self.design.arms)}?"

    @property
    def design(self) -> Design:
        """The arms, the levels and the contrasts."""
        (design,) = self.claim.outcomes.values()
        return design

    @property
    def judged(self) -> DesignVerdict | None:
        """The judged design; None for a ranking."""
        return self.verdict.outcomes[0] if self.verdict else None

    @property
    def scaled(self) -> bool:
        """Whether the peak learning rate of a cell is not its lr."""
        cells = self.judged.cells if self.judged else []
        return any(
            self.peak_lr.get(c.cell, c.usual_rate) != c.usual_rate for c in cells
        )

    @property
    def run_ids(self) -> list[str]:
        """The ids of all runs that the answer rests on."""
        answer = self.verdict or self.ranking
        return answer.run_ids if answer else []

    @property
    def command(self) -> str:
        """The command line that asked."""
        answer = self.verdict or self.ranking
        return answer.command if answer else ""


def _norm(overrides: str) -> str:
    """Return a short name of an arm that is valid as a part of a file name."""
    norms = [w.removeprefix("norm=") for w in overrides.split() if w[:5] == "norm="]
    name = norms[-1] if norms else overrides
    return (
        "".join(c if c.isalnum() or c == "_" else "-" for c in name)[:40] or "default"
    )


def standing(contrast: ContrastVerdict) -> Standing:
    """Return how the first arm stands; the contrast is another arm minus the first.

    The contrast states that the other arm is better.
    """
    if contrast.decision == "no relevant difference" or contrast.size == "small":
        return "no difference"
    if contrast.decision == "confirmed":
        return "worse"
    return "better" if contrast.decision == "contradicted" else "not decided"


def standing_in(ranking: Ranking, first: str) -> Standing:
    """Return how the arm `first` stands against the arms that it may be better than.

    Of an arm that is not the best: how it stands against the best arm.
    """
    places = {arm.arm: arm.place for arm in ranking.arms}
    place = places.pop(first, None)
    if place == "best":
        if "open" in places.values() or not places:
            return "not decided"
        return "no difference" if "equal" in places.values() else "better"
    if place == "worse" or (place is None and _is_dropped(ranking, first)):
        return "worse"
    return "no difference" if place == "equal" else "not decided"


def _is_dropped(ranking: Ranking, arm: str) -> bool:
    """Return whether tuning seeds showed that an arm is clearly worse."""
    tuned = {each.arm for each in ranking.tuning}
    reasons = [each.reason for each in ranking.left_out if each.arm == arm]
    return arm in tuned and any("worse" in reason for reason in reasons)


def exit_code(standings: Iterable[Standing]) -> int:
    """Return the exit code of several contrasts.

    It is 0 only if the first arm is better in each of them. Otherwise, one contrast in
    which it is worse counts more than an undecided one, and this more than no
    difference.
    """
    known = set(standings)
    order: tuple[Standing, ...] = ("worse", "not decided", "no difference")
    return next((EXIT_CODES[each] for each in order if each in known), 0)


def comparison_exit_code(comparison: Comparison) -> int:
    """Return the exit code of `compare --exit-code`."""
    if comparison.ranking is not None:
        first = next(iter(comparison.design.arms))
        return exit_code([standing_in(comparison.ranking, first)])
    assert comparison.judged is not None
    return exit_code(standing(contrast) for contrast in comparison.judged.contrasts)


def write_comparison(comparison: Comparison, results: Path) -> Path:
    """Write a comparison in the folder of the runs; return its own folder.

    Raises NormbenchError if it cannot be written.
    """
    folder = results / FOLDER / comparison.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / FILE, comparison.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise NormbenchError(f"{folder} cannot be written: {error.strerror}") from None
    return folder


def read_comparisons(results: Path) -> tuple[dict[str, Comparison], list[Unreadable]]:
    """Return the comparisons in the folder of the runs by name, and damaged files."""
    comparisons, damaged = {}, []
    for path in sorted((results / FOLDER).glob(f"*/{FILE}")):
        try:
            data = untrusted.content(path, untrusted.MAX_VERDICT_BYTES)
            comparisons[path.parent.name] = untrusted.parsed(Comparison, data, path)
        except Unreadable as error:
            damaged.append(error)
    return comparisons, damaged
