"""Numbers of others, as curves to draw beside ours."""

from functools import cache
from importlib.resources import files

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


@cache
def published() -> tuple[Published, ...]:
    """All that there are; the numbers are from the sources that are named."""
    text = files(__package__).joinpath("published.yaml").read_text(encoding="utf-8")
    return tuple(Published(**each) for each in yaml.safe_load(text))


def beside(claim: str, design: str) -> list[Published]:
    """What is shown beside one design of one claim."""
    return [each for each in published() if design in each.shown.get(claim, [])]
