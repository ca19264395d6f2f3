"""Notes on how the user's files were read, and warnings about possible mistakes."""

import logging
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from normbench.data.reading.files import shortened, shown

MAX_NAMED_CLASSES = 20
"""If there are more classes, only the largest and the smallest are named."""
MIN_CLASS_SIZE = 3
"""A class with fewer samples is missing in train, val or test."""

log = logging.getLogger(__name__)


class Notes(NamedTuple):
    """Lines for the user: `understood` describes what was read.

    `warnings` describe possible mistakes in the files.
    """

    understood: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def plus(self, *others: "Notes") -> "Notes":
        """Return these notes followed by the `others`."""
        # `understood` and `warnings` are tuples of tuples here; `sum` joins each.
        understood, warnings = zip(self, *others, strict=True)
        return Notes(sum(understood, ()), sum(warnings, ()))

    def lines(self) -> list[str]:
        """Return all lines in the form in which a record contains them."""
        return [*self.understood, *(f"warning: {line}" for line in self.warnings)]

    def warn(self) -> None:
        """Log each warning, at most once per process."""
        for line in self.warnings:
            _warn(line)


@cache
def _warn(text: str) -> None:
    log.warning("%s", text)


def class_notes(labels: Iterable[str], source: str) -> Notes:
    """Describe the sizes of the classes in `source`; warn about small classes."""
    counts = Counter(labels)
    if len(counts) <= MAX_NAMED_CLASSES:
        sizes = ", ".join(f"{shown(name)} {counts[name]}" for name in sorted(counts))
    else:
        (largest, high), *_, (smallest, low) = counts.most_common()
        sizes = f"from {shown(smallest)} {low} to {shown(largest)} {high}"
    line = f"{source}: {counts.total()} samples of {len(counts)} classes: {sizes}"
    few = sorted(name for name, count in counts.items() if count < MIN_CLASS_SIZE)
    if not few:
        return Notes((line,))
    names = shortened(f"{shown(name)} {counts[name]}" for name in few)
    return Notes((line,), (f"{source}: classes with 1 or 2 samples: {names}",))
