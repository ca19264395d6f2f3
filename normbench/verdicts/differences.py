"""How the verdict of a second judgement differs from the first one."""

import json
import math
import textwrap
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, NamedTuple

from normbench.verdicts.files import as_judged
from normbench.verdicts.verdict import Verdict

RELATIVE, ABSOLUTE = 1e-9, 1e-12
"""Numbers are equal within one of these tolerances: last digits depend on the CPU."""
MAX_WIDTH = 60
"""Characters of a value in the text of a difference."""
NAMES = ("name", "cell", "check", "lr")
"""Keys that name a part of a list; each part has one of them."""
ABSENT = "absent"
"""The value that a verdict lacks."""


class Difference(NamedTuple):
    """A value of a verdict that has changed, in JSON types.

    `where` is its place, such as "outcomes / images / contrasts / a against b / p".
    """

    where: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.where}: {_text(self.old)} -> {_text(self.new)}"


def differences(old: Verdict, new: Verdict) -> list[Difference]:
    """Return where two verdicts differ in what they judge; see `as_judged`."""
    return list(_differences((), as_judged(old), as_judged(new)))


def _differences(where: tuple[str, ...], old: Any, new: Any) -> Iterator[Difference]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old | new:
            values = old.get(key, ABSENT), new.get(key, ABSENT)
            yield from _differences((*where, key), *values)
    elif _has_parts(old) and _has_parts(new):
        for a, b in zip_longest(old, new, fillvalue=ABSENT):
            yield from _differences((*where, _name(a if b == ABSENT else b)), a, b)
    elif not _equal(old, new):
        yield Difference(" / ".join(where), old, new)


def _has_parts(value: Any) -> bool:
    """Return whether a value is a list of named parts, such as contrasts, or empty."""
    return isinstance(value, list) and all(isinstance(part, dict) for part in value)


def _name(part: Any) -> str:
    return str(next(part[key] for key in NAMES if key in part))


def _equal(old: Any, new: Any) -> bool:
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_equal, old, new))
    if isinstance(old, float) and isinstance(new, int | float):
        return math.isclose(old, new, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return bool(old == new)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return textwrap.shorten(text, MAX_WIDTH, placeholder=" ..") or '""'
