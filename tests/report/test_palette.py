"""The colours, markers and line styles of norms."""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from normbench.config.choices import choices
from normbench.report.figures import palette
from normbench.report.figures.names import norm_of
from normbench.report.figures.series import Point, styled_series
from normbench.verdicts.registration import read_claim

Floats = NDArray[np.float64]

# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB.
DEUTERANOPIA = (
    (0.367322, 0.860646, -0.227968),
    (0.280085, 0.672501, 0.047413),
    (-0.011820, 0.042940, 0.968881),
)
PROTANOPIA = (
    (0.152286, 1.052583, -0.204868),
    (0.114503, 0.786281, 0.099216),
    (-0.003882, -0.048116, 1.051998),
)


def linear(colour: str) -> Floats:
    """Convert a hex colour to linear RGB (IEC 61966-2-1)."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: Floats) -> Floats:
    """Convert linear RGB to CIELAB with white point D65."""
    to_xyz = np.array(
        (
            (0.4124564, 0.3575761, 0.1804375),
            (0.2126729, 0.7151522, 0.0721750),
            (0.0193339, 0.1191920, 0.9503041),
        )
    )
    xyz = to_xyz @ np.clip(rgb, 0, 1) / (0.95047, 1.0, 1.08883)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array((116 * y - 16, 500 * (x - y), 200 * (y - z)))


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2.2."""
    weights = (0.2126, 0.7152, 0.0722)
    dark, light = sorted(float(linear(c) @ weights) for c in (one, other))
    return (light + 0.05) / (dark + 0.05)


def test_looks_are_different_and_visible_on_white_and_on_dark() -> None:
    assert palette.LOOKS.keys() == choices("norm").keys()
    users = {f"mine{index}": palette.colour(f"mine{index}") for index in range(200)}
    norms = {name: look.colour for name, look in palette.LOOKS.items()}
    for name, colour in (users | norms).items():
        for background in ("#ffffff", "#121212"):
            assert contrast(colour, background) >= 3, name
    assert palette.look("mine") == ("#d2527c", "^", "--")
    del norms["layer"]  # has the colour of layer_sample
    assert len({*norms.values()}) == len(norms)
    assert len({*palette.DECISIONS.values()}) == 5


def test_norms_of_one_figure_differ_for_all_kinds_of_colour_vision() -> None:
    for name in choices("claim"):
        for design in read_claim(name).designs().values():
            norms = {norm_of(arm, design) for arm in design.arms}
            for one, other in combinations(sorted(norms), 2):
                a, b = linear(palette.colour(one)), linear(palette.colour(other))
                for vision in map(np.array, (np.eye(3), DEUTERANOPIA, PROTANOPIA)):
                    distance = np.linalg.norm(lab(vision @ a) - lab(vision @ b))
                    assert distance > 14, (name, one, other)
                assert palette.look(one).marker != palette.look(other).marker


def test_arms_with_the_same_norm_have_its_colour_and_different_markers() -> None:
    points = {"g1": {}, "group": {"-": Point(1.0)}, "group_ws": {}}
    made = styled_series(points, dict.fromkeys(points, "group"))
    assert [each.label for each in made] == ["g1", "group", "group_ws"]
    assert {each.look.colour for each in made} == {palette.colour("group")}
    assert len({each.look.marker for each in made}) == 3
    assert [each.hollow for each in made] == [True, False, True]
    assert made[1].look == palette.look("group")


def test_the_norm_of_an_arm_is_in_its_overrides_or_its_name() -> None:
    for arm, claim, design, norm in (
        ("again", "group-compromise", "between-mnist5k", "group"),
        ("each_layer", "group-compromise", "adjacency-mnist5k", "group_permuted"),
        ("again", "batch-default", "normal_batch-mnist5k", "batch"),
        ("layer", "batch-size-dependence", "joint-textures", "layer_sample"),
        ("extra", "batch-default", "normal_batch-mnist5k", "extra"),
    ):
        assert norm_of(arm, read_claim(claim).designs()[design]) == norm, arm
    assert norm_of("batch_masked", None) == "batch_masked"
    assert norm_of("group_ws", None) == "group"
    assert norm_of("mine_too", None) == "mine_too"
