"""The look of a norm: one colour and marker, the same in every picture and page.

A family has a hue: statistics of the batch are blue to teal, groups green, instances
purple, layers orange, root mean squares red, functions without statistics yellow, no
norm grey. Every colour has a contrast of 3 to white and to a dark page (#121212; WCAG
2.2, 1.4.11), and norms that are drawn together keep apart in simulated deuteranopia and
protanopia (Machado et al. 2009). The marker says the same once more.
"""

from hashlib import sha256
from typing import NamedTuple

from normbench.verdict import Decision


class Look(NamedTuple):
    """How a norm is drawn: a hex colour, a matplotlib marker and line style."""

    colour: str
    marker: str
    line: str


LOOKS: dict[str, Look] = {
    "batch": Look("#487dfe", "o", "-"),
    "batch_masked": Look("#196b86", "D", "--"),
    "batch_regularized": Look("#3460aa", "P", "-."),
    "batch_renorm": Look("#5384cf", "s", "--"),
    "extended_batch": Look("#3995cc", "v", "-."),
    "frozen_batch": Look("#5c6a97", "X", ":"),
    "batch_group": Look("#0d7276", "<", "--"),
    "evonorm_b0": Look("#3ea0b8", ">", ":"),
    "power": Look("#15a2a5", "h", "--"),
    "group": Look("#187305", "s", "-"),
    "group_permuted": Look("#53754f", "d", "--"),
    "evonorm_s0": Look("#29a284", "<", "-."),
    "instance": Look("#a210c0", "^", "-"),
    "conditional_instance": Look("#a461f9", "h", "--"),
    "filter_response": Look("#a43f98", ">", "-."),
    "ibn": Look("#725393", "D", ":"),
    "batch_instance": Look("#ca7bab", "p", "--"),
    "switchable": Look("#d36cd7", "*", "-."),
    "layer": Look("#c68455", "v", "-"),
    "layer_sample": Look("#c68455", "v", "-"),
    "layer_position": Look("#aa4213", "^", "--"),
    "layer_shape": Look("#f66405", "p", "-."),
    "rms": Look("#b22d4f", "X", "--"),
    "scale": Look("#fd303e", "d", ":"),
    "dyt": Look("#af8806", "*", "-."),
    "derf": Look("#95965a", "P", ":"),
    "local_response": Look("#757613", "H", "--"),
    "none": Look("#999195", "x", ":"),
    "affine": Look("#5a6363", "+", "--"),
}
"""`layer` is another name of layer_sample or, of sequences, of layer_position."""

_OTHERS = ("#d2527c", "#a8703a", "#6f8f1f", "#2f9e62", "#8f6ad6", "#c2569e", "#4f8fb0")
_MARKERS, _LINES = "oDsv^<>pP", ("-", "--", "-.", ":")

DECISIONS: dict[Decision, Look] = {
    "supported": Look("#14804a", "o", "-"),
    "refuted": Look("#d1371f", "X", "-"),
    "equivalent": Look("#9a5fd0", "s", "-"),
    "inconclusive": Look("#a07a00", "D", "--"),
    "not tested": Look("#7d858d", "x", ":"),
}


def look(norm: str) -> Look:
    """How `norm` is drawn; one that is not of this package always has the same look."""
    known = LOOKS.get(norm)
    if known is not None:
        return known
    digest = sha256(norm.encode("utf-8", "surrogatepass")).digest()
    return Look(
        _OTHERS[digest[0] % len(_OTHERS)],
        _MARKERS[digest[1] % len(_MARKERS)],
        _LINES[digest[2] % len(_LINES)],
    )


def colour(norm: str) -> str:
    """The hex colour of `norm`."""
    return look(norm).colour


def decision_colour(decision: Decision) -> str:
    """The hex colour of a decision; write the word too."""
    return DECISIONS[decision].colour
