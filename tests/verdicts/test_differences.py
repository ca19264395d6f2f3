"""What counts as a difference between two verdicts, and how it reads."""

from typing import Any

from verdicts_made import committed

from normbench.verdicts.differences import Difference, differences
from normbench.verdicts.verdict import ContrastVerdict, Verdict

OLD = committed("layernorm-axes")


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
        "census": {"timm": {"batch": 1}},
        "census_failures": {"timm": {"x": "gone"}},
        "findings": {},
        "theorems": [theorem.model_copy(update=measured), *others],
    }
    assert differences(OLD, OLD.model_copy(update=changes)) == []
    assert differences(OLD, with_contrast(withdrawn=None)) == []


def test_numbers_are_compared_by_nine_digits() -> None:
    effect = OLD.outcomes[0].contrasts[0].effect
    assert effect is not None
    assert differences(OLD, with_contrast(effect=effect * (1 + 1e-10))) == []
    (found,) = differences(OLD, with_contrast(effect=effect * (1 + 1e-8)))
    name = OLD.outcomes[0].contrasts[0].name
    assert found.where == f"outcomes / images / contrasts / {name} / effect"
    assert (found.old, found.new) == (effect, effect * (1 + 1e-8))
    (found,) = differences(OLD, with_contrast(effect=None))
    assert str(found) == f"{found.where}: {effect!r} -> null"


def test_a_decision_and_every_other_part_is_compared() -> None:
    (theorem, *others) = OLD.theorems
    for changes, where in (
        ({"outcome": "refuted"}, "outcome"),
        ({"registration": "0" * 16}, "registration"),
        ({"run_ids": OLD.run_ids[1:]}, "run_ids"),
        (
            {"theorems": [theorem.model_copy(update={"tolerance": 0.5}), *others]},
            f"theorems / {theorem.check} / tolerance",
        ),
    ):
        (found,) = differences(OLD, OLD.model_copy(update=changes))
        assert found.where == where


def test_a_part_that_one_verdict_lacks_is_one_difference() -> None:
    contrasts = OLD.outcomes[0].contrasts
    (found,) = differences(OLD, with_contrasts(OLD, contrasts[:1]))
    assert found.where == f"outcomes / images / contrasts / {contrasts[1].name}"
    assert found.new == "absent"
    assert isinstance(found.old, dict)
    (found,) = differences(with_contrasts(OLD, contrasts[:1]), OLD)
    assert found.old == "absent"
    first = contrasts[0]
    seeds = dict(list(first.values.items())[1:])
    (found,) = differences(OLD, with_contrast(values=seeds))
    assert found.where.endswith(f"{first.name} / values / {next(iter(first.values))}")


def test_a_difference_is_one_short_line() -> None:
    text = str(Difference("statement", "a\nb", "word " * 50))
    assert text.startswith("statement: a b -> word word")
    assert len(text) < 100
    assert text.endswith(" ..")
