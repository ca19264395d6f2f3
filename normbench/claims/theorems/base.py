"""How a theorem is checked, and how its check is registered."""

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
    """What a check measured: where the theorem says 0, and where it says not 0.

    A check whose control is within the tolerance could not have failed: it does not
    support the theorem.
    """

    deviation: float
    """The largest |difference| where the theorem says 0."""
    control: float | None
    """The smallest one where the theorem says that it is not 0; None: no such case."""
    detail: str
    """One sentence with the figures."""


theorem: Functions[Check] = Functions("theorem", "normbench.claims.theorems")
"""Registers a check: a function without arguments, which `check` calls. The first line
of its docstring is the statement."""


def names() -> list[str]:
    """The names of all checks, sorted."""
    return theorem.names()


def statement(name: str) -> str:
    """What the check `name` shows, in one sentence.

    Raises RequestError with close matches for an unknown name; so does `check`.
    """
    return theorem.description(name)


def check(name: str) -> Finding:
    """Measure the theorem `name`: the same figures at every call.

    The global random stream starts at 0 inside and is restored afterwards. One thread
    is faster than several for thousands of tiny calls.
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
    """The largest of the deviations and the smallest of the controls.

    `detail` is formatted with `figures`, and with `deviation` and its key `worst`,
    `control` and its key `weakest`.
    """
    (worst, deviation), (weakest, control) = largest(deviations), smallest(controls)
    figures |= {"deviation": deviation, "control": control}
    sentence = detail.format(worst=worst, weakest=weakest, **figures)
    return Finding(deviation, control, sentence)


def difference(a: Tensor, b: Tensor) -> float:
    """The largest |a - b|, relative to the largest |b| or 1, whichever is larger.

    NaN where either has one: no tolerance holds for it.
    """
    return float((a - b).abs().max() / b.abs().max().clamp(min=1))


def largest(values: Mapping[K, float]) -> tuple[K, float]:
    """The key and the value of the largest deviation; NaN is larger than any."""
    key = max(values, key=lambda k: (math.isnan(values[k]), values[k]))
    return key, values[key]


def smallest(values: Mapping[K, float]) -> tuple[K, float]:
    """The key and the value of the smallest control; NaN is smaller than any."""
    key = min(values, key=lambda k: (not math.isnan(values[k]), values[k]))
    return key, values[key]
