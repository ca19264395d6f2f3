"""Splits of the user's data, with rare labels and with copies."""

from pathlib import Path
from typing import Any

import pytest
import torch
from data_made import picture
from hypothesis import given, settings
from hypothesis import strategies as st

from normbench.data.base import REGISTRY, Splits, random_split
from normbench.data.splits import grouped_split, held_out_split
from normbench.errors import RequestError

FRACTIONS: dict[str, float] = {"val_fraction": 0.1, "test_fraction": 0.2}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain_split(training: int, test: int | None, seed: int) -> Splits:
    """Return the split that ignores labels and groups."""
    if test is None:
        return random_split(training, **FRACTIONS, generator=generator(seed))
    fraction = FRACTIONS["val_fraction"]
    return held_out_split(
        training, test, val_fraction=fraction, generator=generator(seed)
    )


def parts(splits: Splits) -> dict[str, list[int]]:
    return {part: index.tolist() for part, index in splits.items()}


@settings(deadline=None, max_examples=50)
@given(
    labels=st.lists(st.sampled_from("abc"), min_size=15, max_size=80),
    test=st.none() | st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_a_split_with_all_labels_in_training_is_the_plain_split(
    labels: list[str], test: int | None, seed: int
) -> None:
    training = len(labels) - (test or 0)
    plain = plain_split(training, test, seed)
    now = grouped_split(labels, test, **FRACTIONS, generator=generator(seed))
    assert {part: len(now[part]) for part in now} == {
        part: len(plain[part]) for part in plain
    }
    assert {labels[i] for i in now["train"].tolist()} == set(labels[:training])
    if {labels[i] for i in plain["train"].tolist()} == set(labels[:training]):
        assert parts(now) == parts(plain)
    if test is not None:
        assert parts(now)["test"] == parts(plain)["test"]


@settings(deadline=None, max_examples=100)
@given(
    keys=st.lists(st.integers(0, 12), min_size=10, max_size=60),
    seed=st.integers(0, 1000),
    test=st.booleans(),
)
def test_a_group_is_in_one_part(keys: list[int], seed: int, test: bool) -> None:
    test_count = 3 if test else None
    training = len(keys) - (test_count or 0)
    labels = [f"{key % 3}" for key in keys]
    distinct, wanted = len(set(keys[:training])), len(set(labels[:training]))
    try:
        now = grouped_split(
            labels, test_count, groups=keys, **FRACTIONS, generator=generator(seed)
        )
    except RequestError as error:
        assert distinct < wanted + (1 if test else 2)
        assert f"{training} samples" in str(error)
        return
    together = torch.cat(list(now.values())).sort().values
    assert together.tolist() == list(range(len(keys)))
    places = {i: part for part, index in parts(now).items() for i in index}
    for key in set(keys[:training]):
        same = [places[i] for i in range(training) if keys[i] == key]
        assert len(set(same)) == 1
    assert {labels[i] for i in now["train"].tolist()} == set(labels[:training])
    assert all(len(index) for index in now.values())


def test_parts_with_copies_have_the_requested_sizes() -> None:
    keys = [i // 2 for i in range(200)]
    for seed in range(10):
        now = grouped_split(
            ["a"] * 200, groups=keys, **FRACTIONS, generator=generator(seed)
        )
        assert [len(now[part]) for part in ("train", "val", "test")] == [140, 20, 40]


def rare(tmp_path: Path, kind: str) -> Any:
    """Make thirty samples with rare labels: two with two samples, one with one."""
    labels = ["a"] * 13 + ["b"] * 12 + ["rare"] * 2 + ["scarce"] * 2 + ["single"]
    if kind == "text_csv":
        rows = [f"text {i},{label}" for i, label in enumerate(labels)]
        (tmp_path / "t.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
        return REGISTRY.get(kind)(path=str(tmp_path / "t.csv"), vocab_size=60)
    for i, label in enumerate(labels):
        picture(tmp_path / "images" / label / f"{i}.png", seed=i)
    return REGISTRY.get(kind)(path=str(tmp_path / "images"), size=8)


@pytest.mark.parametrize("kind", ["text_csv", "folder"])
def test_training_has_every_rare_label_for_every_seed(
    kind: str, tmp_path: Path
) -> None:
    data = rare(tmp_path, kind)
    incomplete = 0
    for seed in range(20):
        loaded = data.load(seed)
        assert loaded.classes == ("a", "b", "rare", "scarce", "single")
        trained = loaded.labels[loaded.splits["train"]]
        assert set(trained.tolist()) == set(range(5)), f"seed {seed}"
        sizes = [len(loaded.splits[part]) for part in ("train", "val", "test")]
        assert sizes == [21, 3, 6]
        plain = plain_split(30, None, seed)
        if len(set(loaded.labels[plain["train"]].tolist())) == 5:
            assert parts(loaded.splits) == parts(plain)
        else:
            incomplete += 1
    assert incomplete > 3  # seeds whose plain split lacks a label in training
    [warning] = loaded.notes.warnings
    assert "classes with 1 or 2 samples: rare 2, scarce 2, single 1" in warning


def test_more_labels_than_training_can_hold_are_refused_for_every_seed() -> None:
    labels = [f"{i}" for i in range(9)] + ["0"]
    for seed in range(10):
        with pytest.raises(RequestError, match="10 samples with 9 labels are too few"):
            grouped_split(labels, **FRACTIONS, generator=generator(seed))
