"""The numbers of a contrast or of a census as text.

Those of a contrast are in the units of the metric. An error is a share, so its
differences are points (percentage points). On the scale "ratio", the logarithm of a
ratio becomes per cent. Other differences stay numbers.
"""

from collections.abc import Sequence
from math import exp, log1p

from normbench.verdicts.counting import TIED, CensusName, CensusRule, CensusVerdict
from normbench.verdicts.design import Scale
from normbench.verdicts.tallies import NONE
from normbench.verdicts.verdict import ContrastVerdict

SHARES = ("error", "accuracy")
"""Quantities that are shares of samples."""
CHANGES = ("error_increase", "error_change")
"""Quantities that are differences of shares."""
CATEGORIES = {
    "batch": "BatchNorm",
    "layer": "LayerNorm",
    "group": "GroupNorm",
    "instance": "InstanceNorm",
    "rms": "RMSNorm",
    "evonorm": "EvoNorm",
    "filter_response": "FRN",
    "C,H,W": "C, H and W",
    "token": "a token's embedding",
    "head": "a head's part of a token",
    "vector": "the only axis",
    "not called": "unknown axes",
    TIED: "tied",
}
"""Categories of a census in words; others are their own words."""
HAVE: dict[CensusName, str] = {
    "default_norms": "have {} as their default norm",
    "layer_norm_axes": "have layer norms over {}",
}
"""What a census says of models of a category."""


def unit(scale: Scale, metric: str) -> str:
    """Return the unit of an effect: "%", "points", or "" for a plain number."""
    if scale == "ratio":
        return "%"
    is_share = metric.partition("/")[2] in SHARES + CHANGES and scale == "difference"
    return "points" if is_share else ""


def value_text(value: float, scale: Scale, metric: str, *, sign: bool = True) -> str:
    """Return an effect or the end of an interval, without its unit."""
    plus = "+" if sign else ""
    which = unit(scale, metric)
    if which == "%":
        # Beyond this, a per cent has no meaning for a reader, and exp may overflow.
        return f"{100 * (exp(min(value, log1p(1e4))) - 1):{plus}.1f}"
    if which == "points":
        return f"{100 * value:{plus}.2f}"
    return f"{value:{plus}.4f}"


def margin_text(contrast: ContrastVerdict) -> str:
    """Return the margin with its unit, such as "+10 % or -9.09 %" or "0.5 points".

    A ratio of 1.1 has the same distance from 1 as its inverse, which is 9.09 % less.
    """
    if unit(contrast.scale, contrast.metric) == "%":
        margins = (_margin_on_one_side(contrast, higher=up) for up in (True, False))
        return "+{} or -{}".format(*margins)
    return _margin_on_one_side(contrast, higher=True)


def _margin_on_one_side(contrast: ContrastVerdict, *, higher: bool) -> str:
    margin = contrast.margin
    if unit(contrast.scale, contrast.metric) == "%":
        share = abs(exp(margin if higher else -margin) - 1)
        return f"{100 * share:.3g} %"
    return difference_margin_text(margin, contrast.scale, contrast.metric)


def difference_margin_text(margin: float, scale: Scale, metric: str) -> str:
    """Return the margin of a difference, such as "0.5 points" or "1 point"."""
    if unit(scale, metric) != "points":
        return f"{margin:.3g}"
    points = f"{100 * margin:.3g}"
    return f"{points} point" if points == "1" else f"{points} points"


def estimate_text(contrast: ContrastVerdict, *, interval: bool) -> str:
    """Return the effect, such as "+12.3 % [+5.0, +20.1]". The effect must exist."""
    assert contrast.effect is not None
    shown = contrast.interval if interval else None
    ends = None if shown is None else (shown.low, shown.high)
    return difference_text(contrast.effect, ends, contrast.scale, contrast.metric)


def difference_text(
    effect: float, ends: tuple[float, float] | None, scale: Scale, metric: str
) -> str:
    """Return an effect, such as "+12.3 % [+5.0, +20.1]"; `ends` are the interval."""
    which = unit(scale, metric)
    text = value_text(effect, scale, metric) + (f" {which}" if which else "")
    if ends is not None:
        low, high = (value_text(end, scale, metric) for end in ends)
        text += f" [{low}, {high}]"
    return text


def mean_text(mean: float, metric: str) -> str:
    """Return the mean of a metric: errors in per cent, others as numbers."""
    if metric.partition("/")[2] in SHARES:
        return f"{100 * mean:.2f} %"
    if metric.partition("/")[2] in CHANGES:
        return f"{100 * mean:+.2f} points"
    return f"{mean:.4g}"


def answer(contrast: ContrastVerdict) -> str:
    """Return direction and size of a contrast in words, "" without an effect.

    Such as "lower by 12.0 % [5.0, 18.2]; smaller than the margin of 20 %".
    """
    shown = contrast.interval
    if contrast.effect is None or shown is None or contrast.decision == "not tested":
        return ""
    if contrast.size is None:
        estimate = estimate_text(contrast, interval=True)
        return f"{estimate}; margin {margin_text(contrast)}"
    scale, metric, higher = contrast.scale, contrast.metric, contrast.effect > 0
    margin = _margin_on_one_side(contrast, higher=higher)
    # A ratio below 1 is turned around to per cent of what is lower.
    ends = sorted(shown[:2], key=abs)
    low, high = (value_text(end, scale, metric, sign=False).lstrip("-") for end in ends)
    size = value_text(contrast.effect, scale, metric, sign=False).lstrip("-")
    which = unit(scale, metric)
    text = f"{'higher' if higher else 'lower'} by {size}{f' {which}' if which else ''}"
    text += f" [{low}, {high}]; "
    return (
        text
        + {
            "clear": f"clearly more than the margin of {margin}",
            "small": f"smaller than the margin of {margin}",
            "open": f"whether that is more than the margin of {margin} is open",
        }[contrast.size]
    )


def category_text(category: str) -> str:
    """Return the category of a census in words."""
    return CATEGORIES.get(category, category)


def rule_text(rule: CensusRule) -> str:
    """Return what a rule says of the models, a sentence without full stop."""
    task = "" if rule.task is None else f" for {rule.task}"
    units = f"{rule.unit}s of {rule.library}{task}"
    none = "no norm" if rule.census == "default_norms" else "no axes"
    of = none if rule.of == NONE else category_text(rule.of)
    have = HAVE[rule.census].format(of)
    if rule.than is None:
        text = f"more {units} {have} than any other"
    else:
        more = "more" if rule.says == "greater" else "less"
        text = f"{more} than {_percent(rule.than)} of the {units} {have}"
    if rule.among is not None:
        text += f" (among: {'; '.join(map(category_text, rule.among))})"
    return text


def contradiction_text(rule: CensusRule) -> str:
    """Return what would contradict a rule."""
    if rule.than is None:
        return "another category with at least as many"
    less = "less" if rule.says == "greater" else "more"
    return f"{_percent(rule.than)} or {less}"


def census_text(verdict: CensusVerdict) -> str:
    """Return the numbers of a rule, such as "54 of 98 modules of timm 1.0.31, 55.1 %".

    Where models are tied or could not be counted, the range that they leave follows.
    """
    if verdict.version is None:
        return f"{verdict.library} is not installed"
    task = "" if verdict.task is None else f" for {verdict.task}"
    what = f"{verdict.unit}s of {verdict.library} {verdict.version}{task}"
    if verdict.share is None:
        return f"no {what} counted"
    text = f"{verdict.count} of {verdict.total} {what}, {_percent(verdict.share)}"
    if verdict.lowest_share < verdict.highest_share:
        low, high = map(_percent, (verdict.lowest_share, verdict.highest_share))
        text += f" [{low}, {high} with what is tied or could not be counted]"
    return text


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def listed(texts: Sequence[str], last: str = "and") -> str:
    """Return texts as a list in a sentence, such as "a, b and c"."""
    *first, end = texts
    return f"{', '.join(first)} {last} {end}" if first else end
