"""Numbers of others: curves to draw beside ours, and lines to print."""

import re
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict


class Published(BaseModel):
    """Series of one source: arm or norm -> level -> error, a share.

    `shown` are the claims, and of each the designs, whose levels mean the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    source: str
    what: str
    shown: dict[str, list[str]]
    series: dict[str, dict[str, float]]


class Recalled(BaseModel):
    """The beginning of a published line whose figures were not read, and its mark."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    line: str
    mark: str


@cache
def published() -> tuple[Published, ...]:
    """All that there are; the numbers are from the sources that are named."""
    return tuple(Published(**each) for each in _read("published.yaml"))


@cache
def recalled() -> tuple[Recalled, ...]:
    """The published lines whose figures are known from memory only."""
    return tuple(Recalled(**each) for each in _read("recalled.yaml"))


def _read(name: str) -> list[dict[str, Any]]:
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    entries: list[dict[str, Any]] = yaml.safe_load(text)
    return entries


def published_line(line: str) -> str:
    """A line of a claim's `published` as it is shown.

    The registered line stays as it is, since a claim's hash covers it.
    """
    marks = [f" [{each.mark}]" for each in recalled() if line.startswith(each.line)]
    return re.sub(r" ?\(theirs\)", "", line) + "".join(marks)


def beside(claim: str, design: str) -> list[Published]:
    """What is shown beside one design of one claim."""
    return [each for each in published() if design in each.shown.get(claim, [])]
