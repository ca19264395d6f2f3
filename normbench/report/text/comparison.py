"""A user's comparison in words: a table of the arms, and a sentence for each answer.

The terminal and the page show the same rows, notes and sentences.
"""

from collections.abc import Iterator
from typing import NamedTuple

from normbench import stats
from normbench.report import words
from normbench.report.text.ranking import ranking_answer, ranking_rows
from normbench.verdicts.comparisons import Comparison, standing
from normbench.verdicts.design import Contrast, arm_of, level_of
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
    if comparison.ranking is not None:
        return Shown(
            title=f"{settings} ({EXPLORATORY})",
            notes=comparison.ranking.caveats,
            rows=[*ranking_rows(comparison.ranking)],
            answers=[ranking_answer(comparison.ranking)],
        )
    verdict, judged = comparison.verdict, comparison.judged
    assert verdict is not None and judged is not None
    return Shown(
        title=f"{settings} ({EXPLORATORY})",
        notes=[*verdict.caveats, *_notes(verdict, judged)],
        rows=[*_rows(comparison, judged, verdict.alpha)],
        answers=[
            _answer(registered, contrast, comparison)
            for registered, contrast in zip(
                comparison.design.contrasts, judged.contrasts, strict=True
            )
        ],
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
        row[words.metric_words(metric)] = _mean(cell, metric, alpha)
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


def _answer(
    registered: Contrast, contrast: ContrastVerdict, comparison: Comparison
) -> str:
    """Return a sentence that names the better arm, or says that none is known.

    Such as "BatchNorm is better: 15.10 % against 22.60 % test error, 7.50 points
    [3.70, 11.40], 6 seeds, tuned rates."
    """
    assert comparison.judged is not None and registered.weights is not None
    (other, first) = registered.weights
    level = comparison.design.levels[level_of(first)]
    at = f"At {level}: " if level else ""
    if contrast.effect is None or contrast.interval is None:
        names = f"{arm_of(first)} or {arm_of(other)}"
        return f"{at}Not decided, {names}: {contrast.because}."
    other_is_better = (contrast.effect < 0) == (contrast.says == "less")
    better, worse = (other, first) if other_is_better else (first, other)
    means = {cell.cell: cell.mean for cell in comparison.judged.cells}
    pair = [mean_text(means[cell][contrast.metric], contrast.metric)
            for cell in (better, worse)]  # fmt: skip
    numbers = (
        f"{' against '.join(pair)} {words.metric_words(contrast.metric)}, "
        f"{_difference(contrast)}, {contrast.n} seeds, {_rates(comparison, better)}"
    )
    names = f"{arm_of(better)} against {arm_of(worse)}"
    kind = standing(contrast)
    if kind == "not decided":
        return f"{at}Not decided, {names}: {numbers}. {_undecided(contrast)}"
    if kind == "no difference":
        margin = margin_text(contrast)
        if contrast.size == "small":
            text = f"{arm_of(better)} is better, but by less than the margin {margin}"
            return f"{at}{text}: {numbers}."
        text = f"No relevant difference (margin {margin}), {names}"
        return f"{at}{text}: {numbers}."
    versus = f" than {arm_of(worse)}" if len(comparison.design.arms) > 2 else ""
    open_size = ""
    if contrast.size == "open":
        margin = margin_text(contrast)
        open_size = f" Whether by more than the margin {margin} is open."
    return f"{at}{arm_of(better)} is better{versus}: {numbers}.{open_size}"


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


def _rates(comparison: Comparison, cell: str) -> str:
    assert comparison.judged is not None
    if len(set(comparison.design.rates)) > 1:
        return "tuned rates"
    (summary,) = (each for each in comparison.judged.cells if each.cell == cell)
    return f"lr {summary.usual_rate:g}, not tuned"


def _undecided(contrast: ContrastVerdict) -> str:
    """Return why nothing is decided, and how many seeds would decide it."""
    text = f"{contrast.because[:1].upper()}{contrast.because[1:]}."
    if contrast.looks:
        return f"{text} That was the last look, at {contrast.looks[-1]} seeds."
    if contrast.seeds_needed is None or contrast.seeds_needed <= contrast.n:
        return text
    more = contrast.seeds_needed - contrast.n
    return f"{text} About {more} more seeds would settle it."
