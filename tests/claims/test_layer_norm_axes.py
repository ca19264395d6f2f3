"""The axes of layer norms are measured, and every model is counted or reported."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from timm.layers import GroupNorm1, LayerNorm2d, LayerNormAct2d, RmsNorm, SimpleNorm2d
from torch import Tensor, nn
from torchvision import models

from normbench.claims import zoos
from normbench.claims.census import count
from normbench.claims.layer_norm_axes import axes, is_layer_norm, readings


@pytest.mark.parametrize(
    ("make", "shape", "expected"),
    [
        (partial(nn.LayerNorm, 6), (2, 5, 6), {2}),
        (partial(nn.LayerNorm, [6, 4, 5]), (2, 6, 4, 5), {1, 2, 3}),
        (partial(nn.RMSNorm, [4, 6]), (2, 5, 4, 6), {2, 3}),
        (partial(nn.GroupNorm, 1, 6), (2, 6, 4, 5), {1, 2, 3}),
        (partial(GroupNorm1, 6), (2, 6, 1, 1), {1}),
        (partial(LayerNorm2d, 6), (2, 6, 4, 5), {1}),
        (partial(LayerNormAct2d, 6), (2, 6, 4, 5), {1}),  # with a ReLU behind it
        (partial(SimpleNorm2d, 6), (2, 6, 4, 5), {1}),
        (partial(RmsNorm, 6), (2, 4, 5, 6), {3}),
        (
            partial(nn.BatchNorm2d, 6, track_running_stats=False),
            (2, 6, 4, 5),
            {0, 2, 3},
        ),
    ],
)
def test_the_axes_of_the_statistics_are_measured(
    make: Callable[..., nn.Module], shape: tuple[int, ...], expected: set[int]
) -> None:
    assert axes(make(device="meta"), shape) == expected
    layer = make()
    nn.init.zeros_(layer.weight)  # a layer that starts as zero is measured too
    assert axes(layer, shape) == expected
    assert not layer.weight.any()


def test_the_input_of_a_layer_is_cut_where_the_layer_allows_it() -> None:
    # Complete inputs have 960 GB.
    length = 100_000
    assert axes(nn.LayerNorm(6), (2, length, length, 6)) == {3}
    assert axes(LayerNorm2d(6), (2, 6, length, length)) == {1}
    assert axes(nn.GroupNorm(1, 6), (2, 6, length, length)) == {1, 2, 3}


def test_layer_norms_are_told_from_other_norms() -> None:
    assert all(map(is_layer_norm, [nn.LayerNorm(4), nn.RMSNorm(4), nn.GroupNorm(1, 4)]))
    others = [nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4)]
    assert not any(map(is_layer_norm, others))


class Example(nn.Module):
    """One layer of each reading. Its pictures are twice as wide as high."""

    def __init__(self) -> None:
        super().__init__()
        self.sample = nn.GroupNorm(1, 6)
        self.first = LayerNorm2d(6)
        self.last = nn.LayerNorm(6)
        self.token = nn.LayerNorm(6)
        self.window = nn.LayerNorm(6)
        self.q_norm = nn.RMSNorm(3)
        self.pooled = nn.LayerNorm(6)
        self.spare = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.sample(x))
        x = self.last(x.permute(0, 2, 3, 1)).flatten(1, 2)  # (N, 32, 6)
        x = self.window(self.token(x).unflatten(1, (2, 16))).flatten(1, 2)
        x = self.q_norm(x.unflatten(2, (2, 3))).flatten(2)
        return self.pooled(x.mean(1))


def test_each_layer_is_read_by_its_axes_and_the_shape_of_its_input() -> None:
    expected = ["C,H,W", "C at each position", "C at each position"]
    expected += ["token", "token", "head", "vector", "not called"]
    assert readings(Example(), lambda model: (6, 4, 8)) == expected


def test_models_of_torchvision_are_read() -> None:
    build = partial(models.get_model, weights=None)
    names = ["convnext_tiny", "vit_b_16", "resnet18", "regnet_y_400mf"]
    zoo = zoos.Zoo(names, build, lambda model: (3, 224, 224), str)
    counted = count("layer_norm_axes", zoo)
    # ConvNeXt: the stem, 18 blocks and three downsamplings, then the pooled head.
    convnext = {"C at each position": 22, "vector": 1}
    assert counted.models == {
        "convnext_tiny": convnext,
        "vit_b_16": {"token": 25},
        "resnet18": {},
        "regnet_y_400mf": {},
    }
    assert counted.failures == {}


class NotAPicture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        raise TypeError("a text\nis needed")


def test_models_that_cannot_be_measured_are_named_with_the_reason() -> None:
    def build(name: str) -> nn.Module:
        if name == "broken":
            raise RuntimeError("no")
        return {
            "stops": NotAPicture(),
            "odd": nn.Sequential(nn.Unflatten(1, (3, 2)), nn.LayerNorm([4, 8])),
        }[name]

    names = ["broken", "stops", "odd"]
    zoo = zoos.Zoo(names, build, lambda model: (6, 4, 8), str)
    counted = count("layer_norm_axes", zoo)
    assert counted.models == {}
    both = "on the meta device RuntimeError: no; on the CPU RuntimeError: no"
    assert counted.failures == {
        "broken": both,
        "stops": "cannot be measured: TypeError: a text",
        "odd": "cannot be measured: ValueError: 1 has statistics over the axes [3, 4]",
    }


@pytest.mark.slow
def test_some_models_of_each_installed_zoo_are_read() -> None:
    categories: set[str] = set()
    for zoo in zoos.installed().values():
        counted = count("layer_norm_axes", replace(zoo, names=zoo.names[::40]))
        assert counted.failures == {}
        categories.update(*counted.models.values())
    assert {"token", "C at each position"} <= categories
    assert "not called" not in categories
