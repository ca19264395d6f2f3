"""Register the checks of theorems by name, run them, and compare tensors."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from normbench.registry import Functions

K = TypeVar("K")
L = TypeVar("L")
Check = Callable[[], "Finding"]


@dataclass(frozen=True)
class Finding:
    """What a check measured: a deviation, which should be 0, and a control.

    The control is measured in a case in which the theorem does not hold. If the control
    is within the tolerance, the check could not have failed, and so it does not support
    the theorem.
    """

    deviation: float
    """The largest difference among the cases in which the theorem says 0."""
    control: float | None
    """The smallest difference among the controls; None if the check has no control."""
    detail: str
    """One sentence with the figures."""


theorem: Functions[Check] = Functions("theorem", "normbench.claims.theorems")
"""Decorator that registers a check: a function without arguments. The first line of its
docstring is the statement of the theorem."""


def names() -> list[str]:
    """Return the names of all checks, sorted."""
    return theorem.names()


def statement(name: str) -> str:
    """Return the statement of the theorem `name`, one sentence.

    Raises RequestError with close matches for an unknown name.
    """
    return theorem.description(name)


def check(name: str) -> Finding:
    """Run the check of the theorem `name`; every call gives the same figures.

    The global random seed is 0 during the check and is restored afterwards. One thread
    is used, which is faster than several for thousands of tiny operations. Raises
    RequestError with close matches for an unknown name.
    """
    measure = theorem.get(name)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return measure()
    finally:
        torch.set_num_threads(threads)


def finding(
    deviations: Mapping[K, float],
    controls: Mapping[L, float],
    detail: str,
    **figures: object,
) -> Finding:
    """Return a finding with the largest deviation and the smallest control.

    `detail` is a format string. Its fields are the names in `figures`, `deviation`,
    `worst` (the key of the largest deviation), `control` and `weakest` (the key of the
    smallest control).
    """
    (worst, deviation), (weakest, control) = largest(deviations), smallest(controls)
    figures |= {"deviation": deviation, "control": control}
    sentence = detail.format(worst=worst, weakest=weakest, **figures)
    return Finding(deviation, control, sentence)


def difference(a: Tensor, b: Tensor) -> float:
    """Return the largest |a - b| divided by the largest |b|, or by 1 if 1 is larger.

    The result is NaN if `a` or `b` has a NaN, and then it exceeds every tolerance.
    """
    return float((a - b).abs().max() / b.abs().max().clamp(min=1))


def largest(values: Mapping[K, float]) -> tuple[K, float]:
    """Return the key and the value of the largest deviation; NaN counts as largest."""
    key = max(values, key=lambda k: (math.isnan(values[k]), values[k]))
    return key, values[key]


def smallest(values: Mapping[K, float]) -> tuple[K, float]:
    """Return the key and the value of the smallest control; NaN counts as smallest."""
    key = min(values, key=lambda k: (not math.isnan(values[k]), values[k]))
    return key, values[key]
