"""A user's comparison in words: a table of the arms, and a sentence for each answer.

The terminal and the page show the same rows, notes and sentences.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from normbench import stats
from normbench.report import words
from normbench.report.text.answer import Answer, Tried, fit_caveat, length, rates_caveat
from normbench.report.text.ranking import ranking_answer, ranking_rows
from normbench.verdicts.comparisons import Comparison, standing
from normbench.verdicts.design import arm_of, level_of
from normbench.verdicts.summaries import CellSummary
from normbench.verdicts.verdict import ContrastVerdict, DesignVerdict, Verdict
from normbench.verdicts.wording import margin_text, mean_text, unit, value_text

EXPLORATORY = "exploratory: no claim was registered before the runs"


class Shown(NamedTuple):
    """What is shown of a comparison: notes, a row for each arm, then the answers."""

    title: str
    notes: list[str]
    rows: list[dict[str, str]]
    answers: list[str]


def shown(comparison: Comparison) -> Shown:
    """Return what is shown of a comparison with its answer."""
    settings = comparison.design.common or "the default config"
    budget = (comparison.ranking or comparison).budget
    if budget is not None:
        settings += f"; {length(budget)}"
    if comparison.ranking is not None:
        return Shown(
            title=f"{settings} ({EXPLORATORY})",
            notes=comparison.ranking.caveats,
            rows=[*ranking_rows(comparison.ranking)],
            answers=[ranking_answer(comparison.ranking).text],
        )
    verdict, judged = comparison.verdict, comparison.judged
    assert verdict is not None and judged is not None
    return Shown(
        title=f"{settings} ({EXPLORATORY})",
        notes=[*verdict.caveats, *_notes(verdict, judged)],
        rows=[*_rows(comparison, judged, verdict.alpha)],
        answers=[answer.text for answer in verdict_answers(comparison).values()],
    )


class _Pair(NamedTuple):
    """The two arms of a contrast in words, the better one first.

    `means` are those on the seeds of the contrast. `level` is "" without levels, and
    `than` is "" if there are only two arms. `caveat` is a sentence on its rates, or "".
    """

    level: str
    better: str
    worse: str
    than: str
    means: str
    rates: str
    gate: str
    caveat: str

    def sentence(self, text: str) -> str:
        """Return the text with the level before it."""
        if not self.level:
            return text
        starts_with_arm = text.startswith(self.better)
        rest = text if starts_with_arm else f"{text[:1].lower()}{text[1:]}"
        return f"At {self.level}, {rest}"


def verdict_answers(comparison: Comparison) -> dict[str, Answer]:
    """Return the answer of each contrast by name, those at one level together."""
    design, judged = comparison.design, comparison.judged
    assert judged is not None
    contrasts = {contrast.name: contrast for contrast in judged.contrasts}
    answers = {}
    for level in design.levels:
        for registered in design.contrasts:
            cells = [*(registered.weights or ())]
            if level_of(cells[0]) == level:
                contrast = contrasts[registered.name]
                pair = _pair(contrast, cells, comparison, judged)
                answers[contrast.name] = _answer(contrast, pair)
    return answers


def _pair(
    contrast: ContrastVerdict,
    cells: Sequence[str],
    comparison: Comparison,
    judged: DesignVerdict,
) -> _Pair:
    """Return the pair of a contrast, which is the first of `cells` minus the second."""
    design, effect = comparison.design, contrast.effect or 0.0
    other, first = cells
    first_is_better = (effect > 0) == (contrast.says == "less")
    better, worse = (first, other) if first_is_better else (other, first)
    by_name = {cell.cell: cell for cell in judged.cells}
    values = [by_name[cell].mean.get(contrast.metric) for cell in (other, first)]
    # A cell of several contrasts may have more seeds than this contrast.
    if None not in values and by_name[first].n != contrast.n == by_name[other].n:
        values[1] = (values[0] or 0.0) - effect
    means = dict(zip(cells, values, strict=True))
    texts = [
        "-" if (mean := means[cell]) is None else mean_text(mean, contrast.metric)
        for cell in (better, worse)
    ]
    tuned = len(set(design.rates)) > 1
    side = "above" if contrast.says == "greater" else "below"
    gate = f"no level with a mean {words.metric_words(design.gate.metric)} {side}"
    return _Pair(
        level=design.levels[level_of(first)],
        better=arm_of(better),
        worse=arm_of(worse),
        than=f" than {arm_of(worse)}" if len(design.arms) > 2 else "",
        means=" against ".join(texts),
        rates="tuned rates" if tuned else f"lr {design.rates[0]:g}, not tuned",
        gate=f"{gate} {design.gate.below:g}, which --gate asks for",
        caveat=rates_caveat(
            {
                arm_of(name): Tried(lr, [rate.lr for rate in cell.rates], cell.at_edge)
                for name in (better, worse)
                if (lr := (cell := by_name[name]).usual_rate) is not None
            }
        )
        + fit_caveat(
            {
                arm_of(name): by_name[name].mean.get(design.gate.metric)
                for name in (better, worse)
            },
            design.gate.metric,
            comparison.budget,
        ),
    )


def _notes(verdict: Verdict, judged: DesignVerdict) -> Iterator[str]:
    """Yield what limits the answers: rates on which they depend, and early stops."""
    yield from dict.fromkeys(
        f"{part.name}: {caveat}" for part in verdict.parts for caveat in part.caveats
    )
    for contrast in judged.contrasts:
        if contrast.stopped_early:
            yield f"{contrast.name}: {words.looks_taken(contrast)}"


def _rows(
    comparison: Comparison, judged: DesignVerdict, alpha: float
) -> Iterator[dict[str, str]]:
    """Yield a row for each arm at each level, those of one level together."""
    design = comparison.design
    (metric,) = words.metrics(judged)
    order = {level: place for place, level in enumerate(design.levels)}
    for cell in sorted(judged.cells, key=lambda c: order[level_of(c.cell)]):
        row = {}
        if len(order) > 1:
            row["level"] = design.levels[level_of(cell.cell)]
        row["arm"] = arm_of(cell.cell)
        row["lr"] = "-" if cell.usual_rate is None else f"{cell.usual_rate:g}"
        if comparison.scaled:
            peak = comparison.peak_lr.get(cell.cell)
            row["peak_lr"] = "-" if peak is None else f"{peak:.3g}"
        row[words.metric_words(metric)] = _mean(cell, metric, alpha)
        gate = design.gate.metric
        if gate != metric and gate in cell.mean:
            row[words.metric_words(gate)] = mean_text(cell.mean[gate], gate)
        row["seeds"] = str(cell.n)
        yield row | {"failures": words.cell_problems(cell) or "-"}


def _mean(cell: CellSummary, metric: str, alpha: float) -> str:
    """Return the mean of a cell with its t interval, such as "15.10 % [13.9, 16.3]"."""
    if metric not in cell.mean:
        return "-"
    mean, sd = cell.mean[metric], cell.sd.get(metric)
    text = mean_text(mean, metric)
    if sd is None or cell.n < 2:
        return text
    half_width = stats.half_width(sd, cell.n, 1 - alpha)
    low, high = (
        mean_text(end, metric).removesuffix(" %")
        for end in (mean - half_width, mean + half_width)
    )
    return f"{text} [{low}, {high}]"


def _answer(contrast: ContrastVerdict, pair: _Pair) -> Answer:
    """Return an answer that names the better arm, or says that none is known.

    Such as "BatchNorm is better: 15.10 % against 22.60 % test error, 7.50 points
    [3.70, 11.40], 6 seeds, tuned rates."
    """
    between = f"between {pair.better} and {pair.worse}"
    if contrast.effect is None or contrast.interval is None:
        return Answer(pair.sentence(f"Not decided {between}"), contrast.because, ".")
    kind, margin = standing(contrast), margin_text(contrast)
    finding, end = f"{pair.better} is better{pair.than}", "."
    if kind == "not decided":
        finding, end = f"Not decided {between}", f". {_undecided(contrast, pair.gate)}"
    elif kind == "no difference" and contrast.size == "small":
        finding += f", but by less than the margin of {margin}"
    elif kind == "no difference":
        finding, end = f"No relevant difference {between}", f"; margin {margin}."
    elif contrast.size == "open":
        end = f". It is open whether by more than the margin of {margin}."
    means = f"{pair.means} {words.metric_words(contrast.metric)}"
    rest = f", {_difference(contrast)}, {contrast.n} seeds, {pair.rates}{end}"
    return Answer(pair.sentence(finding), means, rest + pair.caveat)


def _difference(contrast: ContrastVerdict) -> str:
    """Return how much better the better arm is, and the interval that decided.

    The interval of an undecided contrast contains 0, so it may begin below 0.
    """
    assert contrast.effect is not None and contrast.interval is not None
    turn = 1 if contrast.effect > 0 else -1
    ends = sorted(turn * end for end in contrast.interval[:2])
    effect, low, high = (
        value_text(value, contrast.scale, contrast.metric, sign=False)
        for value in (abs(contrast.effect), *ends)
    )
    which = unit(contrast.scale, contrast.metric)
    return f"{effect}{f' {which}' if which else ''} [{low}, {high}]"


def _undecided(contrast: ContrastVerdict, gate: str) -> str:
    """Return why nothing is decided, and how many seeds would decide it."""
    if contrast.because.startswith("gate"):
        return f"{contrast.because[:1].upper()}{contrast.because[1:]} ({gate})."
    text = f"{contrast.because[:1].upper()}{contrast.because[1:]}."
    if contrast.looks:
        return f"{text} That was the last look, at {contrast.looks[-1]} seeds."
    if contrast.seeds_needed is None or contrast.seeds_needed <= contrast.n:
        return text
    more = contrast.seeds_needed - contrast.n
    return f"{text} About {more} more seeds would settle it."
