"""The figures of a user's comparison."""

import pytest
from comparisons_made import ARMS, a_comparison
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from rankings_made import a_ranking, an_arm, tuned
from records_made import a_record
from test_comparison_text import ANSWERS, shift
from verdicts_made import SITUATIONS

from normbench.config.schema import RunRecord
from normbench.report.figures import drawing
from normbench.report.figures.comparison import comparison_figures
from normbench.verdicts.comparisons import Comparison

NAMES = ["BatchNorm", "GroupNorm with 4 groups"]
OF_CLAIMS = ("laim", "contradicted", "confirmed", "expected", "hold")


def texts_of(figure: Figure) -> str:
    """Return all texts of a figure and those for a screen reader, in one line."""
    texts = [text.get_text() for text in figure.findobj(Text)]
    return " ".join(" ".join([*texts, *drawing.title_of(figure)]).split())


def drawn(comparison: Comparison, *records: RunRecord) -> dict[str, str]:
    figures = comparison_figures(comparison, records)
    for figure in figures.values():
        assert drawing.svg(figure)
    return {name: texts_of(figure) for name, figure in figures.items()}


@pytest.mark.parametrize("situation", ANSWERS)
def test_the_title_is_the_answer_and_no_claim_is_named(situation: str) -> None:
    comparison = a_comparison([*SITUATIONS[situation] + shift(situation)], rates=[0.1])
    figures = drawn(comparison)
    assert [*figures] == ["comparison", "comparison-contrasts"]
    headline = ANSWERS[situation][0].partition(" test error,")[0] + " test error"
    for texts in figures.values():
        assert texts.startswith(headline) or headline in texts
        assert not any(word in texts for word in OF_CLAIMS), texts
        assert "lr 0.1, not tuned" in texts and "(exploratory)" in texts
    contrasts = figures["comparison-contrasts"]
    assert "← GroupNorm with 4 groups better" in contrasts
    assert "BatchNorm better →" in contrasts
    assert f"{headline.partition(':')[0]} (test error)" in contrasts
    assert " against (Holm)" not in contrasts


def test_many_answers_are_listed_below_the_question() -> None:
    comparison = a_comparison(
        *([*SITUATIONS["far above"]],) * 3, levels="batch_size=8,16,32"
    )
    for texts in drawn(comparison).values():
        assert "BatchNorm or GroupNorm with 4 groups?" in texts
        assert "At batch_size=16, BatchNorm is better: 15.35 %" in texts


def test_a_ranking_has_figures_of_its_means_and_differences() -> None:
    ranking = a_ranking(
        an_arm(NAMES[1], "best", 0.0),
        an_arm(NAMES[0], "worse", 0.02),
        tuning=[tuned(NAMES[1], 0.1), tuned(NAMES[0], 0.2)],
    )
    figures = drawn(a_comparison(ranking=ranking))
    assert [*figures] == ["comparison", "comparison-contrasts"]
    means, differences = figures.values()
    for texts in (means, differences):
        assert "GroupNorm with 4 groups is the best of 2 arms: 5.00 %" in texts
        assert "BatchNorm is worse by 2.00 points" in texts
        assert not any(word in texts for word in OF_CLAIMS), texts
    assert "try --rates 0.05,0.1,0.2,0.4." in means
    assert means.index("5.00 % 7.00 %") < means.index(NAMES[1])  # the best first
    assert "Mean over 12 seeds with its 95% interval" in means
    assert "at rates chosen on tuning seeds" in means
    assert "test error minus that of GroupNorm with 4 groups (points)" in differences
    assert "+2.00 points" in differences
    assert "within the margin of 1 point." in differences
    assert drawn(a_comparison(ranking=a_ranking(seen=[], ended="time"))) == {}


def test_single_seeds_are_dots_beside_the_means_of_a_ranking() -> None:
    runs = [
        a_record(*ARMS[0].split(), f"seed={seed}", metrics={"test/error": 0.04 + e})
        for seed, e in enumerate([0.0, 0.02])
    ]
    best = an_arm(NAMES[0], "best", 0.0).model_copy(update={"n": 2})
    ids = [run.run_id for run in runs]
    ranking = a_ranking(best, an_arm(NAMES[1], "worse", 0.02), run_ids=ids)
    comparison = a_comparison(ranking=ranking)
    figure = comparison_figures(comparison, runs)["comparison"]
    (dots,) = figure.axes[0].findobj(PathCollection)
    assert "single seeds as dots" in texts_of(figure)
    assert sorted(dots.get_offsets()[:, 0]) == pytest.approx([4.0, 6.0])
    assert "single seeds" not in texts_of(comparison_figures(comparison)["comparison"])
