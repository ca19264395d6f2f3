"""The peak learning rate, scaled by the batch size."""

import math
from typing import Literal

from normbench.config.schema import RunConfig


def peak_learning_rate(
    lr: float,
    rule: Literal["linear", "sqrt", "none"],
    batch_size: int,
    reference_batch_size: int,
) -> float:
    """`lr` at the reference batch size, scaled to `batch_size`.

    linear: Goyal et al. 2017; sqrt: Krizhevsky 2014.
    """
    ratio = batch_size / reference_batch_size
    scale = {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[rule]
    return lr * scale


def peak_lr(config: RunConfig) -> float:
    """The highest learning rate of a run, after its warm-up."""
    return peak_learning_rate(
        config.lr, config.lr_rule, config.batch_size, config.lr_reference_batch_size
    )
