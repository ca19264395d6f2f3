"""Normalised crops: they differ less in style, and each keeps its content."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from normbench.data.base import Photographs
from normbench.data.photographs import PhotographCrops
from normbench.data.reading import appearance
from normbench.data.reading.appearance import (
    equalize_luminance,
    impose_style,
    luminance,
    pyramid,
)
from normbench.tasks.style import Style

SMALL = {"train_crops": 30, "val_crops": 6, "test_crops": 6}


def loaded(content: str, **options: object) -> Photographs:
    data = PhotographCrops(content=content, **SMALL | options)  # type: ignore[arg-type]  # mixed
    return data.load(0)


def statistics(crops: Tensor) -> dict[str, Tensor]:
    """Return statistics of red, green, blue and luminance of each crop.

    Their shape is (N, 4), or (N, 4, bands) for the bands of the pyramid.
    """
    channels = torch.cat([crops, luminance(crops)], 1)
    bands = [band.std((2, 3)) for band in pyramid(channels, crops.shape[2])[:-1]]
    return {
        "mean": channels.mean((2, 3)),
        "sd": channels.std((2, 3)),
        "log band": torch.stack(bands, -1).log(),
    }


def spreads(crops: Tensor) -> dict[str, Tensor]:
    """Return the standard deviation of each statistic between crops."""
    return {name: values.std(0) for name, values in statistics(crops).items()}


def test_raw_crops_differ_most_and_crops_in_one_style_least() -> None:
    raw, contrast, style = (
        spreads(loaded(content).crops) for content in ("raw", "contrast", "style")
    )
    luma = 3
    assert contrast["mean"][luma] < 0.01 * raw["mean"][luma]
    assert contrast["sd"][luma] < 0.05 * raw["sd"][luma]
    assert contrast["log band"][luma].mean() < 0.7 * raw["log band"][luma].mean()
    assert contrast["mean"][0] > 0.3 * raw["mean"][0]  # colours are left
    assert bool((style["mean"] < 0.01 * raw["mean"]).all())
    assert bool((style["sd"] < 0.05 * raw["sd"]).all())
    assert style["log band"].mean() < 0.2 * raw["log band"].mean()
    assert style["log band"].mean() < 0.4 * contrast["log band"].mean()


def test_each_crop_gets_the_statistics_of_its_style() -> None:
    names = ["immunohistochemistry", "brick"]
    data = loaded("style", styles=names)
    for i, name in enumerate(names):
        got = statistics(data.crops[i :: len(names)])
        wanted = statistics(data.styles[i : i + 1])
        for statistic in ("mean", "sd"):
            ours, theirs = got[statistic].mean(0), wanted[statistic][0]
            torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.005, msg=name)
        alone = loaded("style", styles=[name]).crops[i :: len(names)]
        assert (alone - data.crops[i :: len(names)]).abs().mean() < 0.1


def test_a_crop_keeps_its_content() -> None:
    """The ranks of luminance agree with those of the raw crop: bright stays bright."""

    def ranks(crops: Tensor) -> Tensor:
        order = luminance(crops).flatten(1).argsort(1).argsort(1).double()
        return (order - order.mean(1, keepdim=True)) / order.std(1, keepdim=True)

    raw = ranks(loaded("raw").crops)
    for content, least in (("contrast", 0.98), ("style", 0.5)):
        ours = ranks(loaded(content).crops)
        own, other = (ours * raw).mean(1), (ours * raw.roll(1, 0)).mean(1)
        assert own.median() > least, content
        assert own.median() > other.median() + 0.3, content


def test_the_network_is_to_keep_the_content_of_normalised_crops() -> None:
    crops = {}
    for content in ("raw", "contrast", "style"):
        data = loaded(content)
        task = Style(data, torch.device("cpu"), width=4, blocks=1)
        index = data.splits["test"]
        crops[content] = data.crops[index]
        content_loss, _ = task.terms(data.crops[index], index)
        assert content_loss.max() < 1e-6
        if content != "raw":
            raw_loss, _ = task.terms(crops["raw"], index)
            assert raw_loss.min() > 0.05
        assert torch.equal(task.inputs(index)[0], crops[content])


def test_each_content_has_its_key_and_loading_repeats() -> None:
    keys = {}
    for content in ("raw", "contrast", "style"):
        first, second = loaded(content), loaded(content)
        assert torch.equal(first.crops, second.crops)
        assert first.key == second.key
        keys[content] = first.key
        assert first.splits.keys() == {"train", "val", "test"}
    assert len(set(keys.values())) == 3


def random_crops(seed: int, count: int, side: int, levels: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randint(levels, (count, 3, side, side), generator=generator)
    return whole / max(1, levels - 1)


random_pictures = given(
    seed=st.integers(0, 99),
    count=st.integers(1, 3),
    side=st.sampled_from([6, 8, 50]),
    levels=st.sampled_from([1, 2, 256]),
)


@settings(deadline=None)
@random_pictures
def test_equal_luminance_stays_equal_and_brighter_stays_brighter(
    seed: int, count: int, side: int, levels: int
) -> None:
    crops = random_crops(seed, count, side, levels)
    made = equalize_luminance(crops)
    assert made.min() >= -1e-6
    assert made.max() <= 1 + 1e-6
    torch.testing.assert_close(
        luminance(made).mean((1, 2, 3)), torch.full((count,), 0.5)
    )
    for before, after in zip(luminance(crops), luminance(made), strict=True):
        order = before.flatten().argsort(stable=True)
        steps = before.flatten()[order].diff(), after.flatten()[order].diff()
        assert bool((steps[1][steps[0] == 0].abs() < 1e-5).all())
        assert bool((steps[1][steps[0] > 1e-6] > 0).all())


@settings(deadline=None)
@random_pictures
def test_any_crop_can_be_given_any_style(
    seed: int, count: int, side: int, levels: int
) -> None:
    """Flat crops, and flat, grey or larger style pictures, give valid pictures."""
    crops = random_crops(seed, count, side, levels)
    grey = torch.rand(1, 20, 24, generator=torch.Generator().manual_seed(seed))
    for style in (grey.expand(3, -1, -1), torch.full((3, 20, 24), 0.25)):
        made = impose_style(crops, style)
        assert made.shape == crops.shape
        assert made.min() >= 0
        assert made.max() <= 1
        mean = made.mean((2, 3))
        torch.testing.assert_close(
            mean, style.mean((1, 2)).expand_as(mean), atol=0.01, rtol=0
        )
        assert (made.amax(1) - made.amin(1)).max() < 0.01


def test_a_styled_crop_does_not_depend_on_other_crops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crops = random_crops(0, 5, 16, 256)
    style = random_crops(1, 1, 24, 256)[0]
    whole = impose_style(crops, style)
    monkeypatch.setattr(appearance, "_CHUNK", 2)
    torch.testing.assert_close(impose_style(crops, style), whole)
    torch.testing.assert_close(impose_style(crops[:3], style), whole[:3])


@pytest.mark.parametrize(("side", "count"), [(6, 3), (8, 3), (9, 4), (64, 6)])
def test_a_pyramid_adds_up_to_its_picture(side: int, count: int) -> None:
    pictures = torch.rand(2, 3, side, side + 3)
    bands = pyramid(pictures, side)
    assert len(bands) == count
    torch.testing.assert_close(torch.stack(bands).sum(0), pictures)
    flat = pyramid(torch.full((1, 1, side, side), 0.3), side)
    assert all(band.abs().max() < 1e-6 for band in flat[:-1])


def test_a_band_is_what_a_convolution_gives() -> None:
    pictures = torch.rand(2, 1, 12, 16)
    row = torch.tensor([1, 4, 6, 4, 1]) / 16
    kernel = torch.outer(row, row)[None, None]
    padded = torch.nn.functional.pad(pictures, [2] * 4, mode="reflect")
    blurred = torch.nn.functional.conv2d(padded, kernel)
    torch.testing.assert_close(pyramid(pictures, 12)[0], pictures - blurred)
