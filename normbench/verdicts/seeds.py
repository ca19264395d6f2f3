"""How many test seeds a design has: a fixed number, or looks at increasing numbers."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field

MIN_SEEDS = 6
"""With five seeds, no test without a normal model can reach p < .05."""
MAX_LOOKS = 20
FIRST_TUNING_SEED = 1000
"""Learning rates are chosen on the seeds 1000, 1001, ...; test seeds start at 0."""
FULL_TUNING_SEEDS = 4
"""With enough time, a race chooses no rate on fewer tuning seeds, and drops no arm."""

Seeds = Annotated[int, Field(ge=MIN_SEEDS, le=FIRST_TUNING_SEED)]
LookSeeds = Annotated[list[int], Field(min_length=2, max_length=MAX_LOOKS)]
Spending = Literal["pocock", "obrien_fleming", "kim_demets"]
"""How the error probability alpha is divided among looks; see `spending.spent`."""


def check_looks(
    looks: list[int] | None, spending: Spending, *, seeds_given: bool
) -> None:
    """Raise ValueError unless the looks of a design fit its other keys."""
    if looks is None:
        if spending != "pocock":
            raise ValueError(
                f"spending: {spending} divides alpha among looks; add looks"
            )
        return
    if seeds_given:
        raise ValueError(
            "a design has seeds or looks, not both; the last look is the largest "
            "number of seeds, so leave out seeds"
        )
    increasing = all(a < b for a, b in pairwise(looks))
    if not increasing or looks[0] < MIN_SEEDS or looks[-1] > FIRST_TUNING_SEED:
        raise ValueError(
            f"looks: {looks} must be increasing numbers of seeds, from {MIN_SEEDS} to "
            f"{FIRST_TUNING_SEED}, such as [8, 16, 24, 32]"
        )
