"""What data of the user's own were understood as: lines for a person, and warnings."""

import logging
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from normbench.data.reading.files import shortened, shown

NAMED = 20
"""Classes that are named with their counts; of more, the smallest and largest are."""
FEW = 3
"""Samples of a class below which one of three parts has none of them."""

log = logging.getLogger(__name__)


class Notes(NamedTuple):
    """`understood` says what data were taken for, `warnings` what may be a mistake."""

    understood: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def plus(self, other: "Notes") -> "Notes":
        """These, and the others after them."""
        return Notes(
            (*self.understood, *other.understood), (*self.warnings, *other.warnings)
        )

    def lines(self) -> list[str]:
        """All of them, as a record keeps them."""
        return [*self.understood, *(f"warning: {each}" for each in self.warnings)]

    def warn(self) -> None:
        """Log each warning, once in this process."""
        for each in self.warnings:
            _warn(each)


@cache
def _warn(text: str) -> None:
    log.warning("%s", text)


def of_classes(labels: Iterable[str], where: str) -> Notes:
    """How many samples of each class there are; a warning of those that have few."""
    counts = Counter(labels)
    if len(counts) <= NAMED:
        sizes = ", ".join(f"{shown(name)} {counts[name]}" for name in sorted(counts))
    else:
        (most, highest), *_, (least, lowest) = counts.most_common()
        sizes = f"from {shown(least)} {lowest} to {shown(most)} {highest}"
    line = f"{where}: {counts.total()} samples of {len(counts)} classes: {sizes}"
    few = sorted(name for name, count in counts.items() if count < FEW)
    if not few:
        return Notes((line,))
    named = shortened(f"{shown(name)} {counts[name]}" for name in few)
    return Notes((line,), (f"{where}: classes with 1 or 2 samples: {named}",))
