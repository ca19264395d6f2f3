"""The usual names of norms are those of the papers, with the options in words."""

import pytest

from normbench.config.choices import choices
from normbench.verdicts.conditions import LAYER, TASKS
from normbench.verdicts.naming import family, usual_name, usual_names


@pytest.mark.parametrize(
    ("norm", "name"),
    [
        ("norm=batch", "BatchNorm"),
        ("norm=group norm.num_groups=4", "GroupNorm with 4 groups"),
        ("norm=layer_sample", "LayerNorm"),
        ("norm=layer_position", "LayerNorm over C"),
        ("norm=rms norm.bias=true", "RMSNorm with a bias"),
        ("norm=group reparam=weight_std", "GroupNorm with WS"),
        ("norm=batch norm.eps=0.1", "BatchNorm with eps=0.1"),
        ("norm=mine", "mine"),
    ],
)
def test_a_norm_of_images_has_a_name(norm: str, name: str) -> None:
    assert usual_name(norm, "images") == name


def test_every_built_in_norm_has_a_name_of_its_own_in_each_task() -> None:
    norms = [f"norm={name}" for name in choices("norm") if name != "layer"]
    for task in TASKS:
        names = usual_names(norms, task)
        assert len({*names.values()}) == len(norms)
        assert not any(name.startswith("norm=") for name in names.values())
        assert names[f"norm={LAYER[task]}"] == "LayerNorm"


def test_norms_that_would_share_a_name_keep_their_overrides() -> None:
    shared = ["norm=layer", "norm=layer_sample"]
    assert usual_names(shared, "images") == dict(zip(shared, shared, strict=True))


def test_variants_are_of_one_family() -> None:
    assert family("norm=group_permuted norm.num_groups=4") == family("norm=group")
    assert family("norm=batch") != family("norm=instance")
