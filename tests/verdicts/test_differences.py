"""What counts as a difference between two verdicts, and how it reads."""

from typing import Any

from verdicts_made import rich_verdict

from normbench.verdicts.differences import Difference, differences
from normbench.verdicts.verdict import ContrastVerdict, Verdict

OLD = rich_verdict()


def with_contrasts(verdict: Verdict, contrasts: list[ContrastVerdict]) -> Verdict:
    (design,) = verdict.outcomes
    design = design.model_copy(update={"contrasts": contrasts})
    return verdict.model_copy(update={"outcomes": [design]})


def with_contrast(**changes: Any) -> Verdict:
    first, *others = OLD.outcomes[0].contrasts
    return with_contrasts(OLD, [first.model_copy(update=changes), *others])


def test_what_may_differ_between_two_judgements_is_no_difference() -> None:
    (theorem, *others) = OLD.theorems
    measured = {"deviation": 1e-17, "control": 3.0, "detail": "other digits"}
    changes = {
        "started": "later",
        "command": "other",
        "environment": {"code": ["new"]},
        "caveats": ["70 of 70 runs come from other code than this"],
        "registered": None,
        "theorems": [theorem.model_copy(update=measured), *others],
    }
    assert differences(OLD, OLD.model_copy(update=changes)) == []
    parts = [part.model_copy(update={"finding": "later"}) for part in OLD.parts]
    assert differences(OLD, OLD.model_copy(update={"parts": parts})) == []


def test_numbers_are_compared_by_nine_digits() -> None:
    effect = OLD.outcomes[0].contrasts[0].effect
    assert effect is not None
    assert differences(OLD, with_contrast(effect=effect * (1 + 1e-10))) == []
    (difference,) = differences(OLD, with_contrast(effect=effect * (1 + 1e-8)))
    name = OLD.outcomes[0].contrasts[0].name
    assert difference.where == f"outcomes / made_up / contrasts / {name} / effect"
    assert (difference.old, difference.new) == (effect, effect * (1 + 1e-8))
    (difference,) = differences(OLD, with_contrast(effect=None))
    assert str(difference) == f"{difference.where}: {effect!r} -> null"


def test_a_decision_and_every_other_part_is_compared() -> None:
    (theorem, *others) = OLD.theorems
    (rule, *rules) = OLD.census
    for changes, where in (
        ({"alpha": 0.1}, "alpha"),
        ({"registration": "0" * 16}, "registration"),
        ({"run_ids": ["0" * 16]}, "run_ids"),
        (
            {"census": [rule.model_copy(update={"count": 9}), *rules]},
            f"census / {rule.name} / count",
        ),
        (
            {"theorems": [theorem.model_copy(update={"tolerance": 0.5}), *others]},
            f"theorems / {theorem.check} / tolerance",
        ),
    ):
        (difference,) = differences(OLD, OLD.model_copy(update=changes))
        assert difference.where == where


def test_a_part_that_one_verdict_lacks_is_one_difference() -> None:
    contrasts = OLD.outcomes[0].contrasts
    (difference,) = differences(OLD, with_contrasts(OLD, contrasts[:-1]))
    assert difference.where == f"outcomes / made_up / contrasts / {contrasts[-1].name}"
    assert difference.new == "absent"
    assert isinstance(difference.old, dict)
    (difference,) = differences(with_contrasts(OLD, contrasts[:-1]), OLD)
    assert difference.old == "absent"
    first = contrasts[0]
    seeds = dict(list(first.values.items())[1:])
    (difference,) = differences(OLD, with_contrast(values=seeds))
    assert difference.where.endswith(
        f"{first.name} / values / {next(iter(first.values))}"
    )


def test_a_headline_and_a_rate_are_compared_by_name() -> None:
    better, *others = OLD.parts
    parts = [better.model_copy(update={"headline": "holds"}), *others]
    (difference,) = differences(OLD, OLD.model_copy(update={"parts": parts}))
    assert difference.where == "parts / better / headline"
    assert (difference.old, difference.new) == ("holds in part", "holds")


def test_a_difference_is_one_short_line() -> None:
    text = str(Difference("statement", "a\nb", "word " * 50))
    assert text.startswith("statement: a b -> word word")
    assert len(text) < 100
    assert text.endswith(" ..")
