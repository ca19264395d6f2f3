"""What holds for every data set: options, yaml files, splits, and the seed."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import data_made
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from normbench.data.base import (
    REGISTRY,
    Data,
    Images,
    ImageSource,
    Photographs,
    Splits,
    random_split,
)
from normbench.data.reading.augmentation import as_source
from normbench.data.reading.cache import digest
from normbench.errors import RequestError

DATA = [
    name
    for name in REGISTRY.names()
    if REGISTRY.get(name).__module__.startswith("normbench.data.")
]
CONFIGS = sorted(Path(__file__).parents[2].glob("configs/data/*.yaml"))


@pytest.fixture(scope="module", autouse=True)
def module_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NORMBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Data]:
    """Return a function that makes a data set, and its files, from its name."""
    options: dict[str, dict[str, Any]] = {}

    def make(name: str) -> Data:
        if name not in options:
            files = data_made.options(name, tmp_path / "material", monkeypatch)
            options[name] = REGISTRY.options(name, files)
        return REGISTRY.get(name)(**options[name])

    return make


def content(data: Any) -> str:
    """Return a digest of all fields of a loaded data set, with all of its images."""
    fields = dict(vars(data))
    if isinstance(fields.get("images"), ImageSource):
        all_samples = torch.arange(len(data.labels))
        fields["images"] = data.images.batch(all_samples)
        fields["augmented"] = data.images.batch(all_samples, epoch=1)
    tensors = {k: v for k, v in fields.items() if isinstance(v, torch.Tensor)}
    rest = {k: v for k, v in fields.items() if k not in tensors and k != "splits"}
    return digest(rest, tensors | data.splits)


def assert_partition(splits: Splits, count: int) -> None:
    assert set(splits) == {"train", "val", "test"}
    assert all(len(part) > 0 for part in splits.values())
    indices = torch.cat(list(splits.values()))
    assert indices.dtype == torch.int64
    assert torch.equal(indices.sort().values, torch.arange(count))


@settings(deadline=None)
@given(
    count=st.integers(1, 300),
    val=st.floats(0.001, 0.999),
    test=st.floats(0.001, 0.999),
    seed=st.integers(0, 2**32),
)
def test_a_random_split_is_a_partition_with_the_requested_sizes(
    count: int, val: float, test: float, seed: int
) -> None:
    def draw(val_fraction: float) -> Splits:
        return random_split(
            count,
            val_fraction=val_fraction,
            test_fraction=test,
            generator=torch.Generator().manual_seed(seed),
        )

    try:
        splits = draw(val)
    except RequestError:
        assert count * min(val, test, 1 - val - test) <= 1.001
        return
    assert_partition(splits, count)
    assert abs(len(splits["val"]) - count * val) <= 0.5
    assert abs(len(splits["test"]) - count * test) <= 0.5
    second = draw(val)
    assert all(torch.equal(splits[part], second[part]) for part in splits)
    if len(splits["val"]) > 1:
        assert torch.equal(draw(val / 2 + 0.5 / count)["test"], splits["test"])


@pytest.mark.parametrize("name", DATA)
def test_only_the_seed_changes_a_data_set(
    name: str, make: Callable[[str], Data]
) -> None:
    data = make(name)
    states = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    first = content(data.load(11))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert repr(np.random.get_state()) == states[2]
    torch.manual_seed(0)
    assert content(make(name).load(11)) == first
    other = make(name).load(12)
    assert content(other) != first
    assert type(other) is data.kind
    samples = other.crops if isinstance(other, Photographs) else other.labels
    assert_partition(other.splits, len(samples))
    if isinstance(other, Images):
        batch = as_source(other.images).batch(torch.arange(3), epoch=0)
        assert batch.dtype == torch.float32
        assert batch.shape == (3, *other.images.shape[1:])
        assert len(samples) == other.images.shape[0]
        assert other.labels.max() < len(other.classes)


def test_a_wrong_option_is_refused() -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("mnist5k", {"size": 20}, r"data\.size=20.*28 or 14"),
        ("mnist5k", {"val_fraction": 1.5}, r"data\.val_fraction=1\.5.*less than 1"),
        ("mnist5k", {"sise": 14}, r"data\.sise is not an option.*'size'"),
        ("display_names", {"vocab_size": 0}, r"data\.vocab_size=0.*or equal to 1"),
        ("digits", {"size": 28}, r"data\.size=28.*8, 14 or 16"),
        ("language", {"languages": 1}, r"data\.languages=1.*or equal to 2"),
        ("textures", {"size": 65}, r"data\.size=65.*less than or equal to 64"),
        ("photographs", {"held_out": "dog"}, r"held_out='dog'.*'cat' or 'by_seed'"),
        ("photographs", {"styles": ["moss"]}, r"data\.styles\.0='moss'.*gravel"),
        ("photographs", {"styles": "brick"}, r"data\.styles='brick'.*valid list"),
        ("photographs", {"styles": []}, r"data\.styles=\[\].*at least 1 item"),
        ("photographs", {"styles": ["brick", "brick"]}, r"data\.styles=.*each .* once"),
    ]
    for name, options, message in cases:
        with pytest.raises(RequestError, match=message):
            REGISTRY.options(name, options)


def test_each_yaml_has_the_defaults_of_its_class_and_a_comment_per_option() -> None:
    assert set(DATA) == {path.stem for path in CONFIGS}
    for path in CONFIGS:
        text = path.read_text()
        section = yaml.safe_load(text)
        assert section.pop("name") == path.stem
        assert section == REGISTRY.options(path.stem, {}), path
        first, _, *options = text.splitlines()
        assert first.startswith("# "), path
        assert all(" # " in line for line in options), path
