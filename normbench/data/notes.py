"""How the user's files were understood: lines for a person, and warnings."""

import logging
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from normbench.data.reading.files import shortened, shown

NAMED = 20
"""Up to this many classes are named with their sizes; of more, the extremes are."""
FEW = 3
"""A class with fewer samples is missing in one of the three parts."""

log = logging.getLogger(__name__)


class Notes(NamedTuple):
    """`understood` says what was read, `warnings` what may be a mistake."""

    understood: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def plus(self, *others: "Notes") -> "Notes":
        """Append the lines of the others."""
        understood, warnings = zip(self, *others, strict=True)
        return Notes(sum(understood, ()), sum(warnings, ()))

    def lines(self) -> list[str]:
        """Return all lines, as a record keeps them."""
        return [*self.understood, *(f"warning: {line}" for line in self.warnings)]

    def warn(self) -> None:
        """Log each warning, once in this process."""
        for line in self.warnings:
            _warn(line)


@cache
def _warn(text: str) -> None:
    log.warning("%s", text)


def class_notes(labels: Iterable[str], where: str) -> Notes:
    """Describe the size of each class, and warn of classes with few samples."""
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
    names = shortened(f"{shown(name)} {counts[name]}" for name in few)
    return Notes((line,), (f"{where}: classes with 1 or 2 samples: {names}",))
