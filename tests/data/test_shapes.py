"""Pictures of shapes: independent factors, and those that normalization removes."""

import math
from itertools import combinations
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from normbench.data.base import REGISTRY, Images
from normbench.data.shapes import (
    CLASSES,
    CONTENT,
    MEAN,
    SHAPES,
    STD,
    STYLES,
    Label,
    Range,
    Shapes,
    coverage,
    render,
)
from normbench.errors import RequestError

LABELS = get_args(Label)
OF_COLOUR = ["brightness", "contrast", "contrast_luma", "hue"]
every_label = pytest.mark.parametrize("label", LABELS)


def pixels(data: Images) -> Tensor:
    return data.images * STD + MEAN


def drawn(data: Shapes, seed: int) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Return labels, all factors, and a mask of the pictures in the test part."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randperm(data.samples, generator=generator) % CLASSES
    test = torch.arange(data.samples) % 3 == 0
    return labels, data._draw(labels, test.nonzero()[:, 0], generator), test


def features(name: str, values: Tensor) -> Tensor:
    """Return a factor as columns with mean 0 and deviation 1.

    Similar values of the factor have similar columns, also around a circle.
    """
    if name == "shape":
        columns = F.one_hot(values, CLASSES).double()
    elif (STYLES | CONTENT)[name].spacing == "circular":
        # An orientation is a circle of half a turn, a hue one of a whole turn.
        turn = values * (2 * math.pi / (STYLES | CONTENT)[name].high)
        columns = torch.stack([turn.cos(), turn.sin()], 1).double()
    else:
        columns = values[:, None].double()
    return (columns - columns.mean(0)) / columns.std(0)


@every_label
def test_the_pictures(label: Any) -> None:
    data = Shapes(label=label).load(0)
    assert data.images.shape == (5000, 3, 24, 24)
    assert (data.images.dtype, data.labels.dtype) == (torch.float32, torch.int64)
    sizes = {part: len(index) for part, index in data.splits.items()}
    assert sizes == {"train": 3000, "val": 500, "test": 1500}
    assert torch.bincount(data.labels).tolist() == [1250] * CLASSES
    assert len(set(data.classes)) == CLASSES
    assert pixels(data).min() > 0  # none was clipped, and none is NaN
    assert pixels(data).max() < 1
    assert abs(data.images.mean()) < 0.02
    assert 0.9 < data.images.std() < 1.1
    for index in data.splits.values():
        share = torch.bincount(data.labels[index]) / len(index)
        assert share.max() - share.min() < 0.1


def test_other_sizes_and_counts() -> None:
    data = Shapes(size=33, samples=40, val_fraction=0.2).load(0)
    assert data.images.shape == (40, 3, 33, 33)
    with pytest.raises(RequestError, match="40 samples"):
        Shapes(samples=40, val_fraction=0.01).load(0)


@every_label
def test_factors_are_independent_and_fill_their_ranges(label: Any) -> None:
    data = Shapes(label=label)
    labels, factors, _ = drawn(data, 1)
    assert set(factors) == {"shape", *STYLES, *CONTENT}
    name = label.removesuffix("_luma")
    if name == "shape":
        assert torch.equal(factors["shape"], labels)
    else:
        levels = STYLES[name].values(STYLES[name].levels())
        assert torch.equal(factors[name], levels[labels])
    columns = {key: features(key, value) for key, value in factors.items()}
    for first, second in combinations(columns.values(), 2):
        correlation = first.T @ second / data.samples
        assert correlation.abs().max() < 4.5 / math.sqrt(data.samples)
    for key, (low, high, _) in (STYLES | CONTENT).items():
        width = (high - low) / 100
        assert low <= factors[key].min() <= factors[key].max() <= high
        if key != name:
            assert factors[key].min() < low + width
            assert factors[key].max() > high - width


def test_levels_are_evenly_spaced() -> None:
    cases = [
        (Range(1.0, 8.0, "log"), [1, 2, 4, 8]),
        (Range(0.0, 4.0, "circular"), [0, 1, 2, 3]),
        (Range(-3.0, 3.0), [-3, -1, 1, 3]),
    ]
    for factor, expected in cases:
        assert factor.values(factor.levels()).tolist() == pytest.approx(expected)


def probe_error(data: Images) -> float:
    """Return the test error of a nearest-mean classifier on channel means."""
    x = data.images.mean((2, 3))
    train, test = data.splits["train"], data.splits["test"]
    x_train, y_train = x[train], data.labels[train]
    centres = torch.stack([x_train[y_train == c].mean(0) for c in range(CLASSES)])
    nearest = torch.cdist(x[test], centres).argmin(1)
    return float((nearest != data.labels[test]).float().mean())


@every_label
def test_channel_means_reveal_offsets_only(label: Any) -> None:
    error = probe_error(Shapes(label=label).load(0))
    if label in {"brightness", "hue"}:
        assert error < 0.35
    else:
        assert error > 0.65


def test_per_channel_normalization_removes_exactly_the_colour_factors() -> None:
    def normalised(label: Any) -> Tensor:
        images = Shapes(label=label, samples=200).load(3).images.double()
        return F.instance_norm(images, eps=0)

    reference = normalised("hue")
    for label in OF_COLOUR:
        torch.testing.assert_close(normalised(label), reference, rtol=0, atol=1e-4)
    for label in set(LABELS) - {*OF_COLOUR}:
        assert (normalised(label) - reference).abs().mean() > 0.1


def test_contrast_is_a_gain_of_all_channels_and_contrast_luma_is_not() -> None:
    _, factors, _ = drawn(Shapes(samples=50), 0)
    noise = torch.randn(50, 24, 24) / 100
    half = factors | {"contrast": factors["contrast"] / 2}
    whole, halved = (render(f, noise, luma=False) - MEAN for f in (factors, half))
    torch.testing.assert_close(halved, whole / 2, rtol=0, atol=1e-6)
    whole, halved = (render(f, noise, luma=True) - MEAN for f in (factors, half))
    luma, chroma = whole.mean(1, keepdim=True), whole - whole.mean(1, keepdim=True)
    torch.testing.assert_close(halved, luma / 2 + chroma, rtol=0, atol=1e-6)
    assert chroma.abs().mean() > 0.01


@pytest.mark.parametrize("shape", range(CLASSES))
def test_every_shape_is_whole_and_has_the_same_area(shape: int) -> None:
    _, factors, _ = drawn(Shapes(samples=500), 0)
    factors["shape"] = torch.full((500,), shape)
    f = {name: value[:, None, None] for name, value in factors.items()}
    centres = torch.arange(48) + 0.5
    covered = coverage(f, centres[None, None, :], centres[None, :, None], 48)
    area = (factors["side"] * 48) ** 2
    # A shape that stuck out of the picture would lack a part of it.
    assert ((covered.sum((1, 2)) - area) / area).abs().max() < 0.02


def test_style_shift_changes_only_the_style() -> None:
    labels, factors, test = drawn(Shapes(style_shift=True), 2)
    for name, (low, high, spacing) in STYLES.items():
        middle = math.sqrt(low * high) if spacing == "log" else (low + high) / 2
        assert factors[name][~test].max() <= middle <= factors[name][test].min()
        assert factors[name].max() > high - (high - low) / 50
    _, plain, _ = drawn(Shapes(), 2)
    for name in ("shape", *CONTENT):
        assert torch.equal(factors[name], plain[name])
    assert torch.equal(factors["shape"], labels)


def test_style_shift_is_between_training_and_test() -> None:
    shifted, plain = Shapes(style_shift=True).load(0), Shapes().load(0)

    def mean(data: Images, part: str) -> float:
        return float(data.images[data.splits[part]].mean())

    assert mean(shifted, "test") > mean(shifted, "train") + 0.5
    assert abs(mean(shifted, "val") - mean(shifted, "train")) < 0.1
    assert abs(mean(plain, "test") - mean(plain, "train")) < 0.1
    assert torch.equal(shifted.labels, plain.labels)
    assert torch.equal(shifted.splits["test"], plain.splits["test"])
    assert shifted.classes == SHAPES


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label": "colour"}, r"data\.label='colour'.*'hue'"),
        ({"size": 15}, r"data\.size=15.*16"),
        ({"samples": 0}, r"data\.samples=0.*greater than 0"),
        ({"style_shift": 1}, r"data\.style_shift=1.*boolean"),
    ],
)
def test_a_wrong_option_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        REGISTRY.options("shapes", given)


def test_a_shift_of_the_label_is_refused() -> None:
    with pytest.raises(
        RequestError, match=r"style_shift=true needs data.label=shape.*label=hue"
    ):
        Shapes(label="hue", style_shift=True)
