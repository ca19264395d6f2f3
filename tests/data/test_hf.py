"""Texts by the `datasets` library: folders, splits, columns, and no network."""

import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Run
from data_made import hf, text_csv

from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.data.base import REGISTRY, Tokens
from normbench.data.hf import _read
from normbench.errors import RequestError

datasets = pytest.importorskip("datasets")


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    _read.cache_clear()
    return hf(tmp_path / "set", monkeypatch)


def loaded(given: dict[str, Any], **options: Any) -> Tokens:
    checked = REGISTRY.options("hf", given | options)
    tokens: Tokens = REGISTRY.get("hf")(**checked).load(0)
    return tokens


def overrides(given: dict[str, Any]) -> list[str]:
    return ["task=transformer", "data=hf", *(f"data.{k}={v}" for k, v in given.items())]


def test_the_splits_and_names_are_those_of_the_set(given: dict[str, Any]) -> None:
    data = loaded(given)
    assert data.classes == ("bad", "good")
    assert len(data.splits["train"]) == 36 and len(data.splits["val"]) == 4
    assert sorted(data.splits["test"].tolist()) == list(range(40, 50))
    assert data.labels.tolist() == [int(i % 2 == 0) for i in range(50)]
    drawn = loaded(given, test_split=None)
    assert len(drawn.labels) == 40 and len(drawn.splits["test"]) == 8


def test_texts_are_the_identity(
    given: dict[str, Any], tmp_path: Path, run: Run
) -> None:
    record = run(*overrides(given), "batch_size=4", "budget.max_steps=2")
    assert record.status == "ok" and 0 < (record.facts["pad_share"] or 0) < 1
    moved = (tmp_path / "set").rename(tmp_path / "moved")
    steps = ["batch_size=4", "budget.max_steps=2"]
    there = compose(
        ["budget=smoke", *overrides(given | {"dataset": str(moved)}), *steps]
    )
    assert run_id(there) == record.run_id
    other = datasets.load_from_disk(str(moved))
    other["train"] = other["train"].select(range(39))
    other.save_to_disk(str(tmp_path / "other"))
    changed = overrides(given | {"dataset": str(tmp_path / "other")})
    assert run_id(compose(["budget=smoke", *changed, *steps])) != record.run_id


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dataset": None}, "data.dataset is not set"),
        ({"test_split": "train"}, "test_split are both train, so the network would"),
        ({"train_split": "trian"}, "data.train_split=trian is not a split"),
        ({"test_split": "dev"}, "data.test_split=dev is not a split of"),
        ({"text_column": "review"}, "data.text_column=review is not a column of"),
        ({"label_column": "stars"}, "which has text, label"),
    ],
)
def test_what_the_set_does_not_have_is_named(
    options: dict[str, Any], words: str, given: dict[str, Any]
) -> None:
    with pytest.raises(RequestError) as refused:
        loaded(given, **options)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            {"text": ["a", None], "label": ["x", "y"]},
            "row 1 has None instead of a text",
        ),
        ({"text": [" ", "b"], "label": ["x", "y"]}, "row 0 has ' ' instead of a text"),
        (
            {"text": ["a", "b"], "label": ["x", None]},
            "row 1 has None instead of a label",
        ),
    ],
)
def test_a_row_without_text_or_label_is_named(
    columns: dict[str, list[Any]], words: str, tmp_path: Path
) -> None:
    table = datasets.Dataset.from_dict(columns)
    datasets.DatasetDict({"train": table}).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(RequestError, match=words):
        loaded({"dataset": str(tmp_path / "set"), "test_split": None})


def test_what_is_in_the_cache_of_the_library_needs_no_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = text_csv(tmp_path / "reviews", monkeypatch)
    _read.cache_clear()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.load_dataset(str(tmp_path / "reviews"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    Path(made["path"]).unlink()
    assert len(loaded({"dataset": "reviews"}, test_split=None).labels) == 60


@pytest.mark.parametrize("name", ["nobody/no-such-set", "~nobody99/x"])
def test_a_set_that_is_not_here_without_network_is_one_message(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    with pytest.raises(RequestError) as refused:
        loaded({"dataset": name})
    assert f"data.dataset={name} is neither" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_without_the_library_the_extra_is_named(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(RequestError, match=r"pip install 'normbench\[text\]'"):
        loaded(given)
