"""Effects in the units of their metrics, and direction and size in words."""

from math import inf, log
from typing import Any

import pytest
from census_made import a_census, a_rule
from verdicts_made import (
    SPREAD,
    a_contrast,
    a_design,
    judge,
    pair,
    rich_verdict,
)

from normbench.verdicts.counting import LAYER_CATEGORIES, TIED, judge_census
from normbench.verdicts.verdict import ContrastVerdict
from normbench.verdicts.wording import (
    answer,
    category_text,
    census_text,
    contradiction_text,
    estimate_text,
    margin_text,
    mean_text,
    rule_text,
    unit,
    value_text,
)


def contrasts() -> dict[str, ContrastVerdict]:
    return {
        contrast.name: contrast
        for design in rich_verdict().designs
        for contrast in design.contrasts
    }


def with_numbers(**changes: Any) -> ContrastVerdict:
    """Return a confirmed, clear contrast with `changes`."""
    (contrast,) = judge(a_design(a_contrast()), pair([-0.05, *[-0.04] * 7])).contrasts
    return contrast.model_copy(update=changes)


@pytest.mark.parametrize(
    ("scale", "metric", "expected", "text"),
    [
        ("difference", "test/error", "points", "+12.50"),
        ("difference", "val_batch/accuracy", "points", "+12.50"),
        ("difference", "test/loss", "", "+0.1250"),
        ("difference", "noise/error_of_mean", "", "+0.1250"),
        ("ratio", "test/error", "%", "+13.3"),
        ("ratio", "test/loss", "%", "+13.3"),
        ("log2", "test/error", "", "+0.1250"),
    ],
)
def test_a_unit_follows_from_scale_and_metric(
    scale: Any, metric: str, expected: str, text: str
) -> None:
    assert unit(scale, metric) == expected
    assert value_text(0.125, scale, metric) == text
    assert value_text(0.125, scale, metric, sign=False) == text[1:]


def test_a_ratio_that_is_too_large_stays_a_number() -> None:
    for log_ratio in (12.0, 1000.0, inf):
        assert value_text(log_ratio, "ratio", "test/loss") == "+1000000.0"
    assert value_text(-1000.0, "ratio", "test/loss") == "-100.0"


def test_margins_have_the_unit_of_the_effect() -> None:
    for changes, text in (
        ({"margin": 0.005}, "0.5 points"),
        ({"margin": log(1.15), "scale": "ratio"}, "+15 % or -13 %"),
        ({"margin": 0.05, "scale": "log2"}, "0.05"),
        ({"margin": 0.05, "metric": "test/loss"}, "0.05"),
    ):
        assert margin_text(with_numbers(**changes)) == text


def test_means_of_shares_are_per_cent() -> None:
    assert mean_text(0.1234, "test/error") == "12.34 %"
    assert mean_text(0.1234, "val/accuracy") == "12.34 %"
    assert mean_text(0.123456, "test/loss") == "0.1235"


def test_an_estimate_has_the_interval_that_decided() -> None:
    (wide,) = judge(a_design(a_contrast("less")), pair(list(SPREAD))).contrasts
    (narrow,) = judge(a_design(a_contrast("equal")), pair(list(SPREAD))).contrasts
    for contrast, low, high in (
        (wide, wide.low, wide.high),
        (narrow, narrow.low_margin, narrow.high_margin),
    ):
        assert contrast.effect is not None and low is not None and high is not None
        effect = f"{100 * contrast.effect:+.2f} points"
        interval = f" [{100 * low:+.2f}, {100 * high:+.2f}]"
        assert estimate_text(contrast, interval=True) == effect + interval
        assert estimate_text(contrast, interval=False) == effect
    assert estimate_text(wide, interval=True) != estimate_text(narrow, interval=True)


def test_direction_and_size_are_two_answers() -> None:
    by_name = contrasts()
    for name, start, end in (
        ("a against b (clear)", "lower by 9.72 points [", "clearly more than the "),
        ("a against b (opposite)", "lower by 9.72 points [", "clearly more than the "),
        ("d against b (small)", "higher by 1.19 points [", "smaller than the "),
        ("d against b (open)", "higher by 1.19 points [", "whether that is more than "),
    ):
        text = answer(by_name[name])
        assert text.startswith(start), text
        assert end in text, text
    assert answer(by_name["d against b (open)"]).endswith("of 1.2 points is open")
    # Without a known direction, there is no "higher" or "lower".
    for name in ("c against b (nothing)", "f against b (did not train)"):
        text = answer(by_name[name])
        assert text.startswith("+"), text
        assert text.endswith("; margin 2 points"), text
    assert answer(by_name["f against b (skipped)"]) == ""


def test_a_lower_ratio_has_the_margin_of_the_inverse() -> None:
    ratio = {"scale": "ratio", "margin": log(1.15)}
    low, middle, high = log(0.7), log(0.8), log(0.86)
    lower = with_numbers(**ratio, effect=middle, low=low, high=high)
    # 14 % less is more than the inverse of 15 % more.
    assert answer(lower) == (
        "lower by 20.0 % [14.0, 30.0]; clearly more than the margin of 13 %"
    )
    higher = with_numbers(**ratio, effect=-middle, low=-high, high=-low)
    assert answer(higher) == (
        "higher by 25.0 % [16.3, 42.9]; clearly more than the margin of 15 %"
    )


def test_a_rule_and_its_contradiction_are_sentences() -> None:
    images = {"task": "classification", "unit": "module"}
    of_timm = {"library": "timm", "says": "most_frequent", "than": None}
    axes = {"census": "layer_norm_axes", "of": "C,H,W", "among": ["C,H,W", "token"]}
    cases: list[tuple[dict[str, Any], str, str]] = [
        (
            images,
            "more than 50 % of the modules of torchvision for classification have "
            "BatchNorm as their default norm",
            "50 % or less",
        ),
        (
            {"says": "less", "than": 0.055, "of": "none"},
            "less than 5.5 % of the models of torchvision have no norm as their "
            "default norm",
            "5.5 % or more",
        ),
        (
            of_timm,
            "more models of timm have BatchNorm as their default norm than any other",
            "another category with at least as many",
        ),
        (
            axes,
            "more than 50 % of the models of torchvision have layer norms over C, H "
            "and W (among: C, H and W; a token's embedding)",
            "50 % or less",
        ),
    ]
    for changes, text, contradiction in cases:
        assert rule_text(a_rule(**changes)) == text
        assert contradiction_text(a_rule(**changes)) == contradiction


def test_the_numbers_of_a_census_name_the_version_and_what_is_open() -> None:
    def text(*failures: str, **changes: Any) -> str:
        return census_text(judge_census(a_rule(**changes), a_census(failures=failures)))

    assert text() == "1 of 3 models of torchvision 0.29.1, 33.3 %"
    assert text("alexnet", unit="module") == (
        "1 of 3 modules of torchvision 0.29.1, 33.3 % "
        "[25 %, 50 % with what is tied or could not be counted]"
    )
    assert text(library="timm") == "timm is not installed"
    assert text(task="video") == "no models of torchvision 0.29.1 for video counted"


def test_every_category_of_a_census_has_words() -> None:
    for categories in LAYER_CATEGORIES.values():
        texts = [category_text(category) for category in (*categories, TIED, "none")]
        assert len(set(texts)) == len(texts)
        assert all(text and "_" not in text for text in texts)
