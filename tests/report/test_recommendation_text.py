"""A recommendation answers first, has a row for each pair, and explains its words."""

from typing import Any

import pytest

from normbench.report.text.recommendation import answer, details, sections
from normbench.verdicts.conditions import Condition
from normbench.verdicts.preferences import standings
from normbench.verdicts.recommendation import (
    Comparison,
    Evidence,
    Recommendation,
    Relation,
    Summary,
)

AT_32 = Condition(batch_size=32, samples_per_statistic=32)
NAMES = {"norm=a": "A", "norm=b": "B", "norm=c": "C"}


def evidence(
    data: str, relation: Relation, effect: float = -0.1, **changes: Any
) -> Evidence:
    fields: dict[str, Any] = {
        "claim": "made-up", "design": "made_up", "data": data, "contrast": "a and b",
        "metric": "test/error", "norm": "norm=a", "other": "norm=b",
        "condition": AT_32, "other_condition": None, "relation": relation,
        "leans": None, "size": "clear", "scale": "difference", "effect": effect,
        "low": effect - 0.01, "high": effect + 0.01, "margin": 0.02,
        "margin_text": "2 points", "n": 8, "caveats": [],
    }  # fmt: skip
    return Evidence(**(fields | changes))


def recommendation(*pairs: Comparison, **changes: Any) -> Recommendation:
    better = [(each.norm, each.other) for each in pairs if each.summary == "better"]
    fields: dict[str, Any] = {
        "task": "images", "asked": AT_32, "default": False, "names": NAMES,
        "pairs": list(pairs), "standings": standings(NAMES, better),
        "sensitivity": [], "runs": [], "gaps": [], "experiment": None, "notes": [],
    }  # fmt: skip
    return Recommendation(**(fields | changes))


def pair(summary: Summary, *found: Evidence, **changes: Any) -> Comparison:
    fields: dict[str, Any] = {
        "norm": "norm=a", "other": "norm=b", "summary": summary, "far": False,
        "variants": False, "evidence": list(found),
    }  # fmt: skip
    return Comparison(**(fields | changes))


TEXTURES = evidence("textures", "better")
DIGITS = evidence("digits", "as good", size="small")
LOSS = evidence("digits", "better", metric="test/loss", scale="ratio")


@pytest.mark.parametrize(
    ("summary", "found", "cell"),
    [
        (
            "better",
            [DIGITS, TEXTURES],
            "better: -10.00 points on textures; within the margin on digits",
        ),
        ("better", [TEXTURES, LOSS], "better: -10.00 points on textures; "
         "loss -9.5 % on digits"),
        (
            "better",
            [evidence(data, "better", n / -100) for n, data in enumerate("uvxyz", 1)],
            "better: -5.00 points to -1.00 points on 5 data sets",
        ),
        (
            "mixed",
            [evidence("x", "better", size="open"),
             evidence("y", "not decided", leans="worse")],
            "mixed: -10.00 points (open) on x; not decided, leans to worse on y",
        ),
        (
            "contradictory",
            [evidence("x", "better"), evidence("y", "worse", 0.1)],
            "contradictory: -10.00 points on x; +10.00 points on y",
        ),
        (
            "as good",
            [evidence("x", "as good"), evidence("x", "as good", claim="other")],
            "within the margin on x (made-up) and x (other)",
        ),
        ("no worse", [evidence("x", "no worse")], "not worse by the margin on x"),
    ],
)  # fmt: skip
def test_a_cell_has_the_data_sets_with_the_same_word_together(
    summary: Summary, found: list[Evidence], cell: str
) -> None:
    first, *_ = sections(recommendation(pair(summary, *found)))
    (row,) = first.rows
    assert [*row.values()][:4] == ["A", "B", cell, "32"]


def test_the_answer_is_made_from_the_pairs() -> None:
    better = pair("better", DIGITS, TEXTURES)
    equal = pair("as good", DIGITS, other="norm=c")
    variants = pair("better", TEXTURES, variants=True)
    far = pair("better", TEXTURES, far=True)
    assert answer(recommendation(better, equal)) == (
        "At batch size 32, A makes fewer errors than B (on textures); no difference of "
        "A from C exceeds the margin. Nothing else is decided."
    )
    nothing = "Nothing is decided between two norms at batch size 32."
    assert answer(recommendation(variants, far)) == nothing
    assert answer(recommendation(pair("not decided", DIGITS))) == nothing
    with_variants = answer(recommendation(better, variants))
    assert with_variants.endswith("decided, except between variants of one norm.")


@pytest.mark.parametrize(
    ("found", "verb"),
    [
        ([TEXTURES, DIGITS], "makes fewer errors than"),
        ([LOSS, DIGITS], "is better than"),
        ([LOSS], "has a lower loss than"),
    ],
)
def test_fewer_errors_are_said_of_errors_only(found: list[Evidence], verb: str) -> None:
    said = answer(recommendation(pair("better", *found)))
    assert f"A {verb} B" in said


def test_a_chain_of_pairs_has_a_row() -> None:
    second = pair("better", TEXTURES, norm="norm=b", other="norm=c")
    first, *_ = sections(recommendation(pair("better", TEXTURES), second))
    assert [(row["norm"], row["against"]) for row in first.rows] == [
        ("A", "B"),
        ("B", "C"),
        ("A", "C"),
    ]
    assert "chain" in first.rows[-1]["result"]


def test_only_words_that_occur_are_explained() -> None:
    *_, legend = sections(recommendation(pair("better", TEXTURES)))
    assert legend.text == (
        "Numbers: test/error, first norm against second; less is better. Margin: "
        "2 points."
    )
    *_, legend = sections(recommendation(pair("better", DIGITS, TEXTURES)))
    assert legend.text.endswith("within the margin: no difference is larger than "
                                "the margin.")  # fmt: skip


def test_intervals_losses_and_notes_are_details() -> None:
    made = recommendation(pair("better", TEXTURES, LOSS), notes=["made-up: a note"])
    assert "-11.00" not in str([*sections(made)])
    section, notes = details(made)
    assert section.text == "norm=a against norm=b"
    assert "-10.00 points [-11.00, -9.00], n 8, better" in section.items[0]
    assert notes.items == ["made-up: a note"]


def test_a_caveat_of_a_verdict_is_no_detail() -> None:
    doubted = evidence("x", "better", caveats=["the sign changes at one common rate"])
    _, caveats, _ = sections(recommendation(pair("better", doubted, doubted)))
    assert caveats.items == ["made-up: the sign changes at one common rate"]
