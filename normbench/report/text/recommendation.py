"""A recommendation in words: the answer, a row for each pair, and what is not known.

The terminal and docs/which-norm.md print the same sections.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from normbench.report import words
from normbench.verdicts.conditions import TASKS, conditions_text
from normbench.verdicts.recommendation import (
    Comparison,
    Evidence,
    OwnRuns,
    Recommendation,
    Relation,
    Summary,
)
from normbench.verdicts.wording import listed

COLUMNS = ("norm", "against", "result", "batch size", "claim")
MAX_NAMES = 3
"""Data sets that a cell names; of more, it says how many they are."""
RELATIONS: dict[Relation, str] = {
    "better": "",
    "worse": "",
    "as good": "within the margin",
    "no worse": "not worse by the margin",
    "not better": "not better by the margin",
    "not decided": "not decided",
}
"""Relations in the order of a cell, and their words; a direction has a number."""
MEANINGS = {
    "within the margin": "no difference is larger than the margin",
    "(open)": "a known direction, but perhaps no more than the margin",
    "not worse by the margin": "perhaps better",
    "not better by the margin": "perhaps worse",
    "leans": "the interval excludes 0, but the registered test decides nothing",
    "mixed": "decided in one direction, while something undecided leans to the other",
    "contradictory": "better in one place and worse in another",
    "WS": "Weight Standardization",
}
"""Words of the output, and what they mean."""


class Section(NamedTuple):
    """A part of the output: a title, a text, a table, a list and a command."""

    title: str = ""
    text: str = ""
    rows: Sequence[Mapping[str, str]] = ()
    items: Sequence[str] = ()
    command: str = ""


def title(recommendation: Recommendation) -> str:
    """Return the task and the asked condition."""
    task = recommendation.task.capitalize()
    text = f"{task}, {conditions_text([recommendation.asked])}"
    if recommendation.default:
        text += f" (the default of task={TASKS[recommendation.task]})"
    return text


def sections(recommendation: Recommendation) -> Iterator[Section]:
    """Yield the answer with a table, further pairs, and what is not known."""
    names = recommendation.names
    rows = [_row(pair, recommendation) for pair in _decided(recommendation)]
    rows += _chains(recommendation)
    yield Section(text=answer(recommendation), rows=rows)
    sensitive = [*_sensitivity(recommendation)]
    if sensitive:
        yield Section("The same norm at another batch size", items=sensitive)
    variants = [
        f"{names[pair.norm]} against {names[pair.other]}: {_result(pair)}"
        for pair in _decided(recommendation, variants=True)
    ]
    if variants:
        yield Section("Variants of one norm", items=variants)
    near = [
        each for pair in recommendation.pairs if not pair.far for each in pair.evidence
    ]
    near += recommendation.sensitivity
    caveats = {f"{each.claim}: {but}" for each in near for but in each.caveats}
    if caveats:
        yield Section("Caveats", items=sorted(caveats))
    shown = [*(cell for row in rows for cell in row.values()), *sensitive, *variants]
    if shown:
        yield Section(text=_legend(" ".join(shown), near))
    if runs := [_run(each, names[each.norm]) for each in recommendation.runs]:
        yield Section("Your runs (no part in the order)", items=runs)
    if recommendation.gaps:
        yield Section("Not known", items=[gap.text for gap in recommendation.gaps])
    if experiment := recommendation.experiment:
        norms = listed([names[norm] for norm in experiment.norms])
        yield Section(
            text=f"To compare {norms}, in at most {experiment.minutes} minutes on two "
            f"cores ({experiment.seconds:.1f} s a run; the settings are from "
            f"{experiment.claim}: --margin is the smallest difference that counts, and "
            "a norm whose training metric is worse than --gate did not train):",
            command=experiment.command,
        )


def details(recommendation: Recommendation) -> Iterator[Section]:
    """Yield all numbers with their intervals, and the notes of the verdicts."""
    names = recommendation.names
    for pair in recommendation.pairs:
        if not pair.far:
            overrides = f"{pair.norm} against {pair.other}"
            title = f"{names[pair.norm]} against {names[pair.other]}, {pair.summary}"
            yield Section(title, overrides, items=_numbers(pair.evidence))
    for norm, group in groupby(recommendation.sensitivity, attrgetter("norm")):
        title = f"{names[norm]} at another batch size"
        yield Section(title, norm, items=_numbers(list(group)))
    if recommendation.notes:
        yield Section("Notes of the verdicts", items=recommendation.notes)


def answer(recommendation: Recommendation) -> str:
    """Return what is decided between different norms, in one or two sentences."""
    if not recommendation.standings:
        return (
            "There is no evidence: no claim on this task has a verdict that compares "
            "norms."
        )
    where = conditions_text([recommendation.asked])
    clauses = [
        _clause(summary, recommendation.names[norm], list(pairs), recommendation.names)
        for (summary, norm), pairs in groupby(
            _decided(recommendation), attrgetter("summary", "norm")
        )
    ]
    if not clauses:
        return f"Nothing is decided between two norms at {where}."
    variants = any(_decided(recommendation, variants=True))
    but = ", except between variants of one norm" if variants else ""
    return f"At {where}, {'; '.join(clauses)}. Nothing else is decided{but}."


def _decided(
    recommendation: Recommendation, *, variants: bool = False
) -> Iterator[Comparison]:
    """Yield the decided pairs near the asked condition, in their order."""
    for pair in recommendation.pairs:
        if not pair.far and pair.variants == variants and pair.summary != "not decided":
            yield pair


def _clause(
    summary: Summary, norm: str, pairs: Sequence[Comparison], names: Mapping[str, str]
) -> str:
    """Return what is said of one norm against others with the same summary.

    If a norm is better on some data sets only, these are named.
    """
    others = []
    for pair in pairs:
        by_data = _by_data(pair.evidence).items()
        better = [d for d, found in by_data if "better" in {e.relation for e in found}]
        some = summary == "better" and len(better) < len(by_data)
        others.append(names[pair.other] + (f" (on {_names(better)})" if some else ""))
    if summary == "better":
        errors = any(_is_error(each) for pair in pairs for each in pair.evidence)
        verb = "is better" if errors else "has a lower loss"
        if all(_has_fewer_errors(pair) for pair in pairs):
            verb = "makes fewer errors"
        return f"{norm} {verb} than {listed(others)}"
    if summary == "no worse":
        return f"{norm} is not worse than {listed(others)} by the margin"
    if summary == "as good":
        return f"no difference of {norm} from {listed(others, 'or')} exceeds the margin"
    return f"the results for {norm} against {listed(others)} disagree"


def _row(pair: Comparison, recommendation: Recommendation) -> dict[str, str]:
    """Return the row of a pair, without intervals."""
    where = conditions_text(each.condition for each in pair.evidence)
    cells = (
        recommendation.names[pair.norm],
        recommendation.names[pair.other],
        _result(pair),
        where.replace("batch size ", ""),
        ", ".join(dict.fromkeys(each.claim for each in pair.evidence)),
    )
    return dict(zip(COLUMNS, cells, strict=True))


def _chains(recommendation: Recommendation) -> Iterator[dict[str, str]]:
    """Yield rows of the pairs that are in order only through a third norm."""
    names = recommendation.names
    direct = {frozenset((p.norm, p.other)) for p in recommendation.pairs if not p.far}
    for norm, standing in recommendation.standings.items():
        for other in standing.better_than:
            if frozenset((norm, other)) not in direct:
                cells = names[norm], names[other], "better, by a chain of rows", "", ""
                yield dict(zip(COLUMNS, cells, strict=True))


def _result(pair: Comparison) -> str:
    """Return the summary and what the data sets say, without intervals.

    Such as "better: -26.1 % on textures; within the margin on mnist5k".
    """
    text = _said(pair.evidence, leaning=pair.summary == "mixed")
    named = pair.summary in {"better", "mixed", "contradictory"}
    return f"{pair.summary}: {text}" if named else text


def _said(evidence: Sequence[Evidence], *, leaning: bool = False) -> str:
    """Return what contrasts say of each data set, those with the same word together.

    The loss of a data set is left out if the error says the same, or if the loss
    decides nothing; with `leaning`, a loss that leans is shown too.
    """
    parts: dict[tuple[int, str], dict[str, str]] = {}
    for data, of_data in _by_data(evidence).items():
        errors = [each for each in of_data if _is_error(each)]
        known = {(each.relation, each.leans) for each in errors}
        for each in of_data:
            says = each.relation in {"better", "worse"} or (leaning and each.leans)
            new = says and (each.relation, each.leans) not in known
            if each in errors or not errors or new:
                word = RELATIONS[each.relation] + _leaning(each)
                number = each.numbers(interval=False) + (
                    " (open)" if each.size == "open" else ""
                )
                loss = "" if _is_error(each) else "loss "
                key = [*RELATIONS].index(each.relation), loss + word
                parts.setdefault(key, {})[data] = "" if word else number
    return "; ".join(
        ", ".join(f"{word}{number} on {data}" for data, number in numbers.items())
        if any(numbers.values()) and len(numbers) <= MAX_NAMES
        else f"{word}{_range([*numbers.values()])} on {_names([*numbers])}"
        for (_, word), numbers in sorted(parts.items())
    )


def _range(numbers: Sequence[str]) -> str:
    """Return the smallest and the largest of texts that begin with a number."""
    ordered = sorted(filter(None, numbers), key=lambda text: float(text.split()[0]))
    return f"{ordered[0]} to {ordered[-1]}" if ordered else ""


def _leaning(evidence: Evidence) -> str:
    return f", leans to {evidence.leans}" if evidence.leans else ""


def _numbers(evidence: Sequence[Evidence]) -> list[str]:
    """Return a line for each data set, with intervals."""
    lines = []
    for data, of_data in _by_data(evidence).items():
        first, texts = of_data[0], []
        for each in of_data:
            text = f"{each.metric} {each.numbers()}, n {each.n}, {each.relation}"
            known = RELATIONS[each.relation] or each.size != "open"
            texts.append(text + ("" if known else ", size open") + _leaning(each))
        at = f"margin {first.margin_text}, {conditions_text([first.condition])}"
        lines.append(f"{data} ({at}, {first.claim}): {'; '.join(texts)}")
    return lines


def _sensitivity(recommendation: Recommendation) -> Iterator[str]:
    """Yield a line for each norm and pair of conditions of `sensitivity`."""
    for (norm, here, there, claim), group in groupby(
        recommendation.sensitivity,
        attrgetter("norm", "condition", "other_condition", "claim"),
    ):
        at = f"{conditions_text([here])} instead of {conditions_text([there])}"
        yield f"{recommendation.names[norm]} at {at}: {_said(list(group))} ({claim})"


def _legend(shown: str, evidence: Sequence[Evidence]) -> str:
    """Return what the numbers and words of the output `shown` mean."""
    metrics = dict.fromkeys(each.metric for each in evidence if _is_error(each))
    metrics = metrics or dict.fromkeys(each.metric for each in evidence)
    margins = dict.fromkeys(each.margin_text for each in evidence)
    has_ratio = any(" or -" in margin for margin in margins)
    ratio = "; both percentages are the same ratio, up and down" if has_ratio else ""
    texts = [
        f"Numbers: {listed([*metrics])}, first norm against second; less is better. "
        f"Margin: {listed([*margins], 'or')}{ratio}."
    ]
    texts += [f"{word}: {text}." for word, text in MEANINGS.items() if word in shown]
    return " ".join(texts)


def _by_data(evidence: Sequence[Evidence]) -> dict[str, list[Evidence]]:
    """Return evidence by data set; data that two claims share have the claim too."""
    claims = {(each.data, each.claim) for each in evidence}
    by_data: dict[str, list[Evidence]] = {}
    for each in evidence:
        shared = sum(data == each.data for data, _ in claims) > 1
        data = f"{each.data} ({each.claim})" if shared else each.data
        by_data.setdefault(data, []).append(each)
    return by_data


def _has_fewer_errors(pair: Comparison) -> bool:
    return any(_is_error(e) and e.relation == "better" for e in pair.evidence)


def _is_error(evidence: Evidence) -> bool:
    return evidence.metric.endswith("/error")


def _names(data: Sequence[str]) -> str:
    return listed(data) if len(data) <= MAX_NAMES else f"{len(data)} data sets"


def _run(runs: OwnRuns, name: str) -> str:
    """Return the mean of a user's runs, and whether the rate was tuned."""
    mean = "no mean" if runs.mean is None else f"{runs.mean:.4f}"
    if runs.mean is not None and runs.low is not None and runs.high is not None:
        mean = words.estimate(runs.mean, runs.low, runs.high)
    rate = "the only rate of these runs"
    if runs.tuned:
        rates = ", ".join(f"{lr:g}" for lr in runs.rates)
        rate = f"the best of {rates} on validation data"
    elif len(runs.rates) > 1:
        rate = f"not tuned, one of {len(runs.rates)} rates"
    where = ", ".join((runs.data, *runs.settings))
    text = f"{where}, {name}: {runs.metric} {mean}, n {runs.n}, lr {runs.lr:g}, {rate}"
    return text + (f", {runs.failures} failed" if runs.failures else "")
