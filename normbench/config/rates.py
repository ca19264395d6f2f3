"""The peak learning rate of a run, which depends on the batch size."""

import math
from typing import Literal

from normbench.config.schema import RunConfig


def peak_learning_rate(
    lr: float,
    rule: Literal["linear", "sqrt", "none"],
    batch_size: int,
    reference_batch_size: int,
) -> float:
    """Return `lr`, which is for `reference_batch_size`, scaled to `batch_size`.

    The rule "linear" is from Goyal et al. 2017, "sqrt" from Krizhevsky 2014.
    """
    ratio = batch_size / reference_batch_size
    scale = {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[rule]
    return lr * scale


def peak_lr(config: RunConfig) -> float:
    """Return the learning rate of a run at the end of its warm-up, the highest one."""
    return peak_learning_rate(
        config.lr, config.lr_rule, config.batch_size, config.lr_reference_batch_size
    )


def rate_text(config: RunConfig, peak: float) -> str:
    """Return the peak rate of a run, and how it follows from lr if it differs.

    Such as "0.00625 (lr=0.1, lr_rule=linear, batch_size=2)".
    """
    if math.isclose(peak, config.lr):
        return f"{peak:.4g}"
    return (
        f"{peak:.4g} (lr={config.lr:g}, lr_rule={config.lr_rule}, "
        f"batch_size={config.batch_size})"
    )
