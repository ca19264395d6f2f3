"""The claim that `compare` makes from its arms."""

from collections.abc import Sequence
from typing import Any

import pytest
from claims_made import Plain

from normbench.claims.comparison import comparison
from normbench.errors import RequestError
from normbench.tasks.base import REGISTRY as TASKS
from normbench.verdicts.registration import Claim

ARMS = ["norm=batch", "norm=group norm.num_groups=2,4"]


def compared(arms: Sequence[str] = ARMS, **changes: Any) -> Claim:
    given: Plain = {
        "metric": "test/error",
        "margin": 0.01,
        "rates": [0.1],
        "seeds": [8],
        "gate": 0.5,
    }
    return comparison(arms, ["batch_size=8,32"], **(given | changes))


def test_all_arms_are_compared_with_the_first_at_every_level() -> None:
    claim = compared()
    (design,) = claim.outcomes.values()
    assert len(design.arms) == 3
    assert len(design.all_cells()) == 6
    assert len(design.contrasts) == 4
    assert all(c.exploratory and c.says == "less" for c in design.contrasts)
    assert design.validation == "val/error"
    precise = compared(metric="test_recomputed/loss").outcomes["comparison"]
    assert (precise.validation, precise.gate.metric) == (
        "val_recomputed/loss",
        "train/loss",
    )
    averaged = compared(metric="test_ema_recomputed/loss").outcomes["comparison"]
    assert averaged.validation == "val_ema_recomputed/loss"
    assert compared(metric="train/error").outcomes["comparison"].validation == (
        "val/error"
    )


def test_several_numbers_of_seeds_are_looks() -> None:
    (fixed,) = compared().outcomes.values()
    (looking,) = compared(seeds=[8, 16], spending="kim_demets").outcomes.values()
    assert (fixed.planned_looks(), fixed.looks) == ([8], None)
    assert (looking.planned_looks(), looking.spending) == ([8, 16], "kim_demets")


def test_higher_is_better_if_the_task_maximizes_the_metric(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(TASKS.get("style"), "direction", "maximize")
    primary = TASKS.get("style").primary_metric
    arms = ["task=style norm=batch", "task=style norm=instance"]
    for metric, says in ((f"test/{primary}", "greater"), ("test/other", "less")):
        design = compared(arms, metric=metric).outcomes["comparison"]
        assert {contrast.says for contrast in design.contrasts} == {says}, metric


def test_a_wrong_comparison_is_refused() -> None:
    wrong: list[tuple[Plain, str]] = [
        ({"arms": ["norm=batch"]}, "two arms"),
        ({"arms": ["norm=batch", "norm=batch"]}, "two arms"),
        ({"margin": 0.0}, "margin"),
        ({"rates": [-1.0]}, "rates"),
        ({"metric": "error"}, "SPLIT/METRIC"),
        ({"seeds": [5]}, "seeds.*greater than or equal to 6"),
        ({"seeds": [16, 8]}, r"looks: \[16, 8\] must be increasing"),
        ({"spending": "kim_demets"}, "give --seeds several numbers"),
    ]
    for change, message in wrong:
        with pytest.raises(RequestError, match=message):
            compared(**change)
