"""Published numbers: curves to draw beside ours, and lines to print."""

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
    """All published series; their numbers are from the sources that they name."""
    return tuple(Published(**entry) for entry in read_yaml("published.yaml"))


@cache
def recalled() -> tuple[Recalled, ...]:
    """The published lines whose figures are known from memory only."""
    return tuple(Recalled(**entry) for entry in read_yaml("recalled.yaml"))


def read_yaml(name: str) -> list[dict[str, Any]]:
    """The entries of a yaml file in this folder."""
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
    """The published series to draw beside one design of one claim."""
    return [each for each in published() if design in each.shown.get(claim, [])]
