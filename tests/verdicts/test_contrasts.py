"""The values of contrasts and crossovers, from made-up records."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from verdicts_made import (
    SITUATIONS,
    a_contrast,
    a_design,
    a_run,
    a_verdict,
    judge,
    pair,
)

from normbench.report.text.verdict import verdict_text
from normbench.verdicts.metrics import metric_of
from normbench.verdicts.values import weights_of
from normbench.verdicts.verdict import Verdict


def test_a_diverged_run_counts_with_an_error_of_one() -> None:
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
    assert "1 diverged" in verdict_text(a_verdict(verdict), details=True)


def test_a_run_without_the_metric_makes_its_contrast_inconclusive() -> None:
    for status in ("failed", "skipped", "ok"):
        cells = pair(list(SITUATIONS["far below"]))
        cells["a@-"][5] = a_run(None, status=status)
        verdict = judge(a_design(), cells)
        (contrast,) = verdict.contrasts
        assert contrast.decision == "not decided", status
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
        assert contrast.decision == "not decided", size
        assert "have no finite test/error" in contrast.because, size
        assert "test/error" not in verdict.cells[0].mean, size
        assert metric_of(a_run(size / 2), "train/error") == 0.05
    assert metric_of(a_run(9e99), "test/error") == 9e99


def test_missing_runs_are_not_tested() -> None:
    cells = pair([-0.05] * 8)
    verdict = judge(a_design(), {"a@-": cells["a@-"], "b@-": []})
    assert verdict.contrasts[0].decision == "not tested"
    assert "b@-" in verdict.contrasts[0].because
    smoke = judge(a_design(), cells, tested=False)
    (contrast,) = smoke.contrasts
    assert (contrast.decision, contrast.effect) == ("not tested", None)
    one = judge(a_design(), {cell: runs[:1] for cell, runs in cells.items()})
    assert one.contrasts[0].decision == "not decided"


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
    assert judged.decision == "confirmed"
    expected = [np.polyfit(x, y + row, 1)[0] for row in noise]
    assert list(judged.values.values()) == pytest.approx(expected)


def test_a_contrast_is_the_difference_to_the_expected_number() -> None:
    contrast = a_contrast(
        "equal", weights=None, slope="a", scale="log2", expected=-0.5, margin=0.1
    )
    design = a_design(contrast, levels=LEVELS)

    def judged(power: float) -> Any:
        cells = {
            f"a@{n}": [a_run(float(n) ** power * (1 + s / 100)) for s in range(8)]
            for n in LEVELS
        }
        return judge(design, cells).contrasts[0]

    assert judged(-0.5).effect == pytest.approx(0, abs=1e-9)
    assert judged(-0.5).decision == "confirmed"
    assert judged(0.0).effect == pytest.approx(0.5)
    assert judged(0.0).decision == "contradicted"
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
    (crossover,) = judge(design, cells).crossovers
    assert crossover.at == (at if isinstance(at, str) else pytest.approx(at, rel=0.01))
    shares = crossover.share_before, crossover.share_after
    assert shares == (float(at == "before"), float(at == "after"))
    verdict = a_verdict(judge(design, cells))
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict
    assert "crossover" in verdict_text(verdict, details=True)
    cells["b@8"] = [a_run(0.9, train=0.9)] * 8
    assert judge(design, cells).crossovers == []
