"""Metrics in words and units, for the axes of figures.

Errors and accuracies are in per cent, and their changes in points (percentage points).
"""

from typing import Literal, NamedTuple

from normbench.verdicts.wording import CHANGES, SHARES

SPLITS = {
    "test": "test {}",
    "val": "validation {}",
    "train": "training {}",
    "recomputed": "with recomputed statistics",
    "batch": "with the statistics of each batch",
    "ema": "with averaged weights",
    "averaged": "and statistics",
}
"""Parts of the name of a split in words."""
PROBES = {
    "covariate_shift/cosine": "cosine of a layer's gradients before and after a step",
    "covariate_shift/l2": "change of a layer's gradient by a step",
    "covariate_shift/relative_l2": "relative change of a layer's gradient by a step",
    "pad_statistics/scale": "log of the deviation with pads / without",
    "pad_statistics/scale_spread": "spread of this log between batches",
    "pad_statistics/shift": "shift of the mean by pads, in deviations",
    "regrouped/error_increase": "error with new groups minus before",
    "regrouped/loss_increase": "loss with new groups minus before",
    "statistic_noise/mean_noise": "noise of a batch mean, in deviations",
    "statistic_noise/std_noise": "noise of the log of a batch deviation",
    "style_leakage/brightness": "R² of the input's brightness from the output",
    "style_leakage/contrast": "R² of the input's contrast from the output",
    "style_leakage/hue": "R² of the input's hue from the output",
}
LOWER, HIGHER = ("error", "loss", "batch_loss", "content", "style"), ("accuracy",)
"""Quantities of which lower, or higher, values are better."""


class Quantity(NamedTuple):
    """A metric on an axis: the drawn value is the metric times `factor`.

    `low` and `high` limit the possible values, in the drawn unit; None if there is no
    limit. `better` is "" if neither direction is better.
    """

    words: str
    unit: Literal["%", "points", ""]
    factor: float
    low: float | None
    high: float | None
    better: Literal["lower", "higher", ""]

    @property
    def label(self) -> str:
        """The label of an axis, such as "test error (%)"."""
        return f"{self.words} ({self.unit})" if self.unit else self.words

    def text(self, value: float) -> str:
        """Return a drawn value as text, such as "4.40 %" or "0.1483"."""
        if self.unit:
            sign = "+" if self.unit == "points" else ""
            number, unit = f"{value:{sign}.2f}", f" {self.unit}"
        else:
            number, unit = f"{value:.4g}", ""
        return number.replace("-", "\N{MINUS SIGN}") + unit


def quantity(metric: str) -> Quantity:
    """Return what a metric such as "test/error" is on an axis."""
    name = metric.rpartition("/")[2]
    words = metric_words(metric)
    if name in SHARES:
        better: Literal["lower", "higher"] = "lower" if name == "error" else "higher"
        return Quantity(words, "%", 100.0, 0.0, 100.0, better)
    if name in CHANGES:
        return Quantity(words, "points", 100.0, -100.0, 100.0, "")
    if name in LOWER:
        return Quantity(words, "", 1.0, 0.0, None, "lower")
    return Quantity(words, "", 1.0, None, None, "higher" if name in HIGHER else "")


def metric_words(metric: str) -> str:
    """Return a metric in words, such as "test error with recomputed statistics"."""
    if metric in PROBES:
        return PROBES[metric]
    split, _, name = metric.partition("/")
    name = name.replace("_", " ")
    first, *rest = split.split("_")
    if first not in ("test", "val", "train") or any(
        part not in SPLITS for part in rest
    ):
        return f"{split} {name}".replace("_", " ").strip()
    return " ".join([SPLITS[first].format(name), *(SPLITS[part] for part in rest)])
