"""What the two directions of a contrast mean, in words."""

from typing import NamedTuple

from normbench.report.figures.names import arm_names, level_key, level_names, plain
from normbench.report.figures.units import quantity
from normbench.verdicts.design import Contrast, Design, arm_of, level_of
from normbench.verdicts.verdict import ContrastVerdict

SHORT_KEYS = {
    "batch_size": "SGD batch {}",
    "ema": "{} steps of averaging",
    "lr_reference_batch_size": "{} times the rate",
}
"""Config keys of levels in a few words, with a place for the level."""


class Ends(NamedTuple):
    """The words at the left and at the right end of an axis."""

    left: str
    right: str


def ends_of(contrast: ContrastVerdict, design: Design | None) -> Ends:
    """Return what is better to the left and to the right of 0.

    A contrast that is not a difference of two cells has more or less of its metric. So
    has each contrast of a design that is not registered.
    """
    unit = quantity(contrast.metric)
    two = _two_cells(contrast, design)
    if two is None:
        name = unit.words if unit.better else ""
        return _arrows(f"lower {name}".strip(), f"higher {name}".strip())
    first, second = two
    if unit.better == "lower":
        return _arrows(f"{first} better", f"{second} better")
    if unit.better == "higher":
        return _arrows(f"{second} better", f"{first} better")
    return _arrows(f"{first} lower", f"{first} higher")


def _arrows(left: str, right: str) -> Ends:
    return Ends(f"\N{LEFTWARDS ARROW} {left}", f"{right} \N{RIGHTWARDS ARROW}")


def _two_cells(
    contrast: ContrastVerdict, design: Design | None
) -> tuple[str, str] | None:
    """Return what differs between the two cells of a contrast, first minus second."""
    registered = {each.name: each for each in design.contrasts} if design else {}
    found: Contrast | None = registered.get(contrast.name)
    if design is None or found is None or not found.weights or found.expected:
        return None
    weights = {weight: cell for cell, weight in found.weights.items()}
    if len(found.weights) != 2 or weights.keys() != {1.0, -1.0}:
        return None
    first, second = weights[1.0], weights[-1.0]
    arms = arm_names(design, design.arms)
    levels = level_names(design, design.levels)
    key = level_key(design)
    short = SHORT_KEYS.get(key, f"{plain(key)} {{}}")

    def level(cell: str) -> str:
        words = levels[level_of(cell)]
        is_number = words.replace(".", "", 1).isdigit()
        return short.format(words) if key and is_number else words

    if arm_of(first) == arm_of(second):
        return level(first), level(second)
    return arms[arm_of(first)], arms[arm_of(second)]
