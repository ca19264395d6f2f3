"""The headline of a part follows by rule from what bears on it."""

from itertools import product
from typing import Any, get_args

import pytest
from census_made import a_census, a_rule
from verdicts_made import a_contrast, a_design, a_run, a_verdict, judge, pair

from normbench.config.schema import RunRecord
from normbench.report import words
from normbench.verdicts.counting import judge_census
from normbench.verdicts.design import Bears
from normbench.verdicts.grid import Grid
from normbench.verdicts.judging import judge_design, judge_theorem
from normbench.verdicts.parts import headline, judge_parts, result
from normbench.verdicts.registration import Part, Theorem
from normbench.verdicts.summaries import Estimate
from normbench.verdicts.verdict import (
    Decision,
    Headline,
    PartVerdict,
    Registered,
    Result,
)

PART = {"better": Part(sentence="a is better than b.", scope="made-up runs")}


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([], "not tested"),
        (["not tested"], "not tested"),
        (["for", "for", "not tested"], "holds"),
        (["against", "against"], "does not hold"),
        (["for", "against"], "holds in part"),
        (["for", "against", "open"], "holds in part"),
        (["for", "open"], "not decided"),
        (["against", "open"], "not decided"),
        (["small"], "holds in part"),
        (["small", "for"], "holds in part"),
        (["small", "against"], "holds in part"),
        (["small", "open"], "not decided"),
        (["open"], "not decided"),
    ],
)
def test_results_give_a_headline(results: list[Result], expected: Headline) -> None:
    assert headline(results) == expected


def test_a_part_holds_or_not_only_if_nothing_speaks_the_other_way() -> None:
    for results in product(get_args(Result), repeat=3):
        given = headline(results)
        if given == "holds":
            assert set(results) <= {"for", "not tested"}
        if given == "does not hold":
            assert set(results) <= {"against", "not tested"}
        if {"for", "against"} <= set(results):
            assert given == "holds in part"


def test_a_decision_speaks_for_or_against_a_part() -> None:
    cases: list[tuple[Decision, Result, Result]] = [
        ("confirmed", "for", "against"),
        ("contradicted", "against", "for"),
        ("no relevant difference", "against", "for"),
        ("not decided", "open", "open"),
        ("not tested", "not tested", "not tested"),
    ]
    for decision, speaks, flipped in cases:
        for size in ("clear", "open", None):
            assert result(decision, size, against=False) == speaks
            assert result(decision, size, against=True) == flipped
    assert result("confirmed", "small", against=False) == "small"
    assert result("confirmed", "small", against=True) == "small"
    assert result("contradicted", "small", against=False) == "against"


def test_a_contrast_may_bear_against_its_part() -> None:
    design = a_design(a_contrast("less", bears="against"))
    far = judge(design, pair([-0.05, *[-0.04] * 7]))
    (part,) = a_verdict(far).parts
    assert part.headline == "does not hold"
    assert [(b.kind, b.bears, b.result) for b in part.bearings] == [
        ("outcome", "against", "against")
    ]


def test_a_registration_that_is_younger_than_a_run_is_in_the_headline() -> None:
    runs = judge(a_design(), pair([-0.05, *[-0.04] * 7]))

    def part(registered: str | None, first_run: str | None) -> str:
        known = registered and Registered(commit="0" * 40, time=registered)
        (judged,) = judge_parts(PART, [], [], [], [runs], known or None, first_run)
        assert judged.headline == "holds"
        return words.headline(judged)

    early, late = "2026-01-01T00:00:00+00:00", "2026-01-01T03:00:00+02:00"
    assert part(early, late) == "holds"
    assert part(None, late) == "holds"
    assert part(early, None) == "holds"
    assert part(late, early) == (
        f"holds (the registration of {late} is younger than the first run, of {early})"
    )
    assert "cannot be read" in part(early, "yesterday")
    assert "cannot be read" in part(early, "2026-01-01T00:00:00")


def test_an_opposite_sign_at_the_best_common_rate_is_in_the_headline() -> None:
    def grid(validation: tuple[float, float], error: tuple[float, float]) -> Grid:
        def runs(val: float, test: float) -> dict[int, RunRecord]:
            metrics = {"val/error": val, "train/error": 0.05}
            return {
                seed: a_run(test).model_copy(
                    update={"metrics": {**metrics, "test/error": test + seed / 1000}}
                )
                for seed in range(8)
            }

        rates = zip((0.1, 0.2), validation, error, strict=True)
        return Grid({lr: runs(v, e) for lr, v, e in rates}, "val/error")

    design = a_design(rates=[0.1, 0.2])
    grids = {
        "a@-": grid((0.2, 0.1), (0.4, 0.1)),  # a needs the rate .2
        "b@-": grid((0.1, 0.9), (0.2, 0.9)),  # b needs the rate .1, far more
    }
    judged = judge_design("made_up", design, grids, {}, 0.05)
    (contrast,) = judged.contrasts
    assert contrast.decision == "confirmed"
    assert contrast.best_common_rate == "0.1"
    (part,) = a_verdict(judged).parts
    assert part.headline == "holds"
    assert words.headline(part) == (
        "holds (made_up, a against b: the sign is the opposite if all arms have the "
        "learning rate 0.1)"
    )


def test_the_other_sign_is_a_caveat_of_decided_directions_only() -> None:
    away = Estimate(effect=0.05, low=0.04, high=0.06, n=8)
    decided = judge(a_design(), pair([-0.05, *[-0.04] * 7]))
    beside: dict[str, object]
    beside = {"best_common_rate": "0.1", "at_common_rate": {"0.1": away}}

    def caveats(**changes: object) -> list[str]:
        (contrast,) = decided.contrasts
        contrast = contrast.model_copy(update=beside | changes)
        design = decided.model_copy(update={"contrasts": [contrast]})
        (part,) = judge_parts(PART, [], [], [], [design], None, None)
        return part.caveats

    assert len(caveats()) == 1
    assert len(caveats(decision="contradicted")) == 1
    same_sign = away.model_copy(update={"effect": -0.001})
    for changes in (
        {"decision": "not decided", "size": None},
        {"decision": "no relevant difference", "size": None},
        {"says": "equal"},
        {"best_common_rate": None},
        {"best_common_rate": "0.2"},
        {"at_common_rate": {"0.1": same_sign}},
        {"effect": None},
        {"part": None, "bears": "context"},
    ):
        assert caveats(**changes) == [], changes


def test_a_theorem_bears_on_its_part() -> None:
    def part(deviation: float, control: float, bears: Bears) -> PartVerdict:
        theorem = Theorem(check="x", tolerance=1e-6, part="better", bears=bears)
        judged = judge_theorem(theorem, "x is 0.", deviation, control, "")
        (judged_part,) = judge_parts(PART, [judged], [], [], [], None, None)
        return judged_part

    cases: list[tuple[Bears, Headline, Headline]] = [
        ("for", "holds", "does not hold"),
        ("against", "does not hold", "holds"),
    ]
    for bears, true, false in cases:
        assert part(0.0, 0.5, bears).headline == true
        assert part(0.1, 0.5, bears).headline == false
        assert part(0.0, 0.0, bears).headline == "not decided"
    (bearing,) = part(0.0, 0.5, "for").bearings
    assert (bearing.kind, bearing.design, bearing.name) == ("theorem", "", "x")
    # A theorem of another part, and one of none, do not bear on this one.
    context = judge_theorem(Theorem(check="x", tolerance=0.0), "", 0.0, None, "")
    other = context.model_copy(update={"part": "other", "bears": "for"})
    (untested,) = judge_parts(PART, [context, other], [], [], [], None, None)
    assert (untested.headline, untested.bearings) == ("not tested", [])


def test_a_census_rule_bears_on_its_part() -> None:
    def part(bears: Bears, **changes: Any) -> PartVerdict:
        rule = a_rule(part="better", bears=bears, **changes)
        judged = judge_census(rule, a_census())  # one of three models has batch
        (judged_part,) = judge_parts(PART, [], [judged], [], [], None, None)
        return judged_part

    cases: list[tuple[Bears, Headline, Headline]] = [
        ("for", "holds", "does not hold"),
        ("against", "does not hold", "holds"),
    ]
    for bears, true, false in cases:
        assert part(bears, than=0.2).headline == true
        assert part(bears, than=0.9).headline == false
        assert part(bears, library="timm").headline == "not decided"
    (bearing,) = part("for").bearings
    assert (bearing.kind, bearing.design) == ("census", "")
    assert (bearing.name, bearing.result) == ("BatchNorm is the default", "against")
    context = judge_census(a_rule(), a_census())
    (untested,) = judge_parts(PART, [], [context], [], [], None, None)
    assert (untested.headline, untested.bearings) == ("not tested", [])
