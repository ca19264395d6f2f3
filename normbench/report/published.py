"""Numbers that others published: curves to draw beside ours, and lines to print."""

import re
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict


class Published(BaseModel):
    """The published series of one source.

    `series` maps an arm or a norm to its errors in [0, 1], by level. `shown` maps a
    claim to those of its designs that have the levels of the series. Figures of these
    designs show the series, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    source: str
    what: str
    shown: dict[str, list[str]]
    series: dict[str, dict[str, float]]


class Recalled(BaseModel):
    """A mark for a published line whose numbers are from memory.

    `line` is the beginning of the published line. `mark` is a text to add to the line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    line: str
    mark: str


@cache
def published() -> tuple[Published, ...]:
    """Return all published series; each one names the source of its numbers."""
    return tuple(Published(**entry) for entry in read_yaml("published.yaml"))


@cache
def recalled() -> tuple[Recalled, ...]:
    """Return the marks of all published lines whose numbers are from memory."""
    return tuple(Recalled(**entry) for entry in read_yaml("recalled.yaml"))


def read_yaml(name: str) -> list[dict[str, Any]]:
    """Return the entries of a yaml file in this folder."""
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    entries: list[dict[str, Any]] = yaml.safe_load(text)
    return entries


def published_line(line: str) -> str:
    """Return a line of a claim's `published` as readers see it, with marks.

    The marks are not in the yaml of the claim, because the line is part of the hash of
    the claim. The word "(theirs)" is removed.
    """
    marks = [f" [{entry.mark}]" for entry in recalled() if line.startswith(entry.line)]
    return re.sub(r" ?\(theirs\)", "", line) + "".join(marks)


def published_for(claim: str, design: str) -> list[Published]:
    """Return the published series to draw beside one design of a claim.

    `design` is its name in the yaml of the claim, which does not name a data set.
    """
    return [source for source in published() if design in source.shown.get(claim, [])]
