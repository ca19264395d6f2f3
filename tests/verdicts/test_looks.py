"""Contrasts that are judged at several looks."""

from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as oracle
from verdicts_made import (
    MARGIN,
    SITUATIONS,
    SPREAD,
    a_contrast,
    a_design,
    a_run,
    a_verdict,
    judge,
    pair,
)

from normbench.report import words
from normbench.report.figures import drawing
from normbench.report.figures.forest import forest
from normbench.report.figures.titles import claim_head
from normbench.report.text.verdict import verdict_text
from normbench.verdicts.design import Says
from normbench.verdicts.judging import adjusted
from normbench.verdicts.settled import cells_in_use, settled_contrasts
from normbench.verdicts.spending import Looks, nominal_levels
from normbench.verdicts.verdict import ContrastVerdict, DesignVerdict, Verdict

SAYS: tuple[Says, ...] = ("greater", "less", "equal", "not_greater")
FIRST = Looks((8,), 32)
SECOND = Looks((8, 16), 32)


def test_one_look_at_all_seeds_gives_the_numbers_of_the_fixed_test() -> None:
    for says in SAYS:
        for differences in SITUATIONS.values():
            cells, design = pair(list(differences)), a_design(a_contrast(says))
            (fixed,) = judge(design, cells).contrasts
            (only,) = judge(design, cells, looks=Looks((8,), 8)).contrasts
            like_fixed = {
                "looks": [],
                "planned": None,
                "because": fixed.because,
                "seeds_needed": fixed.seeds_needed,
            }
            assert only.model_copy(update=like_fixed) == fixed


@pytest.mark.parametrize("looks", [FIRST, SECOND, Looks((8, 13), 32, "obrien_fleming")])
def test_the_interval_has_the_level_of_the_present_look(looks: Looks) -> None:
    seeds = looks.seeds[-1]
    differences = np.random.default_rng(0).normal(0.01, 0.02, 40)
    (c,) = judge(a_design(), pair(list(differences)), looks=looks).contrasts
    used = differences[:seeds]  # later seeds have no influence
    assert (c.n, list(c.values)) == (seeds, [str(seed) for seed in range(seeds)])
    assert (c.looks, c.planned) == (list(looks.seeds), 32)
    error = used.std(ddof=1) / np.sqrt(seeds)
    for low, high, alpha in (
        (c.low, c.high, 0.025),
        (c.low_margin, c.high_margin, 0.05),
    ):
        level = nominal_levels(looks.seeds, 32, looks.spending, alpha)[-1]
        half = oracle.t.isf(level, seeds - 1) * error
        assert (low, high) == pytest.approx((used.mean() - half, used.mean() + half))
    assert c.low is not None and c.low_margin is not None and c.low < c.low_margin


@given(
    says=st.sampled_from(SAYS),
    differences=st.lists(st.floats(-0.25, 0.25, width=32), min_size=16, max_size=20),
    looks=st.sampled_from([FIRST, SECOND, Looks((8, 16), 16, "kim_demets")]),
    alpha=st.sampled_from([0.01, 0.05, 0.1]),
)
@settings(deadline=None)
def test_the_decision_the_intervals_and_the_p_values_agree_at_a_look(
    says: Says, differences: list[float], looks: Looks, alpha: float
) -> None:
    design = judge(
        a_design(a_contrast(says)), pair(differences), alpha=alpha, looks=looks
    )
    (c,) = design.contrasts
    assert c.p is not None and c.p_against is not None
    assert c.low is not None and c.high is not None
    assert c.low_margin is not None and c.high_margin is not None
    just, over = alpha * (1 + 2e-4), alpha * (1 - 2e-4)
    within = -MARGIN < c.low_margin and c.high_margin < MARGIN
    if c.decision == "confirmed":
        assert c.p < just
        assert {
            "greater": c.low > 0,
            "less": c.high < 0,
            "equal": within,
            "not_greater": c.high_margin < MARGIN,
        }[says]
    elif c.decision == "not decided":
        p_within = 1.0 if c.p_within is None else c.p_within
        assert says == "equal" or min(c.p, c.p_against, p_within) > over
        assert c.seeds_needed is None
    else:
        p = c.p_against if c.decision == "contradicted" else c.p_within
        assert p is not None and p < just
    assert Verdict.model_validate_json(a_verdict(design).model_dump_json())


def test_an_early_look_needs_a_clearer_difference_than_a_fixed_test() -> None:
    barely = pair(list(0.04 + 0.047 * SPREAD))
    (fixed,) = judge(a_design(a_contrast("greater")), barely).contrasts
    (early,) = judge(a_design(a_contrast("greater")), barely, looks=FIRST).contrasts
    assert (fixed.decision, early.decision) == ("confirmed", "not decided")
    assert fixed.p is not None and early.p is not None and fixed.p < 0.05 < early.p
    assert (fixed.settled, early.settled, early.stopped_early) == (True, False, False)
    assert fixed.effect == early.effect


def several(*differences: Any, name: str = "made_up", **options: Any) -> DesignVerdict:
    """Return a design with a primary contrast for each row of differences."""
    arms = {f"a{i}": "norm=batch" for i in range(len(differences))} | {
        "b": "norm=group"
    }
    contrasts = [
        a_contrast(name=f"{i}", weights={f"a{i}@-": 1.0, "b@-": -1.0})
        for i in range(len(differences))
    ]
    cells = {"b@-": pair(list(differences[0]))["b@-"]}
    for i, row in enumerate(differences):
        cells[f"a{i}@-"] = pair(list(row))["a@-"]
    design = judge(a_design(*contrasts, arms=arms), cells, **options)
    return design.model_copy(update={"name": name})


def test_a_contrast_is_settled_after_holm_over_all_designs() -> None:
    barely, vaguely = -(0.04 + 0.03 * SPREAD), SITUATIONS["nothing, vaguely"]
    one = several(barely, looks=FIRST)
    assert set(settled_contrasts([one], 0.05)["made_up"]) == {"0"}
    other = several(*[vaguely] * 9, name="other", looks=FIRST)
    settled = settled_contrasts([one, other], 0.05)
    assert one.contrasts[0].decision == "confirmed"
    assert settled == {"made_up": {}, "other": {}}
    # The others being settled, the same p is small enough.
    clear = several(*[SITUATIONS["far below"]] * 9, name="other", looks=FIRST)
    settled = settled_contrasts([one, clear], 0.05)
    assert settled["made_up"] == {"0": one.contrasts[0]}
    assert len(settled["other"]) == 9


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_settled_contrast_stays_settled_whatever_the_later_looks_show(
    data: st.DataObject,
) -> None:
    (template,) = several(SITUATIONS["far below"], looks=FIRST).contrasts
    p_values = st.floats(0, 0.08)
    count = data.draw(st.integers(1, 5))
    state: dict[str, ContrastVerdict] = {}
    settled: dict[str, ContrastVerdict] = {}
    for _ in range(3):
        for name in map(str, range(count)):
            if name not in settled:
                p = data.draw(p_values)
                decision = "confirmed" if p < 0.05 else "not decided"
                changes = {"name": name, "p": p, "decision": decision}
                state[name] = template.model_copy(update=changes)
        design = several(SITUATIONS["far below"])
        design = design.model_copy(update={"contrasts": list(state.values())})
        now = settled_contrasts([design], 0.05)["made_up"]
        assert settled.items() <= now.items()
        settled = now
        (after,) = adjusted([design], 0.05)
        assert all(c.settled for c in after.contrasts if c.name in settled)


def test_a_run_without_its_metric_settles_what_no_seed_could_decide() -> None:
    cells = pair([0.0] * 16)
    cells["a@-"][3] = a_run(None, status="failed")
    (c,) = judge(a_design(), cells, looks=FIRST).contrasts
    assert (c.decision, c.effect, c.settled) == ("not decided", None, True)
    assert words.explanation(c) == "seeds 3 have no finite test/error"


def test_a_cell_is_in_use_while_one_of_its_contrasts_is_open() -> None:
    weights = [{"a@-": 1.0, "b@-": -1.0}, {"b@-": 1.0, "c@-": -1.0}]
    first, second = (
        a_contrast(name=name, weights=of_cell)
        for name, of_cell in zip(("first", "second"), weights, strict=True)
    )
    design = a_design(first, second, arms=dict.fromkeys("abcd", ""))
    assert cells_in_use(design, set()) == ["a@-", "b@-", "c@-", "d@-"]
    assert cells_in_use(design, {"first"}) == ["b@-", "c@-", "d@-"]
    assert cells_in_use(design, {"first", "second"}) == []


def test_words_say_at_which_look_a_contrast_was_settled() -> None:
    said = {}
    for situation, differences in SITUATIONS.items():
        design = judge(a_design(), pair(list(differences)), looks=FIRST)
        said[situation] = words.explanation(design.contrasts[0])
        verdict = a_verdict(design)
        shown = " ".join(verdict_text(verdict, 400, details=True).split())
        assert said[situation] in shown
        assert ", repeated 9" in shown
        head = claim_head(design, None, verdict)
        drawn = drawing.svg(forest(design, None, verdict.alpha, head))
        assert ", repeated 9" in drawn.replace("\xa0", " ")
    assert said["far below"] == (
        "the repeated 95% interval is below 0; settled at 8 of at most 32 seeds; an "
        "effect that stops early is biased away from 0"
    )
    assert said["nothing, precisely"].endswith("biased away from the margin")
    assert said["nothing, vaguely"].endswith("; not settled at 8 of at most 32 seeds")
    last = judge(a_design(), pair([-0.1, -0.2] * 4), looks=Looks((6, 8), 8))
    assert words.explanation(last.contrasts[0]).endswith(
        "settled at 8 of at most 8 seeds"
    )
    (fixed,) = judge(a_design(), pair([-0.1, -0.2] * 4)).contrasts
    assert words.looks_taken(fixed) == ""


def test_a_look_that_spends_next_to_nothing_has_a_finite_interval() -> None:
    looks = Looks((6,), 10_000, "obrien_fleming")
    (c,) = judge(a_design(), pair([0.1, 0.2, 0.3] * 2), looks=looks).contrasts
    assert c.low is not None and -inf < c.low < -10
    assert c.decision == "not decided"
