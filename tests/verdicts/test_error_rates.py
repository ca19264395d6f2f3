"""Holm's adjustment of a verdict, and how often decisions are wrong."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from verdicts_made import (
    MARGIN,
    SITUATIONS,
    SPREAD,
    a_contrast,
    a_design,
    a_run,
    judge,
    pair,
)

from normbench.verdicts import contrasts, judging
from normbench.verdicts.design import Says
from normbench.verdicts.verdict import DesignVerdict


def many(count: int, strong: Sequence[float], weak: Sequence[float]) -> DesignVerdict:
    """Return contrasts: the first has the `strong` effects, the others the `weak`."""
    arms = {f"a{i}": "norm=batch" for i in range(count)} | {"b": "norm=group"}
    contrasts = [
        a_contrast(name=f"{i}", weights={f"a{i}@-": 1.0, "b@-": -1.0})
        for i in range(count)
    ]
    cells = {"b@-": pair(strong)["b@-"]}
    for i in range(count):
        cells[f"a{i}@-"] = pair(weak if i else strong)["a@-"]
    return judge(a_design(*contrasts, arms=arms), cells)


@pytest.mark.parametrize("sign", [-1, 1])
def test_holm_makes_a_barely_decided_contrast_inconclusive(sign: int) -> None:
    barely = list(sign * (0.04 + 0.04 * SPREAD))
    vaguely = list(SITUATIONS["nothing, vaguely"])
    alone, among = many(1, barely, vaguely), many(6, barely, vaguely)
    before = "confirmed" if sign < 0 else "contradicted"
    assert among.contrasts[0].decision == before
    (kept,) = judging.adjusted([alone], 0.05)
    assert kept.contrasts[0].decision == before
    (lost,) = judging.adjusted([among], 0.05)
    contrast = lost.contrasts[0]
    assert contrast.decision == "not decided"
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
    secondary = judge(a_design(a_contrast(part=None, bears="context")), pair(barely))
    adjusted = judging.adjusted([one, secondary], 0.05)
    assert adjusted[0].contrasts[0].p_adjusted == c.p
    assert adjusted[1].contrasts[0].p_adjusted is None
    untested = judge(a_design(), {"a@-": [a_run(0.1)] * 8})
    (c, u) = (d.contrasts[0] for d in judging.adjusted([one, untested], 0.05))
    assert c.p is not None and c.p_adjusted == pytest.approx(2 * c.p)
    assert (u.decision, u.p_adjusted) == ("not tested", None)


def test_excluded_differences_do_not_loosen_the_tests_of_directions() -> None:
    barely_worse = list(0.0016 + 0.0016 * SPREAD)
    precisely_nothing = list(0.0005 * SPREAD)
    among = many(4, barely_worse, precisely_nothing)
    decisions = [contrast.decision for contrast in among.contrasts]
    assert decisions == ["contradicted", *["no relevant difference"] * 3]
    (after,) = judging.adjusted([among], 0.05)
    worse, *others = after.contrasts
    assert worse.p_against is not None and worse.p_against < 0.05
    assert worse.p_against_adjusted == pytest.approx(4 * worse.p_against)
    assert worse.decision == "no relevant difference"
    assert {contrast.decision for contrast in others} == {"no relevant difference"}


# Simulated claims have three primary contrasts of 8 seeds, with sd .01 and margin .01.
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


@pytest.mark.slow
def test_decisions_are_seldom_wrong_at_a_bound_and_mostly_right_beyond_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rate is at most alpha over three contrasts; 400 claims show it to .03."""
    for module in (judging, contrasts):  # slow, and without effect on decisions
        monkeypatch.setattr(module, "seeds_needed", lambda *_: None)
    worst: list[tuple[Says, float, list[str]]] = [
        ("less", 0.0, ["confirmed"]),
        ("less", -MARGIN, ["no relevant difference"]),
        ("greater", MARGIN, ["contradicted"]),
        ("equal", MARGIN, ["confirmed", "contradicted"]),
        ("not_greater", MARGIN, ["confirmed", "contradicted"]),
    ]
    for says, effect, wrong in worst:
        claims = simulated(says, effect)
        for decision in wrong:
            share = sum(decision in claim for claim in claims) / SIMULATED
            assert share < 0.05 + 0.03, (says, effect, decision)
    clear: list[tuple[Says, float, str]] = [
        ("less", -2 * MARGIN, "confirmed"),
        ("greater", -2 * MARGIN, "contradicted"),
        ("not_greater", -MARGIN, "confirmed"),
        ("equal", 3 * MARGIN, "contradicted"),
    ]
    for says, effect, right in clear:
        decided = sum(claim.count(right) for claim in simulated(says, effect))
        assert decided / (3 * SIMULATED) > 0.8, (says, effect)
