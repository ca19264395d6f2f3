"""Crops of textures: no pixel in two parts, equal classes, changed brightness."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from normbench.data import textures
from normbench.data.base import Images
from normbench.data.textures import BLOCK, GRID, PICTURES, SIDE, Textures, cut
from normbench.errors import RequestError


@pytest.fixture
def numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each pixel be the number of its block, and leave the crops unchanged."""
    block = torch.arange(SIDE) // BLOCK
    number = GRID * block[:, None] + block[None, :]
    pictures = torch.stack([number + GRID**2 * i for i in range(len(PICTURES))])
    monkeypatch.setattr(textures, "_pictures", pictures.float)
    monkeypatch.setattr(textures, "_changed", lambda crops, generator: crops)
    monkeypatch.setattr(textures, "STD", 1)


def images(data: Images) -> Tensor:
    assert isinstance(data.images, Tensor)
    return data.images


@pytest.mark.parametrize("size", [8, 16, BLOCK])
def test_a_crop_is_in_one_block_and_a_block_in_one_part(
    size: int, numbered: None
) -> None:
    assignments = set()
    for seed in range(3):
        data = Textures(size=size).load(seed)
        number = images(data)[:, 0, 0, 0].long()
        same = number[:, None, None, None].expand_as(images(data))
        assert torch.equal(images(data).long(), same)
        assert torch.equal(number // GRID**2, data.labels)
        blocks = {part: set(number[i].tolist()) for part, i in data.splits.items()}
        assert Counter(map(len, blocks.values())) == Counter([4 * 39, 4 * 6, 4 * 19])
        assert sum(map(len, blocks.values())) == len(set.union(*blocks.values()))
        assignments.add(frozenset(blocks["test"]))
    assert len(assignments) == 3


def test_the_crops() -> None:
    data = Textures().load(0)
    assert images(data).shape == (5000, 1, 16, 16)
    assert (images(data).dtype, data.labels.dtype) == (torch.float32, torch.int64)
    sizes = {part: len(index) for part, index in data.splits.items()}
    assert sizes == {"train": 3000, "val": 500, "test": 1500}
    for index in data.splits.values():
        counts = torch.bincount(data.labels[index])
        assert counts.tolist() == [len(index) // 4] * 4
    assert data.classes == ("brick", "grass", "gravel", "immunohistochemistry")
    assert abs(images(data).mean()) < 0.05
    assert abs(images(data).std() - 1) < 0.05


def test_a_crop_is_cut_where_its_position_says() -> None:
    pictures = torch.arange(2 * 5 * 7.0).reshape(2, 5, 7)
    crops = cut(pictures, *torch.tensor([[1, 0], [2, 0], [4, 3]]), 3)
    assert torch.equal(crops[0], pictures[1, 2:5, 4:7])
    assert torch.equal(crops[1], pictures[0, 0:3, 3:6])


def test_brightness_and_contrast_of_a_crop_are_changed_at_random() -> None:
    ramp = torch.linspace(-2, 2, 400).reshape(20, 20).expand(2000, 20, 20)
    changed = textures._changed(ramp, torch.Generator().manual_seed(0))
    mean, x = changed.mean((1, 2)), ramp[0].flatten()
    gain = (changed.flatten(1) @ x) / (x @ x)
    noise = changed - gain[:, None, None] * ramp - mean[:, None, None]
    cases = [(mean, -0.3, 0.3), (gain.log(), -0.2231, 0.2231)]
    for values, low, high in cases:
        assert low - 0.05 < values.min() < low + 0.02
        assert high - 0.02 < values.max() < high + 0.05
        assert abs(values.mean()) < 0.02
    assert abs(torch.corrcoef(torch.stack([mean, gain]))[0, 1]) < 0.1
    assert noise.std() == pytest.approx(0.15, abs=0.002)


def test_the_pictures_differ_by_texture_and_not_by_mean_or_deviation() -> None:
    pictures = textures._pictures()
    assert pictures.shape == (4, SIDE, SIDE)
    for statistic, value in ((pictures.mean((1, 2)), 0.0), (pictures.std((1, 2)), 1.0)):
        torch.testing.assert_close(
            statistic, torch.full((4,), value), rtol=0, atol=1e-4
        )
    # The blades of grass are finer than bricks: less is left after averaging.
    left = F.avg_pool2d(pictures, 8).std((1, 2))
    assert left[1] < left[0]


def test_fractions_that_leave_no_block_for_a_part_are_refused() -> None:
    options: dict[str, Any] = {"samples": 5000, "val_fraction": 0.004}
    message = r"data\.val_fraction=0\.004 .* the 64 blocks of a picture empty"
    with pytest.raises(RequestError, match=message):
        Textures(**options).load(0)
    with pytest.raises(RequestError, match=r"part of the 5 samples empty"):
        Textures(samples=5, val_fraction=0.05).load(0)
