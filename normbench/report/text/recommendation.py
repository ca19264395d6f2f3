"""A recommendation as text for a terminal: the norms in order, then what is unknown."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from normbench.report import words
from normbench.report.text.paragraph import paragraph
from normbench.verdicts.conditions import TASKS, conditions_text
from normbench.verdicts.preferences import PLACES, Place
from normbench.verdicts.recommendation import (
    Against,
    Candidate,
    Evidence,
    OwnRuns,
    Recommendation,
)

TITLES: dict[Place, str] = {
    "ahead": "better than another norm, worse than none:",
    "contradictory": "contradictory, better here and worse there:",
    "undecided": "neither better nor worse than another norm, as far as is decided:",
    "behind": "worse than another norm:",
}


LEGEND = (
    "Numbers: the metric of the norm minus that of the other one, or their ratio in "
    "per cent; lower is better. clear: beyond the margin. open: whether it is beyond "
    "the margin is open. leans: the interval excludes 0, but nothing is decided."
)


def recommendation_text(recommendation: Recommendation, width: int) -> str:
    """Return a recommendation as lines of at most `width` characters.

    Only a command may be longer.
    """
    return "\n".join(_lines(recommendation, width))


def answer(recommendation: Recommendation) -> str:
    """Return the answer in one sentence: the norms that are ahead, if there are any."""
    ahead = [each.norm for each in recommendation.at("ahead")]
    if ahead:
        return f"The evidence is for {' and for '.join(ahead)}."
    if recommendation.candidates:
        return "No norm is ahead: nothing near this condition is decided for one."
    return (
        "There is no evidence: no claim on this task has a verdict that compares norms."
    )


def title(recommendation: Recommendation) -> str:
    """Return the task and the asked condition."""
    text = f"{recommendation.task}, {conditions_text([recommendation.asked])}"
    if recommendation.default:
        text += f" (the default of task={TASKS[recommendation.task]})"
    return text


def _lines(recommendation: Recommendation, width: int) -> Iterator[str]:
    yield paragraph("", f"{title(recommendation)}: {answer(recommendation)}", width)
    shown: set[str] = set()
    far = [each.norm for each in recommendation.candidates if not each.near]
    for place in PLACES:
        candidates = [each for each in recommendation.at(place) if each.near]
        if candidates:
            yield ""
            yield TITLES[place]
        for candidate in candidates:
            yield from _candidate(candidate, shown, width)
            shown.add(candidate.norm)
    if shown:
        yield ""
        yield paragraph("", LEGEND, width)
    if far:
        yield ""
        text = f"{', '.join(far)}: compared at other conditions only"
        yield paragraph("", text, width)
    if recommendation.own:
        yield ""
        yield "your runs (no part in the order):"
        for own in recommendation.own:
            yield paragraph("- ", own_text(own), width, indent=2)
    if recommendation.gaps:
        yield ""
        yield "not known:"
        for gap in recommendation.gaps:
            command = f" ({gap.command})" if gap.command else ""
            yield paragraph("- ", f"{gap.text}{command}", width, indent=2)
    for note in recommendation.notes:
        yield paragraph("note: ", note, width)
    if recommendation.experiment:
        yield ""
        yield paragraph("", cost_text(recommendation), width)
        yield f"  {recommendation.experiment.command}"


def _candidate(candidate: Candidate, shown: set[str], width: int) -> Iterator[str]:
    """Yield a norm with its evidence; that against a norm in `shown` is printed there.

    A relation that is only known through a third norm has no evidence of its own.
    """
    yield paragraph("", candidate.norm, width, indent=2)
    for each in candidate.against:
        if not each.far:
            yield paragraph("", relation_text(each), width, indent=4)
        if not each.far and each.other not in shown:
            for line in evidence_lines(candidate.norm, each.evidence):
                yield paragraph("", line, width, indent=6)
    direct = {each.other for each in candidate.against}
    for norms, text in (
        (candidate.better_than, "better than"),
        (candidate.worse_than, "worse than"),
    ):
        if implied := [norm for norm in norms if norm not in direct]:
            line = f"{text} {', '.join(implied)}, by a chain of contrasts"
            yield paragraph("", line, width, indent=4)
    for text, lines in sensitivity(candidate):
        yield paragraph("", text, width, indent=4)
        for line in lines:
            yield paragraph("", line, width, indent=6)


WITH = {"contradictory": "contradictory with", "mixed": "mixed against"}
"""Summaries that need another word before the name of a norm."""


def relation_text(against: Against) -> str:
    """Return what is said against another norm, and where it was measured."""
    where = conditions_text(each.condition for each in against.evidence)
    claims = ", ".join(dict.fromkeys(each.claim for each in against.evidence))
    margins = ", ".join(dict.fromkeys(each.margin_text for each in against.evidence))
    summary = WITH.get(against.summary, against.summary)
    return f"{summary} {against.other} ({claims}, at {where}, margin {margins})"


def evidence_lines(norm: str, evidence: Sequence[Evidence]) -> list[str]:
    """Return a line for each place and relation of `norm`, with all metrics of it."""
    lines: dict[str, list[str]] = {}
    for each in evidence:
        numbers = f"{each.metric} {each.numbers_for(norm)}"
        numbers += "".join(f" (but {caveat})" for caveat in each.caveats)
        said = f"{each.where}: {each.relation_of(norm)}"
        lines.setdefault(said, []).append(numbers)
    return [f"{said}; {', '.join(numbers)}" for said, numbers in lines.items()]


def sensitivity(candidate: Candidate) -> Iterator[tuple[str, list[str]]]:
    """Yield each pair of conditions of a norm in words, with the lines of evidence."""
    for (here, there, claim), group in groupby(
        candidate.sensitivity,
        key=lambda each: (each.condition, each.other_condition, each.claim),
    ):
        assert there is not None
        text = f"{conditions_text([here])} instead of {conditions_text([there])}"
        yield f"at {text} ({claim})", evidence_lines(candidate.norm, list(group))


def own_text(own: OwnRuns) -> str:
    """Return the mean of a user's runs, and whether the rate was tuned."""
    mean = "no mean"
    if own.mean is not None:
        mean = f"{own.mean:.4f}"
        if own.low is not None and own.high is not None:
            mean = words.estimate(own.mean, own.low, own.high)
    rate = f"lr {own.lr:g}, not tuned"
    if own.tuned:
        rates = ", ".join(f"{lr:g}" for lr in own.rates)
        rate = f"lr {own.lr:g}, the best of {rates} on validation data"
    elif len(own.rates) > 1:
        rate += f", one of {len(own.rates)} rates"
    text = f"{own.data}, {own.norm}: {own.metric} {mean}, n {own.n}, {rate}"
    if own.failures:
        text += f", {own.failures} failed"
    if own.mixed:
        text += f"; these runs differ in {', '.join(own.mixed)}"
    return text


def cost_text(recommendation: Recommendation) -> str:
    """Return what the command would do, and what it costs."""
    experiment = recommendation.experiment
    assert experiment is not None
    return (
        f"This command ranks {len(experiment.norms)} norms, or says what is open, in "
        f"at most {experiment.minutes} minutes on two cores (a run takes about "
        f"{experiment.seconds:.1f} s on one core). Its settings are those of "
        f"{experiment.claim}; put your own data and network in their place."
    )
