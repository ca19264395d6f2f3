"""How a theorem is checked, and how its check gets its name."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from normbench.registry import Functions

K = TypeVar("K")
Check = Callable[[], "Finding"]


@dataclass(frozen=True)
class Finding:
    """What a check measured: where the theorem says 0, and where it says not 0."""

    holds_for: str
    """The positive part in words: what the theorem says it of."""
    deviation: float
    """The largest |difference| where the theorem says 0."""
    control: float | None
    """The same quantity where the theorem says that it is not 0; the smallest of
    several. None where there is nothing to compare with."""
    control_is: str
    detail: str
    """One sentence with the figures, for people."""

    def holds(self, tolerance: float) -> bool:
        """The deviation is within `tolerance`, and the control is not.

        A check whose control is within it could not have failed: it shows nothing.
        """
        can_fail = self.control is None or self.control > tolerance
        return self.deviation <= tolerance and can_fail


theorem: Functions[Check] = Functions("theorem", "normbench.claims.theorems")
"""Registers a check: it takes no arguments, is called by `check`, and the first line of
its docstring is the statement."""


def names() -> list[str]:
    """The names of all checks, sorted."""
    return theorem.names()


def statement(name: str) -> str:
    """What the check `name` is about, in one sentence.

    Raises RequestError with close matches for an unknown name; so does `check`.
    """
    return theorem.description(name)


def check(name: str) -> Finding:
    """Measure the theorem `name`: the same figures at every call.

    The global random stream starts at 0 inside and is as before afterwards; one thread
    does it, for thousands of tiny calls that more threads would only wait in.
    """
    found = theorem.get(name)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return found()
    finally:
        torch.set_num_threads(threads)


def difference(a: Tensor, b: Tensor) -> float:
    """The largest |a - b|, relative to the largest |b| or 1, whichever is larger.

    NaN where either has one: no tolerance holds for it.
    """
    return float((a - b).abs().max() / b.abs().max().clamp(min=1))


def largest(values: Mapping[K, float]) -> tuple[K, float]:
    """The largest of several deviations and whose it is; NaN is larger than any."""
    key = max(values, key=lambda k: (math.isnan(values[k]), values[k]))
    return key, values[key]


def smallest(values: Mapping[K, float]) -> tuple[K, float]:
    """The smallest of several controls and whose it is; NaN is smaller than any."""
    key = min(values, key=lambda k: (not math.isnan(values[k]), values[k]))
    return key, values[key]
