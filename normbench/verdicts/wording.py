"""The numbers of a contrast as text, in the units of the metric.

An error is a share, so its differences are points (percentage points). On the scale
"ratio", the logarithm of a ratio becomes per cent. Other differences stay numbers.
"""

from math import exp, log1p

from normbench.verdicts.design import Scale
from normbench.verdicts.verdict import ContrastVerdict

SHARES = ("error", "accuracy")
"""Quantities that are shares of samples."""


def unit(scale: Scale, metric: str) -> str:
    """Return the unit of an effect: "%", "points", or "" for a plain number."""
    if scale == "ratio":
        return "%"
    is_share = metric.partition("/")[2] in SHARES and scale == "difference"
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
    margin, which = contrast.margin, unit(contrast.scale, contrast.metric)
    if which == "%":
        share = abs(exp(margin if higher else -margin) - 1)
        return f"{100 * share:.3g} %"
    return f"{100 * margin:.3g} points" if which == "points" else f"{margin:.3g}"


def estimate_text(contrast: ContrastVerdict, *, interval: bool) -> str:
    """Return the effect, such as "+12.3 % [+5.0, +20.1]". The effect must exist."""
    assert contrast.effect is not None
    scale, metric = contrast.scale, contrast.metric
    which = unit(scale, metric)
    text = value_text(contrast.effect, scale, metric)
    text += f" {which}" if which else ""
    shown = contrast.interval
    if interval and shown is not None:
        low, high = (value_text(end, scale, metric) for end in shown[:2])
        text += f" [{low}, {high}]"
    return text


def mean_text(mean: float, metric: str) -> str:
    """Return the mean of a metric: an error in per cent, others as numbers."""
    if metric.partition("/")[2] in SHARES:
        return f"{100 * mean:.2f} %"
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
