"""The answer of `compare` in words, its exit code, and the file that keeps it."""

from pathlib import Path

import pytest
from comparisons_made import a_comparison
from rankings_made import a_ranking, an_arm
from verdicts_made import SITUATIONS

from normbench.config.schema import Budget
from normbench.report.page import page
from normbench.report.page.material import gather
from normbench.report.text.comparison import shown
from normbench.verdicts.comparisons import (
    Standing,
    comparison_exit_code,
    exit_code,
    read_comparisons,
    write_comparison,
)
from normbench.verdicts.ranking import LeftOut

TWO = "BatchNorm and GroupNorm with 4 groups"
ANSWERS = {
    "far above": (
        "BatchNorm is better: 15.35 % against 20.35 % test error, 5.00 points [4.92, "
        "5.08], 8 seeds, tuned rates.",
        0,
    ),
    "far below": (
        "GroupNorm with 4 groups is better: 10.35 % against 15.35 % test error, 5.00 "
        "points [4.92, 5.08], 8 seeds, tuned rates.",
        10,
    ),
    "above 0, a trifle": (
        "BatchNorm is better, but by less than the margin of 1 point: 15.35 % against "
        "15.75 % test error, 0.40 points [0.32, 0.48], 8 seeds, tuned rates.",
        11,
    ),
    "nothing, precisely": (
        "No relevant difference between BatchNorm and GroupNorm with 4 groups: 15.35 % "
        "against 15.37 % test error, 0.02 points [-0.05, 0.09], 8 seeds, tuned rates; "
        "margin 1 point.",
        11,
    ),
    "above 0, around the margin": (
        "BatchNorm is better: 15.35 % against 16.35 % test error, 1.00 points [0.67, "
        "1.33], 8 seeds, tuned rates. It is open whether by more than the margin of 1 "
        "point.",
        0,
    ),
}


def test_a_sentence_names_the_winner_and_the_exit_code_agrees() -> None:
    for situation, (answer, code) in ANSWERS.items():
        comparison = a_comparison([*SITUATIONS[situation] + shift(situation)])
        assert shown(comparison).answers == [answer], situation
        assert comparison_exit_code(comparison) == code, situation
    comparison = a_comparison([*SITUATIONS["nothing, vaguely"] + 0.0002], rates=[0.1])
    (answer,) = shown(comparison).answers
    assert answer.startswith(f"Not decided between {TWO}: 15.35 % against 15.37 %")
    assert "8 seeds, lr 0.1, not tuned. The 95% interval has 0 in it" in answer
    assert comparison_exit_code(comparison) == 12


def test_the_answer_says_that_a_rate_is_at_the_edge_of_those_tried() -> None:
    comparison = a_comparison([*SITUATIONS["far above"]])
    verdict, judged = comparison.verdict, comparison.judged
    assert verdict is not None and judged is not None
    first, second = judged.cells
    (rate,) = second.rates
    twice = rate.model_copy(update={"lr": 0.2, "seeds": 0})
    poor = second.model_copy(update={"at_edge": True, "rates": [rate, twice]})
    design = judged.model_copy(update={"cells": [first, poor]})
    edge = verdict.model_copy(update={"outcomes": [design]})
    (answer,) = shown(comparison.model_copy(update={"verdict": edge})).answers
    assert answer == (
        f"{ANSWERS['far above'][0]} But the rate of GroupNorm with 4 groups is at the "
        "edge of those tried: try --rates 0.05,0.1,0.2."
    )


def test_the_answer_says_that_an_arm_fits_its_training_data_poorly() -> None:
    comparison = a_comparison([*SITUATIONS["far above"]])
    verdict, judged = comparison.verdict, comparison.judged
    assert verdict is not None and judged is not None
    first, second = judged.cells
    poor = second.model_copy(update={"mean": second.mean | {"train/error": 0.256}})
    design = judged.model_copy(update={"cells": [first, poor]})
    changes = {
        "verdict": verdict.model_copy(update={"outcomes": [design]}),
        "budget": Budget(epochs=2, max_steps=None),
    }
    view = shown(comparison.model_copy(update=changes))
    assert view.title.startswith("the default config; 2 epochs (exploratory: ")
    assert [row["train error"] for row in view.rows] == ["5.00 %", "25.60 %"]
    assert view.answers == [
        f"{ANSWERS['far above'][0]} But after 2 epochs the training error is still 26 "
        "% (GroupNorm with 4 groups): more training may change the answer, try "
        "budget.epochs=8."
    ]


def shift(situation: str) -> float:
    """Return what makes the sign of the mean of a situation certain."""
    return 0.0002 if situation.startswith("nothing") else 0.0


def test_the_table_has_short_names_and_the_levels_that_vary() -> None:
    comparison = a_comparison(
        *([*SITUATIONS["far above"]],) * 2,
        levels="batch_size=8,32",
        arms=["norm=batch task.depth=2", "norm=group task.depth=2"],
    )
    assert comparison.design.common == "task.depth=2"
    view = shown(comparison)
    assert "task.depth=2 (exploratory: " in view.title
    train = "5.00 %"
    assert [[*row.values()] for row in view.rows[:2]] == [
        ["batch_size=8", "BatchNorm", "0.1", "15.35 % [15.15, 15.55]", train, "8", "-"],
        ["batch_size=8", "GroupNorm", "0.1", "20.35 % [20.06, 20.64]", train, "8", "-"],
    ]
    assert [answer[:40] for answer in view.answers] == [
        "At batch_size=8, BatchNorm is better: 15",
        "At batch_size=32, BatchNorm is better: 1",
    ]
    peak_lr = {"BatchNorm@8": 0.025, "GroupNorm@8": 0.025}
    scaled = comparison.model_copy(update={"peak_lr": peak_lr})
    assert [row["peak_lr"] for row in shown(scaled).rows] == ["0.025"] * 2 + ["-"] * 2


def test_an_arm_that_did_not_train_decides_nothing() -> None:
    comparison = a_comparison([*SITUATIONS["far above"]], gate=0.01)
    (answer,) = shown(comparison).answers
    assert "not decided" in answer.lower()
    assert "did not train (no level with a mean train error below 0.01" in answer
    assert comparison_exit_code(comparison) == 12


def test_the_worst_standing_gives_the_exit_code_of_several_contrasts() -> None:
    cases: list[tuple[list[Standing], int]] = [
        (["better", "better"], 0),
        (["better", "no difference"], 11),
        (["no difference", "not decided"], 12),
        (["not decided", "worse", "better"], 10),
    ]
    for standings, code in cases:
        assert exit_code(standings) == code, standings


def test_a_ranking_has_a_row_for_each_arm_and_an_exit_code() -> None:
    best, equal, worse, undecided = (
        an_arm("BatchNorm", "best", 0.0),
        an_arm("GroupNorm with 4 groups", "equal", 0.001),
        an_arm("GroupNorm with 4 groups", "worse", 0.2),
        an_arm("BatchNorm", "open", 0.005),
    )
    first_is_worse = (an_arm("LayerNorm", "best", 0.0), an_arm("BatchNorm", "worse", 0))
    out = LeftOut(arm="BatchNorm", reason="did not train on 6 test seeds")
    for arms, code in (
        ((best, worse), 0),
        ((best, equal), 11),
        (first_is_worse, 10),
        ((equal, undecided), 12),
        ((), 12),
    ):
        compared = a_comparison(ranking=a_ranking(*arms, left_out=[out]))
        assert comparison_exit_code(compared) == code, arms
    view = shown(a_comparison(ranking=a_ranking(best, worse, left_out=[out])))
    assert [row["arm"] for row in view.rows] == [
        "BatchNorm",
        "GroupNorm with 4 groups",
        "BatchNorm",
    ]
    assert view.answers[0].startswith("BatchNorm is the best of 2 arms: 5.00 % [4.00")


def test_a_comparison_is_read_as_it_was_written(tmp_path: Path) -> None:
    comparison = a_comparison([*SITUATIONS["far above"]], seeds=[8, 16])
    folder = write_comparison(comparison, tmp_path)
    assert folder.parent == tmp_path / "comparisons"
    assert folder.name.startswith("batch-or-group-")
    (tmp_path / "comparisons" / "damaged").mkdir()
    (tmp_path / "comparisons" / "damaged" / "comparison.json").write_text("{")
    read, damaged = read_comparisons(tmp_path)
    assert read == {folder.name: comparison}
    assert [error.path.parent.name for error in damaged] == ["damaged"]


@pytest.mark.usefixtures("no_package_verdicts")
def test_the_page_says_who_is_better_and_expects_nothing(tmp_path: Path) -> None:
    comparison = a_comparison([*SITUATIONS["far above"]], seeds=[8, 16])
    write_comparison(comparison, tmp_path / "runs")
    drawn = page.render(gather(tmp_path / "runs", tmp_path / "claims"), {}, {}).html
    start = drawn.index("Your comparisons", drawn.index('id="comparisons"'))
    text = drawn[start : drawn.index("</section>", start)]
    assert text.count("BatchNorm is better") == 3  # the answer, the bar, the table
    for word in ("expected", "contradicted", "confirmed"):
        assert word not in text
