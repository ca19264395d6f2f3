"""Texts that the `datasets` library reads: folders, splits, columns, no internet."""

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


def test_the_run_id_depends_on_the_texts(
    given: dict[str, Any], tmp_path: Path, run: Run
) -> None:
    record = run(*overrides(given), "batch_size=4", "budget.max_steps=2")
    assert record.status == "ok" and 0 < (record.facts["pad_share"] or 0) < 1
    target = (tmp_path / "set").rename(tmp_path / "moved")
    steps = ["batch_size=4", "budget.max_steps=2"]
    moved = overrides(given | {"dataset": str(target)})
    assert run_id(compose(["budget=smoke", *moved, *steps])) == record.run_id
    other = datasets.load_from_disk(str(target))
    other["train"] = other["train"].select(range(39))
    other.save_to_disk(str(tmp_path / "other"))
    changed = overrides(given | {"dataset": str(tmp_path / "other")})
    assert run_id(compose(["budget=smoke", *changed, *steps])) != record.run_id


def test_missing_splits_and_columns_are_named(given: dict[str, Any]) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"dataset": None}, "data.dataset is not set"),
        ({"test_split": "train"}, "test_split are both train, so the network would"),
        ({"train_split": "trian"}, "data.train_split=trian is not a split"),
        ({"test_split": "dev"}, "data.test_split=dev is not a split of"),
        ({"text_column": "review"}, "data.text_column=review is not a column of"),
        ({"label_column": "stars"}, "which has text, label"),
    ]
    for options, message in cases:
        with pytest.raises(RequestError) as refused:
            loaded(given, **options)
        assert message in str(refused.value)


def test_a_row_without_text_or_label_is_named(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, list[Any]], str]] = [
        (
            {"text": ["a", None], "label": ["x", "y"]},
            "row 1 has None instead of a text",
        ),
        ({"text": [" ", "b"], "label": ["x", "y"]}, "row 0 has ' ' instead of a text"),
        (
            {"text": ["a", "b"], "label": ["x", None]},
            "row 1 has None instead of a label",
        ),
    ]
    for i, (columns, message) in enumerate(cases):
        folder = str(tmp_path / f"set {i}")
        table = datasets.Dataset.from_dict(columns)
        datasets.DatasetDict({"train": table}).save_to_disk(folder)
        with pytest.raises(RequestError, match=message):
            loaded({"dataset": folder, "test_split": None})


def test_a_cached_data_set_needs_no_internet(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = text_csv(tmp_path / "reviews", monkeypatch)
    _read.cache_clear()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.load_dataset(str(tmp_path / "reviews"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    Path(made["path"]).unlink()
    assert len(loaded({"dataset": "reviews"}, test_split=None).labels) == 60


def test_a_missing_data_set_without_internet_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for name in ["nobody/no-such-set", "~nobody99/x"]:
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
