"""The text of a race's result."""

from typing import Any

import pytest
from rankings_made import a_ranking, an_arm, tuned

from normbench.config.schema import Budget
from normbench.report.text.ranking import ranking_answer, ranking_rows, ranking_text
from normbench.verdicts.ranking import (
    Further,
    LeftOut,
    ProvisionalArm,
    TunedArm,
)

LONG = "norm=group norm.num_groups=4 reparam=scaled_weight_std optimizer=adamw x=yy"


BEST = an_arm("norm=batch", "best", 0.0)
OPEN = an_arm("norm=layer", "open", 0.005)
EQUAL = an_arm("norm=group", "equal", 0.001)
WORSE = an_arm(LONG, "worse", 0.2, p=1.234e-11)


def test_the_last_lines_name_the_winner_with_its_numbers() -> None:
    text = ranking_text(a_ranking(BEST, EQUAL, WORSE))
    assert " ".join(text.split()).endswith(
        "norm=batch is the best of 3 arms: 5.00 % [4.00, 6.00] test error, 12 seeds, "
        "lr 0.1, not tuned. As good within the margin of 1 point: norm=group. "
        f"{LONG} is worse by 20.00 points [19.00, 21.00]."
    )


def test_arms_before_the_first_look_have_provisional_means() -> None:
    early = [
        ProvisionalArm(arm="norm=batch", lr=0.1, peak_lr=0.0125, n=4, mean=0.05),
        ProvisionalArm(arm="norm=layer", lr=0.2, n=4, mean=None),
    ]
    ranking = a_ranking(
        seen=[], ended="time", provisional=early, tuning=[tuned("a", 0.1)]
    )
    text = " ".join(ranking_text(ranking).split())
    assert "test/error over 4 test seeds; a ranking needs 6 seeds:" in text
    assert "- norm=batch: 5.00 % (lr 0.1, peak_lr 0.0125)" in text
    assert "- norm=layer: no finite test/error (lr 0.2)" in text
    assert "val/error by lr" not in text and "interval" not in text
    assert "There is no ranking yet: " in text
    assert "The means above are provisional." in text
    assert text.endswith("Repeat the command to continue at the same rates.")
    first, second = ranking_rows(ranking)
    numbers = ["5.00 %", "-", "-", "4", "provisional"]
    assert [*first.values()] == ["norm=batch", "0.1", "0.0125", *numbers]
    assert second["peak_lr"] == "-"


def test_the_lr_and_its_peak_have_names_of_their_own() -> None:
    scaled = an_arm("norm=batch", "best", 0.0, peak_lr=0.0125)
    ranking = a_ranking(scaled, WORSE)
    text = " ".join(ranking_text(ranking).split())
    assert "1 norm=batch (lr 0.1, peak_lr 0.0125, 12 seeds)" in text
    assert f"{LONG} (lr 0.1, 12 seeds)" in text
    assert "test error, 12 seeds, lr 0.1, peak_lr 0.0125, not tuned." in text
    rows = [*ranking_rows(ranking)]
    assert [(row["lr"], row["peak_lr"]) for row in rows] == [
        ("0.1", "0.0125"),
        ("0.1", "0.1"),
    ]
    assert "peak_lr" not in next(ranking_rows(a_ranking(BEST, WORSE)))


def test_a_ranking_says_which_arms_fit_their_training_data_poorly() -> None:
    """Of a training metric other than an error, nothing is said."""
    arms = [
        BEST.model_copy(update={"gate_mean": 0.02}),
        WORSE.model_copy(update={"gate_mean": 0.3}),
    ]
    budget = Budget(epochs=2, max_steps=100)
    ranking = a_ranking(*arms).model_copy(
        update={"gate": "train/error", "budget": budget}
    )
    text = " ".join(ranking_text(ranking).split())
    assert "12 seeds, train error 2.00 %)" in text
    assert [row["train error"] for row in ranking_rows(ranking)] == [
        "2.00 %",
        "30.00 %",
    ]
    undecided = ranking.model_copy(update={"arms": [arms[0], OPEN]})
    poor = OPEN.model_copy(update={"gate_mean": 0.3})
    undecided = ranking.model_copy(update={"arms": [arms[0], poor]})
    assert "training error is still 30 % (norm=layer)" in ranking_text(undecided)
    assert text.endswith(
        f"But after at most 100 steps the training error is still 30 % ({WORSE.arm}): "
        "more training may change the answer, try budget.max_steps=400."
    )
    loss = ranking.model_copy(update={"gate": "train/loss"})
    assert "the training error is still" not in ranking_text(loss)


def test_the_last_lines_say_that_there_is_no_winner() -> None:
    further = Further(arms=["norm=batch", "norm=layer"], seeds=8, minutes=1.25)
    text = ranking_text(a_ranking(BEST, OPEN, WORSE, ended="time", further=further))
    assert " ".join(text.split()).endswith(
        "Not decided between norm=batch and norm=layer: 5.00 % against 5.50 % test "
        "error, 0.50 points [-0.50, 1.50], 12 seeds; margin 1 point."
    )
    many = a_ranking(BEST, OPEN, OPEN.model_copy(update={"arm": "x"}), WORSE)
    assert " ".join(ranking_text(many).split()).endswith(
        "Not decided which of norm=batch, norm=layer and x is the best: 5.00 %, 5.50 % "
        "and 5.50 % test error, 12 seeds; margin 1 point."
    )
    assert "further: about 8 test seeds of 2 arms (about 1.2 min) more" in text


@pytest.mark.parametrize(
    ("tuning", "sentence"),
    [
        ([tuned("norm=batch", 0.1), tuned("norm=layer", 0.1)], ""),
        (
            [tuned("norm=batch", 0.05), tuned("norm=layer", 0.1)],
            "But the rate of norm=batch is at the edge of those tried: try --rates "
            "0.025,0.05,0.1,0.2.",
        ),
        (
            [tuned("norm=batch", 0.1), tuned("norm=layer", 0.4, rates=(0.2, 0.4))],
            "But the rate of norm=layer is at the edge of those tried: try --rates "
            "0.05,0.1,0.2,0.4,0.8.",
        ),
        (
            [tuned("norm=batch", 0.1, seeds=1), tuned("norm=layer", 0.1)],
            "But the rates were chosen on 1 of 4 tuning seeds: try more --minutes and "
            "another --results.",
        ),
        (
            [tuned("norm=batch", 0.2, seeds=1), tuned("norm=layer", 0.2, seeds=1)],
            "But the rates were chosen on 1 of 4 tuning seeds, and the rates of "
            "norm=batch and norm=layer are at the edge of those tried: try --rates "
            "0.1,0.2,0.4 with more --minutes.",
        ),
    ],
)
def test_the_answer_says_that_its_rates_may_be_poor(
    tuning: list[TunedArm], sentence: str
) -> None:
    answer = ranking_answer(a_ranking(BEST, EQUAL, tuning=tuning)).text
    assert answer.endswith(sentence or "norm=group.") and ("But" in answer) == (
        sentence != ""
    )
    nobody = ranking_answer(a_ranking(BEST, OPEN, tuning=tuning)).text
    assert nobody.endswith(sentence or "margin 1 point.")


@pytest.mark.parametrize(
    ("further", "words"),
    [
        ({"seeds": None, "minutes": None}, "more than 200 seeds would be needed"),
        (
            {"seeds": 30, "minutes": None},
            "would judge these seeds a second time, and err more often",
        ),
        ({"seeds": 3, "minutes": 0.5}, "the same command continues"),
    ],
)
def test_the_text_says_what_would_settle_the_rest(
    further: dict[str, Any], words: str
) -> None:
    arms = {"arms": ["norm=batch", "norm=layer"]}
    ranking = a_ranking(BEST, OPEN, further=Further(**(arms | further)))
    assert words in " ".join(ranking_text(ranking).split())


def test_every_arm_has_its_numbers_and_its_place() -> None:
    left_out = LeftOut(arm="norm=none", reason="did not train on 6 test seeds")
    text = ranking_text(
        a_ranking(BEST, OPEN, WORSE, left_out=[left_out], caveats=["a caveat"])
    )
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    (open_line,) = (line for line in lines if line.endswith("  open"))
    assert open_line.split() == (
        "0.0550 [0.0450, 0.0650] +0.0050 [-0.0050, +0.0150] 0.5 open".split()
    )
    assert any(line.endswith("1.2e-11  worse") for line in lines)
    for words in (
        "note: a caveat",
        "-  norm=none: did not train on 6 test seeds",
        "look 3 of 4, at 12 of at most 32 seeds",
        "tuning:  1.5 min, 9 runs, 1.5 core minutes",
        "test:    2.0 min, 24 runs, 6 found finished, 4.0 core minutes",
    ):
        assert words in " ".join(text.split()) or words in lines, words


def test_too_little_time_shows_the_tuning_seeds_only() -> None:
    tuned = TunedArm(
        arm="norm=batch",
        lr=0.1,
        at_edge=False,
        validation={"0.1": 0.05, "0.2": None},
        seeds={"0.1": 2, "0.2": 1},
    )
    further = Further(arms=["norm=batch", "norm=layer"], seeds=6, minutes=None)
    ranking = a_ranking(seen=[], ended="time", tuning=[tuned], further=further)
    text = " ".join(ranking_text(ranking).split())
    assert "There is no ranking yet: the time was too short for 6 test" in text
    assert "val/error by lr (tuning seeds) 0.1: 0.0500 (2), 0.2: - (1)" in text
    assert "the first look needs 6 test seeds of 2 arms" in text
    assert "interval" not in text
    assert "tuning seeds above are too few to decide" in text
    nobody = a_ranking(left_out=[LeftOut(arm="norm=none", reason="did not train")])
    assert ranking_text(nobody).splitlines()[-1].startswith("There is no ranking: no")
