"""Ratios of means by the delta method, and effects in words and units."""

import math

import numpy as np
import pytest
from verdicts_made import a_contrast, a_design, a_run, a_verdict, judge

from normbench.config.schema import RunRecord
from normbench.report.text.verdict import verdict_text
from normbench.verdicts.verdict import ContrastVerdict
from normbench.verdicts.wording import answer, estimate_text, margin_text


def runs(errors: list[float], **metrics: float) -> list[RunRecord]:
    return [
        a_run(error).model_copy(update={"metrics": {**a_run(error).metrics, **metrics}})
        for error in errors
    ]


def of(a: list[float], b: list[float], **changes: object) -> ContrastVerdict:
    design = a_design(
        a_contrast("less", **{"scale": "ratio", "margin": 0.1, **changes})
    )
    (contrast,) = judge(design, {"a@-": runs(a), "b@-": runs(b)}).contrasts
    return contrast


def test_a_ratio_is_that_of_the_means_with_the_error_of_the_delta_method() -> None:
    generator = np.random.default_rng(1)
    a = generator.normal(0.05, 0.01, 16)
    b = generator.normal(0.08, 0.01, 16)
    contrast = of(a.tolist(), b.tolist())
    assert contrast.effect == pytest.approx(math.log(a.mean() / b.mean()))
    variance = np.cov(a / a.mean(), b / b.mean())
    sd = math.sqrt(variance[0, 0] + variance[1, 1] - 2 * variance[0, 1])
    assert contrast.sd == pytest.approx(sd)
    assert contrast.margin == pytest.approx(math.log(1.1))
    assert (contrast.decision, contrast.size) == ("confirmed", "clear")


def test_a_run_without_errors_has_a_ratio_and_a_cell_without_errors_has_none() -> None:
    some = [0.0, 0.04, 0.05, 0.06, 0.05, 0.05]
    contrast = of(some, [0.1, 0.11, 0.09, 0.1, 0.1, 0.1])
    assert contrast.effect == pytest.approx(math.log(np.mean(some) / 0.1))
    nothing = of([0.0] * 6, some)
    assert nothing.decision == "not decided"
    assert "no finite test/error, or a mean of 0" in nothing.because


def test_a_diverged_run_has_no_loss_and_the_other_seeds_stand() -> None:
    contrast = a_contrast("less", metric="test/loss")
    cells = {"a@-": runs([0.1] * 8, **{"test/loss": 1.0}), "b@-": []}
    cells["b@-"] = [
        record.model_copy(update={"metrics": record.metrics | {"test/loss": 2 + i / 9}})
        for i, record in enumerate(cells["a@-"])
    ]
    cells["a@-"][3] = a_run(None, status="diverged")
    (judged,) = judge(a_design(contrast), cells).contrasts
    assert (judged.n, judged.decision) == (7, "confirmed")
    assert "without seeds 3, on which a run diverged" in judged.because
    failed = a_run(None, status="failed")
    cells["a@-"][3] = failed
    (judged,) = judge(a_design(contrast), cells).contrasts
    assert (judged.decision, judged.effect) == ("not decided", None)


def test_errors_are_points_ratios_per_cent_and_others_numbers() -> None:
    a, b = [0.1, 0.12, 0.11, 0.1, 0.12, 0.11], [0.2, 0.21, 0.22, 0.2, 0.21, 0.22]
    ratio, points = of(a, b), of(a, b, scale="difference", margin=0.005)
    assert estimate_text(ratio, interval=False) == "-47.6 %"
    assert margin_text(ratio) == "+10 % or -9.09 %"
    assert estimate_text(points, interval=False) == "-10.00 points"
    assert margin_text(points) == "0.5 points"
    assert answer(points).startswith("lower by 10.00 points [")
    assert answer(points).endswith("clearly more than the margin of 0.5 points")
    assert answer(ratio).startswith("lower by 47.6 % [")
    wide = of(a, b, scale="difference", margin=0.5)
    assert answer(wide).endswith("; smaller than the margin of 50 points")
    low, high = (float(x) for x in answer(wide).split("[")[1].split("]")[0].split(","))
    assert low < 10 < high
    loss = of(a, b, scale="difference", metric="train/other")
    assert answer(loss) == ""
    printed = verdict_text(
        a_verdict(judge(a_design(), {"a@-": runs(a), "b@-": runs(b)}))
    )
    assert "lower by 10.00 points" in printed


def test_the_slope_on_the_log2_scale_is_the_exponent_of_a_power_law() -> None:
    levels = (2, 8, 32)
    contrast = a_contrast(
        "equal", weights=None, slope="a", metric="train/noise", scale="log2",
        expected=-0.5, margin=0.1,
    )  # fmt: skip
    design = a_design(contrast, levels={str(n): f"norm_batch={n}" for n in levels})

    def judged(exponent: float, spread: float = 0.0) -> ContrastVerdict:
        cells = {}
        for number, n in enumerate(levels):
            noises = [3 * n**exponent + spread * s * number for s in range(8)]
            cells[f"a@{n}"] = [
                run for x in noises for run in runs([0.1], **{"train/noise": x})
            ]
        return judge(design, cells).contrasts[0]

    exact = judged(-0.5)
    assert exact.effect == pytest.approx(0, abs=1e-12)
    assert exact.decision == "confirmed"
    assert judged(-0.8).effect == pytest.approx(-0.3)
    assert judged(-0.8).decision == "contradicted"
    # The logarithm is taken of each run, and not of the means.
    noisy = judged(-0.5, spread=0.05)
    rows = [
        [3 * n**-0.5 + 0.05 * s * i for i, n in enumerate(levels)] for s in range(8)
    ]
    slopes = [np.polyfit(np.log2(levels), np.log2(row), 1)[0] + 0.5 for row in rows]
    assert noisy.effect == pytest.approx(np.mean(slopes))
    assert noisy.sd == pytest.approx(np.std(slopes, ddof=1))


def test_a_run_of_0_has_no_logarithm() -> None:
    contrast = of([0.0, *[0.1] * 7], [0.2] * 8, scale="log2", margin=0.5)
    assert (contrast.decision, contrast.effect) == ("not decided", None)
    assert contrast.because == "seeds 0 have no finite logarithm of test/error"
