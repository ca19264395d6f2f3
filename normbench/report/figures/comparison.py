"""The figures of a user's comparison; the title is the answer of the terminal."""

from collections.abc import Iterable, Mapping

from matplotlib.figure import Figure

from normbench.config.schema import RunRecord
from normbench.report.figures.drawing import TEXT_COLOUR, style
from normbench.report.figures.layout import Texts
from normbench.report.figures.names import norm_of
from normbench.report.figures.rows import rows_figure
from normbench.report.figures.seeds import SeedRuns
from normbench.report.figures.series import Point, count_range, styled_series
from normbench.report.figures.titles import Head, unbroken, with_minus
from normbench.report.figures.units import Quantity, quantity
from normbench.report.figures.verdict import design_figures
from normbench.report.text.answer import Answer
from normbench.report.text.comparison import verdict_answers
from normbench.report.text.ranking import ranking_answer
from normbench.verdicts.comparisons import Comparison
from normbench.verdicts.ranking import Ranking
from normbench.verdicts.wording import difference_margin_text, unit

MAX_TITLES = 2
"""With more answers, the title is the question, and the answers follow."""


def comparison_figures(
    comparison: Comparison, records: Iterable[RunRecord] = ()
) -> dict[str, Figure]:
    """Draw two figures: NAME with the arms, and NAME-contrasts with their differences.

    NAME is that of the only design. Leaves out figures that would be empty. `records`
    are the runs of the comparison: those that are known are dots beside the means.
    """
    runs = SeedRuns(records, comparison.run_ids)
    with style():
        if comparison.ranking is not None:
            return _ranking_figures(comparison, comparison.ranking, runs)
        verdict, judged = comparison.verdict, comparison.judged
        assert verdict is not None and judged is not None
        answers = verdict_answers(comparison)
        return design_figures(
            judged, comparison.design, verdict, runs, _head(comparison, answers)
        )


def _head(comparison: Comparison, answers: Mapping[str, Answer]) -> Head:
    """Return what the figures say; `answers` has a name for each."""
    several = len(answers) > MAX_TITLES
    numbers = [_sentence(answer.rest) for answer in answers.values()]
    headlines = [unbroken(answer.headline) for answer in answers.values()]
    return Head(
        name=comparison.question.removesuffix("?"),
        title=comparison.question if several else "\n".join(headlines),
        lead="\n".join(headlines if several else numbers),
        scope=f"{comparison.design.common or 'The default config'} (exploratory)",
        source=f"Comparison {comparison.name}",
        answers={name: answer.finding for name, answer in answers.items()},
    )


def _sentence(rest: str) -> str:
    """Return what follows the numbers of an answer as a sentence of its own."""
    text = rest.lstrip(",. ")
    return with_minus(unbroken(f"{text[:1].upper()}{text[1:]}"))


def _ranking_figures(
    comparison: Comparison, ranking: Ranking, runs: SeedRuns
) -> dict[str, Figure]:
    """Draw the mean of each arm, the best first, and its difference from the best."""
    if not ranking.arms:
        return {}
    (name,) = comparison.claim.outcomes
    head = _head(comparison, {name: ranking_answer(ranking)})
    figures = {name: _means(comparison, ranking, runs, head)}
    if any(arm.from_best for arm in ranking.arms):
        figures[f"{name}-contrasts"] = _differences(comparison, ranking, head)
    return figures


def _means(
    comparison: Comparison, ranking: Ranking, runs: SeedRuns, head: Head
) -> Figure:
    metric = ranking.metric
    points = {
        arm.arm: Point(
            arm.mean,
            arm.low,
            arm.high,
            runs.with_mean(metric, arm.lr, arm.n, arm.mean),
        )
        for arm in ranking.arms
    }
    dots = ", single seeds as dots" if any(p.seeds for p in points.values()) else ""
    rates = {f"{arm.lr:g}" for arm in ranking.arms}
    rate = "rates chosen on tuning seeds" if ranking.tuning else f"lr {rates.pop()}"
    legend = (
        f"Mean over {count_range([arm.n for arm in ranking.arms])} seeds with its "
        f"{1 - ranking.alpha:.0%} interval (Student's t){dots}, at {rate}"
        + ("" if ranking.tuning else ", not tuned")
    )
    return _drawn(comparison, head, legend, points, quantity(metric))


def _differences(comparison: Comparison, ranking: Ranking, head: Head) -> Figure:
    metric, margin = ranking.metric, ranking.margin
    pairs = {arm.arm: arm.from_best for arm in ranking.arms if arm.from_best}
    points = {
        arm: Point(pair.difference, pair.low, pair.high) for arm, pair in pairs.items()
    }
    legend = (
        f"Difference from {ranking.arms[0].arm} over "
        f"{count_range([pair.n for pair in pairs.values()])} paired seeds with its "
        f"repeated {1 - ranking.alpha:.0%} interval (valid for all looks together). "
        "Shaded: within the margin of "
        f"{difference_margin_text(margin, 'difference', metric)}."
    )
    which = unit("difference", metric)
    factor = 100.0 if which else 1.0
    measure = Quantity(
        f"{quantity(metric).words} minus that of {ranking.arms[0].arm}",
        "points" if which else "",
        factor,
        None,
        None,
        "",
    )
    drawn = _drawn(comparison, head, legend, points, measure, ": contrasts")
    (axes,) = drawn.axes
    left, right = -factor * margin, factor * margin
    ends = (*axes.get_xlim(), 1.2 * left, 1.2 * right)
    axes.axvspan(left, right, color=TEXT_COLOUR, alpha=0.09, linewidth=0, zorder=0)
    axes.axvline(0, color=TEXT_COLOUR, linewidth=0.6)
    axes.set_xlim(min(ends), max(ends))
    return drawn


def _drawn(
    comparison: Comparison,
    head: Head,
    legend: str,
    points: Mapping[str, Point],
    measure: Quantity,
    what: str = "",
) -> Figure:
    """Draw a row for each arm in `points`."""
    described = []
    for arm, point in points.items():
        ends = [end for end in (point.low, point.high) if end is not None]
        shown = [measure.text(measure.factor * value) for value in (point.mean, *ends)]
        described.append(f"{arm}: {shown[0]} [{', '.join(shown[1:])}]")
    texts = Texts(
        name=head.name + what,
        title=head.title,
        lead=head.lead,
        subtitle=f"{head.scope}\n{legend}",
        notes=head.source,
        description="\n".join(described),
    )
    all_series = styled_series(
        {arm: {"-": point.drawn(measure)} for arm, point in points.items()},
        {arm: norm_of(arm, comparison.design) for arm in points},
    )
    return rows_figure(all_series, {"-": "-"}, texts, measure)
