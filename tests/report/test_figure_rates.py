"""The caption of a figure says how the learning rates were chosen."""

import pytest
from comparisons_made import a_comparison
from verdicts_made import SITUATIONS, committed

from normbench.report.figures.titles import cells_legend
from normbench.verdicts.summaries import CellSummary

CHOSEN = "at the learning rate that validation chose"


def legend(cells: list[CellSummary]) -> str:
    return cells_legend(cells, 0.05, seeds=False)


def test_one_rate_is_not_called_chosen_by_validation() -> None:
    judged = a_comparison([*SITUATIONS["far above"]], rates=[0.1]).judged
    assert judged is not None
    assert legend(judged.cells).endswith("at lr 0.1, not tuned")


@pytest.mark.parametrize(
    ("claim", "design", "words"),
    [
        ("larger-rates", "rates-mnist5k", "at lr 0.025, not tuned"),
        ("padding-tokens", "statistics-language", "at lr 0.003, not tuned"),
        ("padding-tokens", "harm-language", CHOSEN),
    ],
)
def test_claims_with_one_rate_say_so(claim: str, design: str, words: str) -> None:
    (judged,) = (d for d in committed(claim).designs if d.name == design)
    assert legend(judged.cells).endswith(words)


def test_a_smaller_check_names_the_rates_of_the_full_one() -> None:
    judged = a_comparison([*SITUATIONS["far above"]], rates=[0.1]).judged
    assert judged is not None
    first, second = judged.cells
    frozen = first.model_copy(update={"frozen": True})
    assert legend([frozen]).endswith("the learning rate that a full check chose")
    assert legend([frozen, second]).endswith(
        "at a learning rate that is not tuned (that of a full check in 1 of 2 cells)"
    )
