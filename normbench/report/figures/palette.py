"""The colour, marker and line style of each norm, the same in all figures and pages.

Each family of norms has a hue: blue to teal for batch statistics, green for groups,
purple for instances, orange for layers, red for root mean squares, yellow for functions
without statistics, and grey for "none", "affine" and "keep". Every colour has a
contrast of at least 3 to white and to a dark page (#121212; WCAG 2.2, 1.4.11). Norms
that are drawn together have different markers, and different colours also in simulated
deuteranopia and protanopia (Machado et al. 2009).
"""

from hashlib import sha256
from typing import NamedTuple

from normbench.verdicts.verdict import Decision


class Look(NamedTuple):
    """The look of a norm: a hex colour, a matplotlib marker and line style."""

    colour: str
    marker: str
    line: str


LOOKS: dict[str, Look] = {
    "batch": Look("#417ffd", "o", "-"),
    "batch_masked": Look("#06a2a4", "D", "--"),
    "batch_regularized": Look("#209aec", "P", "-."),
    "batch_renorm": Look("#8291c2", "s", "--"),
    "extended_batch": Look("#1894ff", "v", "-."),
    "frozen_batch": Look("#556ac1", "X", ":"),
    "batch_group": Look("#039fc7", "<", "--"),
    "evonorm_b0": Look("#1e7a7b", ">", ":"),
    "power": Look("#03779a", "h", "--"),
    "group": Look("#307e3f", "s", "-"),
    "group_permuted": Look("#679f83", "d", "--"),
    "evonorm_s0": Look("#3da626", "<", "-."),
    "instance": Look("#a349b2", "^", "-"),
    "conditional_instance": Look("#d056a2", "h", "--"),
    "filter_response": Look("#c27db0", ">", "-."),
    "ibn": Look("#c224a6", "D", ":"),
    "batch_instance": Look("#b77adf", "p", "--"),
    "switchable": Look("#af2fd9", "*", "-."),
    "layer": Look("#ed5a14", "v", "-"),
    "layer_sample": Look("#ed5a14", "v", "-"),
    "layer_position": Look("#c5864a", "^", "--"),
    "layer_shape": Look("#a65c48", "p", "-."),
    "ada_layer": Look("#c46a2b", "D", ":"),
    "grn": Look("#d9772e", ">", "--"),
    "rms": Look("#e66b70", "X", "--"),
    "pixel": Look("#c9485b", "o", "-."),
    "scale": Look("#f23144", "d", ":"),
    "dyt": Look("#a39449", "*", "-."),
    "derf": Look("#75711f", "P", ":"),
    "local_response": Look("#b58307", "H", "--"),
    "none": Look("#6e6d75", "x", ":"),
    "affine": Look("#99928c", "+", "--"),
    "film": Look("#84807a", "d", "-."),
    "keep": Look("#78787f", "8", "-."),
}
"""`layer` is a name that each task replaces by a norm; most tasks take layer_sample."""

_OTHER_COLOURS = (
    *("#d2527c", "#a8703a", "#6f8f1f", "#2f9e62"),
    *("#8f6ad6", "#c2569e", "#4f8fb0"),
)
_MARKERS, _LINES = "oDsv^<>pP", ("-", "--", "-.", ":")

DECISIONS: dict[Decision, str] = {
    "confirmed": "o",
    "contradicted": "X",
    "no relevant difference": "s",
    "not decided": "D",
    "not tested": "x",
}
"""The marker of each decision. Their colour is that of text: hues mean norms."""


def look(norm: str) -> Look:
    """Return the look of `norm`; for a user's own norm, a hash selects it."""
    if norm in LOOKS:
        return LOOKS[norm]
    digest = sha256(norm.encode("utf-8", "surrogatepass")).digest()
    return Look(
        _OTHER_COLOURS[digest[0] % len(_OTHER_COLOURS)],
        _MARKERS[digest[1] % len(_MARKERS)],
        _LINES[digest[2] % len(_LINES)],
    )


def colour(norm: str) -> str:
    """Return the hex colour of `norm`."""
    return look(norm).colour
