"""The result of one check of a config, a machine or a network."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """The result of one check: what was checked, why it has this level, what to do.

    `do` is empty if there is nothing to do.
    """

    level: Level
    what: str
    why: str
    do: str = ""


def finding(problem: bool, level: Level, what: str, why: str, do: str) -> Finding:
    """Return a finding of `level` with advice if there is a problem, otherwise "ok"."""
    return Finding(level, what, why, do) if problem else Finding("ok", what, why)
