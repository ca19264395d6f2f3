"""From made-up records to verdicts."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_made import A_RECORD
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

from normbench.errors import RequestError
from normbench.report.text.verdict import verdict_text
from normbench.verdicts import judging
from normbench.verdicts.design import Says
from normbench.verdicts.files import read_verdict
from normbench.verdicts.registration import Theorem
from normbench.verdicts.verdict import Verdict

SAYS: tuple[Says, ...] = ("greater", "less", "equal", "not_greater")
DECISIONS = {
    "far above": ("confirmed clear", "contradicted clear", *["contradicted"] * 2),
    "far below": (
        "contradicted clear",
        "confirmed clear",
        "contradicted",
        "confirmed",
    ),
    "nothing, precisely": (*["no relevant difference"] * 2, *["confirmed"] * 2),
    "above 0, a trifle": (
        "confirmed small",
        "contradicted small",
        "confirmed",
        "confirmed",
    ),
    "above 0, around the margin": (
        "confirmed open",
        "contradicted open",
        "not decided",
        "not decided",
    ),
    "nothing, vaguely": ("not decided",) * 4,
}


def test_prediction_and_differences_give_the_decision() -> None:
    for situation, differences in SITUATIONS.items():
        for says, decision in zip(SAYS, DECISIONS[situation], strict=True):
            verdict = judge(a_design(a_contrast(says)), pair(list(differences)))
            (contrast,) = verdict.contrasts
            words = " ".join(filter(None, (contrast.decision, contrast.size)))
            assert words == decision, (situation, says)
            assert contrast.n == 8
            assert contrast.effect == pytest.approx(differences.mean())


def test_a_contrast_has_its_share_of_seeds() -> None:
    design = a_design(a_contrast("less"))
    judged = judge(design, pair([-0.1] * 6 + [0.1, 0.0]))
    (c,) = judged.contrasts
    assert c.above == pytest.approx(1.5 / 8)
    assert c.above_low is not None and c.above_high is not None
    assert c.above_low < c.above < c.above_high
    printed = " ".join(verdict_text(a_verdict(judged), details=True).split())
    assert "above 0 on 19% of seeds [0%, 65%]" in printed


@given(
    says=st.sampled_from(SAYS),
    differences=st.lists(st.floats(-0.25, 0.25, width=32), min_size=6, max_size=16),
    alpha=st.sampled_from([0.01, 0.05, 0.1]),
)
@settings(deadline=None)
def test_the_decision_the_interval_and_the_p_values_agree(
    says: Says, differences: list[float], alpha: float
) -> None:
    verdict = judge(a_design(a_contrast(says)), pair(differences), alpha=alpha)
    (c,) = verdict.contrasts
    assert c.low is not None and c.high is not None
    assert c.low_margin is not None and c.high_margin is not None
    assert c.p is not None and c.p_against is not None
    within = -MARGIN < c.low_margin and c.high_margin < MARGIN
    if c.decision == "confirmed":
        assert c.p < alpha
        assert {
            "greater": c.low > 0,
            "less": c.high < 0,
            "equal": within,
            "not_greater": c.high_margin < MARGIN,
        }[says]
    elif c.decision == "not decided":
        # What is not significant is not equal, and needs more seeds than there were.
        assert not within
        p_within = 1.0 if c.p_within is None else c.p_within
        smallest = min(c.p, c.p_against, p_within)
        assert says == "equal" or smallest >= alpha * (1 - 1e-9)
        assert c.seeds_needed is None or c.seeds_needed > c.n
    else:
        p = c.p_against if c.decision == "contradicted" else c.p_within
        assert p is not None and p < alpha
        assert (c.decision == "no relevant difference") == (
            within and says in ("greater", "less")
        )
    assert Verdict.model_validate_json(a_verdict(verdict).model_dump_json())


def test_equal_runs_are_equal_and_not_merely_undecided() -> None:
    nothing = pair([0.0] * 8)
    for says, decision in zip(
        SAYS,
        ("no relevant difference", "no relevant difference", "confirmed", "confirmed"),
        strict=True,
    ):
        (c,) = judge(a_design(a_contrast(says)), nothing).contrasts
        assert (c.decision, c.effect, c.sd) == (decision, 0.0, 0.0)
    # A constant, binary fraction: the differences are equal to the last bit.
    runs = {
        "a@-": [a_run(0.75)] * 8,
        "b@-": [a_run(0.5)] * 8,
    }
    (c,) = judge(a_design(a_contrast("greater")), runs).contrasts
    assert (c.decision, c.sd, c.p) == ("confirmed", 0.0, 0.0)
    assert c.p_sign_flip == 2 / 2**8
    (c,) = judge(a_design(a_contrast("less")), runs).contrasts
    assert c.decision == "contradicted"
    verdict = a_verdict(judge(a_design(a_contrast("less")), runs))
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


def test_not_significant_is_never_printed_as_equal() -> None:
    verdict = a_verdict(judge(a_design(), pair(list(0.001 + 0.02 * SPREAD))))
    assert verdict.parts[0].headline == "not decided"
    printed = verdict_text(verdict, details=True)
    assert "NOT DECIDED: a is better than b." in printed
    assert not {"equal", "equivalent"} & set(printed.split())
    assert "no relevant difference" not in printed
    assert "seeds would settle it" in " ".join(printed.split())


def test_an_arm_that_did_not_train_makes_its_contrasts_inconclusive() -> None:
    cells = pair(list(SITUATIONS["far below"]))
    cells["b@-"] = [a_run(0.9, train=0.9) for _ in cells["b@-"]]
    verdict = judge(a_design(), cells)
    assert verdict.gate == {"a": True, "b": False}
    assert verdict.contrasts[0].decision == "not decided"
    assert "b did not train" in verdict.contrasts[0].because
    assert "did not train: b" in verdict_text(a_verdict(verdict), details=True)


def test_an_arm_passes_the_gate_if_it_trains_at_another_level() -> None:
    contrast = a_contrast("greater", weights={"a@hue": 1.0, "b@hue": -1.0})
    design = a_design(contrast, levels={"hue": "", "shape": ""})
    cells = {
        "a@hue": [a_run(0.75 + 0.01 * i, train=0.7) for i in range(8)],
        "a@shape": [a_run(0.05)] * 8,
        "b@hue": [a_run(0.1)] * 8,
        "b@shape": [a_run(0.05)] * 8,
    }
    assert judge(design, cells).contrasts[0].decision == "confirmed"
    cells["a@shape"] = [a_run(0.7, train=0.7)] * 8
    assert judge(design, cells).contrasts[0].decision == "not decided"


def test_contrasts_that_only_report_have_no_part_in_a_headline() -> None:
    confirmed = judge(a_design(), pair(list(SITUATIONS["far below"])))
    context = a_contrast(part=None, bears="context")
    apart = judge(a_design(context), pair([0.0] * 8))
    assert a_verdict(confirmed, apart).parts[0].headline == "holds"
    contradicted = judge(a_design(), pair(list(SITUATIONS["far above"])))
    other = contradicted.model_copy(update={"name": "other"})
    (part,) = a_verdict(confirmed, other).parts
    assert part.headline == "holds in part"
    assert [b.result for b in part.bearings] == ["for", "against"]
    assert a_verdict().parts[0].headline == "not tested"


def test_a_difference_that_holm_undoes_has_no_size() -> None:
    vague = judge(
        a_design(), pair([-0.06, -0.05, -0.01, 0.0, -0.04, -0.02, 0.01, -0.03])
    )
    (before,) = vague.contrasts
    assert (before.decision, before.size) == ("confirmed", "open")
    others = [
        judge(a_design(a_contrast(name=str(n))), pair(list(0.05 * SPREAD)))
        for n in range(4)
    ]
    after, *_ = judging.adjusted([vague, *others], 0.05)
    (contrast,) = after.contrasts
    assert (contrast.decision, contrast.size) == ("not decided", None)
    assert "not after Holm over 5 primary contrasts" in contrast.because
    assert contrast.p is not None
    assert contrast.p_adjusted == pytest.approx(5 * contrast.p)
    (part,) = a_verdict(vague, *others).parts
    assert part.headline == "not decided"


def test_a_small_difference_that_holm_undoes_is_no_relevant_difference() -> None:
    values = [-0.006, -0.005, -0.001, 0.0, -0.004, -0.002, 0.001, -0.003]
    for says in ("less", "greater"):
        small = judge(a_design(a_contrast(says=says, margin=0.05)), pair(values))
        (before,) = small.contrasts
        assert (before.decision in {"confirmed", "contradicted"}, before.size) == (
            True,
            "small",
        )
        others = [
            judge(a_design(a_contrast(name=str(n))), pair(list(0.05 * SPREAD)))
            for n in range(4)
        ]
        after, *_ = judging.adjusted([small, *others], 0.05)
        (contrast,) = after.contrasts
        assert (contrast.decision, contrast.size) == ("no relevant difference", None)
        assert "a difference beyond the margins is excluded" in contrast.because
        assert contrast.p_within_adjusted is not None
        assert contrast.p_within_adjusted < 0.05


def test_mixed_code_or_devices_are_the_first_caveat() -> None:
    mixtures: list[tuple[str, dict[str, object]]] = [
        ("code", {"source_hash": "1"}),
        ("code", {"modules": {"mine": "1"}}),
        ("device", {"device": "cuda"}),
        ("torch", {"packages": {"torch": "3"}}),
        ("mlxtend", {"packages": {"mlxtend": "3"}}),
    ]
    for key, change in mixtures:
        other = A_RECORD.environment.model_copy(update=change)
        runs = [A_RECORD, A_RECORD.model_copy(update={"environment": other})]
        verdict = a_verdict(runs=runs)
        assert verdict.caveats[0].startswith(f"runs of mixed {key}"), change
        assert verdict_text(verdict).startswith(f"note: runs of mixed {key}"), change
    assert a_verdict().caveats == ["a caveat"]


def test_a_theorem_holds_within_its_tolerance_if_it_could_have_failed() -> None:
    theorem = Theorem(check="x", tolerance=1e-6)
    for deviation, control, decision in (
        (0.0, None, "confirmed"),
        (1e-9, 0.5, "confirmed"),
        (1e-3, 0.5, "contradicted"),
        (0.0, 1e-9, "not decided"),
        (math.nan, 0.5, "contradicted"),
        (0.0, math.nan, "not decided"),
        (math.inf, None, "contradicted"),
    ):
        judged = judging.judge_theorem(theorem, "x is 0.", deviation, control, "")
        assert judged.decision == decision, (deviation, control)
        assert type(judged).model_validate_json(judged.model_dump_json()) == judged


def test_a_verdict_is_read_back_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    verdict = a_verdict(judge(a_design(), pair([-0.05, *[-0.04] * 7])))
    path = tmp_path / "verdict.json"
    assert read_verdict(path) is None
    path.write_text(verdict.model_dump_json())
    assert read_verdict(path) == verdict
    path.write_text("{}")
    with pytest.raises(RequestError, match="is not a verdict"):
        read_verdict(path)


def test_text_keeps_within_the_terminal() -> None:
    verdict = a_verdict(judge(a_design(), pair([-0.05, *[-0.04] * 7])))
    for width in (60, 80, 120):
        assert max(map(len, verdict_text(verdict, width).splitlines())) <= width
